// get.go URL: says `at N` while the body comes, and at the end `hash` of it.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	hash, piece, at := sha256.New(), make([]byte, 65536), 0
	for {
		n, err := response.Body.Read(piece)
		hash.Write(piece[:n])
		at += n
		fmt.Println("at", at)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Printf("hash %x\n", hash.Sum(nil))
}
