// Command reference does what a backup and a restore cannot do without, and nothing else: it lists objects page by page and throws the
// bytes away, or POSTs objects, or reads the blocks of a snapshot and PUTs them to S3. Its best rates are the limits that the benchmarks measure Kedge against.
//
// It prints one line for each setting that it tries, and last the best: "best objects=<n> seconds=<s> rate=<objects/s> …".
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"kedge.dev/kedge/test/bench/objects"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("reference", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig of the server")
	pages := flags.String("pages", "250,500,1000", "page sizes to try")
	connections := flags.String("connections", "1,2,4,8,16,32", "numbers of connections to try")
	count := flags.Int("objects", 10000, "number of objects to create")
	paths := flags.String("paths", strings.Join(objects.Collections, ","), "collections to list")
	if len(args) == 0 {
		return errors.New("say list, create or blocks")
	}
	if args[0] == "blocks" {
		return blocks(ctx, args[1:], out)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	conns, err := numbers(*connections)
	if err != nil {
		return err
	}
	switch args[0] {
	case "list":
		sizes, err := numbers(*pages)
		if err != nil {
			return err
		}
		return bestList(ctx, out, cfg, strings.Split(*paths, ","), sizes, conns)
	case "create":
		if len(conns) != 1 {
			return errors.New("create takes one number of connections: what was created cannot be created again")
		}
		return create(ctx, out, cfg, *count, conns[0])
	}
	return fmt.Errorf("%q is neither list nor create nor blocks", args[0])
}

func numbers(list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no positive number", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// client makes one HTTP client with that many connections, and the header that logs it in.
func client(cfg *rest.Config, connections int) (*http.Client, string, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cfg.CAData) {
		return nil, "", errors.New("the kubeconfig has no certificate-authority-data")
	}
	token := cfg.BearerToken
	if token == "" {
		return nil, "", errors.New("the kubeconfig has no token")
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12},
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true, ReadBufferSize: 64 << 10,
	}}, "Bearer " + token, nil
}

func bestList(ctx context.Context, out io.Writer, cfg *rest.Config, paths []string, pages, connections []int) error {
	var best string
	var bestRate float64
	for _, size := range pages {
		for _, n := range connections {
			c, auth, err := client(cfg, n)
			if err != nil {
				return err
			}
			l := &lister{client: c, auth: auth, base: cfg.Host, size: size}
			start := time.Now()
			if err := l.all(ctx, paths, n); err != nil {
				return err
			}
			seconds := time.Since(start).Seconds()
			c.CloseIdleConnections()
			rate := float64(l.items.Load()) / seconds
			line := fmt.Sprintf("objects=%d seconds=%.3f rate=%.0f pages=%d connections=%d bytes=%d", l.items.Load(), seconds, rate, size, n, l.bytes.Load())
			fmt.Fprintln(out, line)
			if rate > bestRate {
				best, bestRate = line, rate
			}
		}
	}
	fmt.Fprintln(out, "best", best)
	return nil
}

type lister struct {
	client *http.Client
	auth   string
	base   string
	size   int
	items  atomic.Int64
	bytes  atomic.Int64
}

func (l *lister) all(ctx context.Context, paths []string, connections int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(connections)
	for _, p := range paths {
		g.Go(func() error { return l.list(ctx, p) })
	}
	return g.Wait()
}

func (l *lister) list(ctx context.Context, path string) error {
	buf := make([]byte, 256<<10)
	token := ""
	for {
		q := url.Values{"limit": {strconv.Itoa(l.size)}}
		if token != "" {
			q.Set("continue", token)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path+"?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", l.auth)
		req.Header.Set("Accept", "application/json")
		resp, err := l.client.Do(req)
		if err != nil {
			return err
		}
		token, err = l.discard(resp, buf)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if token == "" {
			return nil
		}
	}
}

// discard reads a page. It looks at its first and last bytes only, where the token of the next page stands, and counts objects
// by their uids, the cheapest mark that each has once at least; the count is corrected by the page size.
func (l *lister) discard(resp *http.Response, buf []byte) (string, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	const edge = 4096
	var first, last []byte
	items := 0
	for {
		n, err := io.ReadFull(resp.Body, buf)
		chunk := buf[:n]
		l.bytes.Add(int64(n))
		items += bytes.Count(chunk, []byte(`"creationTimestamp":"`))
		if first == nil {
			first = append(first, chunk[:min(n, edge)]...)
		}
		last = append(last, chunk[max(0, n-edge):]...)
		last = last[max(0, len(last)-edge):]
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	l.items.Add(int64(min(items, l.size)))
	if token := tokenIn(first); token != "" {
		return token, nil
	}
	return tokenIn(last), nil
}

func tokenIn(b []byte) string {
	_, rest, found := bytes.Cut(b, []byte(`"continue":"`))
	if !found {
		return ""
	}
	token, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(token)
}

func create(ctx context.Context, out io.Writer, cfg *rest.Config, count, connections int) error {
	c, auth, err := client(cfg, connections)
	if err != nil {
		return err
	}
	p := &poster{client: c, auth: auth, base: cfg.Host}
	// The bodies are made beforehand, so that their making costs nothing while the clock runs.
	var spaces, rest []objects.Object
	for i := range objects.Namespaces(count) {
		spaces = append(spaces, objects.Namespace(i))
	}
	if err := objects.Rest(count, func(o objects.Object) error { rest = append(rest, o); return nil }); err != nil {
		return err
	}
	start := time.Now()
	for _, set := range [][]objects.Object{spaces, rest} {
		if err := p.all(ctx, set, connections); err != nil {
			return err
		}
	}
	seconds := time.Since(start).Seconds()
	n := len(spaces) + len(rest)
	fmt.Fprintf(out, "best objects=%d seconds=%.3f rate=%.1f connections=%d\n", n, seconds, float64(n)/seconds, connections)
	return nil
}

type poster struct {
	client *http.Client
	auth   string
	base   string
}

func (p *poster) all(ctx context.Context, set []objects.Object, connections int) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range connections {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(set) {
					return nil
				}
				if err := p.post(ctx, set[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func (p *poster) post(ctx context.Context, o objects.Object) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+o.Path, bytes.NewReader(o.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", p.auth)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("POST %s: HTTP %d: %s", o.Path, resp.StatusCode, body)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
