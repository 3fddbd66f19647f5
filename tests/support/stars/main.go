// Stars writes an eStargz layer of a tar, as stargz-snapshotter's own package does, which ctr-remote, nerdctl and BuildKit use:
//
//	stars TAR LAYER CHUNK LEAST [TABLE]
//
// CHUNK: into chunks of how many bytes files are cut, 0 for the package's own 4 MiB. LEAST: how many bytes a gzip member has at least, so
// that small files share one; 0 for a member of its own for each. TABLE: where the table is written, apart from the layer. It prints the
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
