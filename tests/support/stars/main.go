// Stars writes a tar as an eStargz layer with stargz-snapshotter's package, as ctr-remote, nerdctl
// and BuildKit do:
//
//	stars TAR LAYER CHUNK LEAST [TABLE]
//
// CHUNK is the size of a file's chunks in bytes, or 0 for the package's default of 4 MiB. LEAST is
// the minimal size of a gzip member, so that small files share one, or 0 for separate members. With
// TABLE, the table of contents is written to that file and not into the layer. The output is the
// digest of the table, and the diff ID.
package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/externaltoc"
)

func main() {
	if len(os.Args) < 5 || len(os.Args) > 6 {
		log.Fatal("stars TAR LAYER CHUNK LEAST [TABLE]")
	}
	var apart *externaltoc.GzipCompression
	if len(os.Args) == 6 {
		apart = externaltoc.NewGzipCompressionWithLevel(nil, gzip.BestCompression).(*externaltoc.GzipCompression)
	}
	table, diffID, err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4], apart)
	if err == nil && apart != nil {
		err = writeTable(os.Args[5], apart)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(table, diffID)
}

func writeTable(target string, apart *externaltoc.GzipCompression) error {
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	if _, err := apart.WriteTOCTo(out); err != nil {
		return err
	}
	return out.Close()
}

func write(source, target, chunkText, leastText string, apart *externaltoc.GzipCompression) (table, diffID string, err error) {
	chunk, err := strconv.Atoi(chunkText)
	if err != nil {
		return "", "", err
	}
	least, err := strconv.Atoi(leastText)
	if err != nil {
		return "", "", err
	}
	file, err := os.Open(source)
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", "", err
	}
	options := []estargz.Option{estargz.WithChunkSize(chunk), estargz.WithMinChunkSize(least)}
	if apart != nil {
		options = append(options, estargz.WithCompression(apart))
	}
	made, err := estargz.Build(io.NewSectionReader(file, 0, info.Size()), options...)
	if err != nil {
		return "", "", err
	}
	defer made.Close()
	out, err := os.Create(target)
	if err != nil {
		return "", "", err
	}
	if _, err := io.Copy(out, made); err != nil {
		return "", "", err
	}
	return made.TOCDigest().String(), made.DiffID().String(), out.Close()
}
