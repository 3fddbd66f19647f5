// Ztocs writes the zTOC of a layer to standard output, as `soci create`, with SOCI's package:
//
//	ztocs FILE SPAN gzip|uncompressed
package main

import (
	"io"
	"log"
	"os"
	"strconv"

	"github.com/awslabs/soci-snapshotter/ztoc"
)

func main() {
	span, err := strconv.ParseInt(os.Args[2], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	made, err := ztoc.NewBuilder("tests").BuildZtoc(os.Args[1], span, ztoc.WithCompression(os.Args[3]))
	if err != nil {
		log.Fatal(err)
	}
	reader, _, err := ztoc.Marshal(made)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, reader); err != nil {
		log.Fatal(err)
	}
}
