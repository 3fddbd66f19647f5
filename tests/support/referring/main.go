// A registry for tests: go-containerregistry's own, with what its command leaves off: the referrers API, and a warning with every answer.
// It keeps everything in memory, and writes the address that it listens on to its standard output.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	handler := registry.New(registry.WithReferrersSupport(true), registry.WithWarning(1, "this registry forgets"))
	log.Fatal(http.Serve(listener, handler))
}
