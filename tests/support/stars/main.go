// Stars writes an eStargz layer of a tar, as stargz-snapshotter's own package does, which ctr-remote, nerdctl and BuildKit use:
//
//	stars TAR LAYER CHUNK LEAST
//
// CHUNK: into chunks of how many bytes files are cut, 0 for the package's own 4 MiB. LEAST: how many bytes a gzip member has at least, so
// that small files share one; 0 for a member of its own for each. It prints the digest of the table, and the diff ID.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("stars TAR LAYER CHUNK LEAST")
	}
	table, diffID, err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(table, diffID)
}

func write(source, target, chunkText, leastText string) (table, diffID string, err error) {
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
	made, err := estargz.Build(io.NewSectionReader(file, 0, info.Size()), estargz.WithChunkSize(chunk), estargz.WithMinChunkSize(least))
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
