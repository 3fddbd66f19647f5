// Referring is a registry for tests: go-containerregistry's, with the referrers API and a warning
// in every response, which its command does not offer. It listens on the address in its argument,
// and stores everything in memory.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	handler := registry.New(registry.WithReferrersSupport(true), registry.WithWarning(1, "this registry forgets"))
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}
