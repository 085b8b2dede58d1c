// Posts a body several times with one client, and prints each status.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	size, _ := strconv.Atoi(os.Args[2])
	count, _ := strconv.Atoi(os.Args[3])
	body := bytes.Repeat([]byte("x"), size)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	client := &http.Client{Transport: transport, Timeout: 60 * time.Second}
	for i := 0; i < count; i++ {
		answer, err := client.Post(os.Args[1], "application/json", bytes.NewReader(body))
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			fmt.Println("error:", err)
			continue
		}
		answer.Body.Close()
		fmt.Println(answer.StatusCode)
	}
}
