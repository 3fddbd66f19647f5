// A registry for tests: go-containerregistry's own, with what its command leaves off: the referrers API, and a warning with every answer.
// It listens on the address of its argument and keeps everything in memory.
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
