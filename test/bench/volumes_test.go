//go:build unix

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"kedge.dev/kedge/test/testbed"
)

// TestTree makes a tree twice: it has as many files as asked for, of sizes within the bounds, old, and the same bytes each time.
func TestTree(t *testing.T) {
	spec := treeSpec{files: 250, perFolder: 100, smallest: 10, most: 5000}
	dirs := []string{t.TempDir(), t.TempDir()}
	var total int64
	for _, dir := range dirs {
		n, err := spec.make(dir)
		if err != nil {
			t.Fatal(err)
		}
		total = n
	}
	files, size := 0, int64(0)
	err := filepath.WalkDir(dirs[0], func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		rel, err := filepath.Rel(dirs[0], path)
		if err != nil {
			return err
		}
		first, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		second, err := os.ReadFile(filepath.Join(dirs[1], rel))
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s differs, %v", rel, err)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() < spec.smallest || info.Size() > spec.most || !info.ModTime().Equal(written) {
			t.Errorf("%s has %d bytes of %v", rel, info.Size(), info.ModTime())
		}
		size += info.Size()
		return nil
	})
	if err != nil || files != spec.files || size != total {
		t.Errorf("%d files with %d bytes, want %d with %d: %v", files, size, spec.files, total, err)
	}
	if folders, err := filepath.Glob(filepath.Join(dirs[0], "000", "*")); err != nil || len(folders) != 3 {
		t.Errorf("the files are in %v, %v", folders, err)
	}
}

// TestCheckRead refuses what would make a figure of something else.
func TestCheckRead(t *testing.T) {
	for _, c := range []struct {
		have, read int
		first, ok  bool
	}{{10, 10, true, true}, {10, 0, false, true}, {9, 9, true, false}, {10, 9, true, false}, {10, 1, false, false}, {0, 0, false, false}} {
		if err := checkRead("it", c.have, c.read, 10, c.first); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestBest keeps the fastest of each kind and the largest memory.
func TestBest(t *testing.T) {
	var b best
	b.add(usage{seconds: 3, memory: 10}, usage{seconds: 1, memory: 5})
	b.add(usage{seconds: 2, memory: 7}, usage{seconds: 4, memory: 12})
	if b != (best{first: 2, again: 1, memory: 12}) {
		t.Errorf("%+v", b)
	}
}

// TestProxyCountsWrites sends a body through the proxy.
func TestProxyCountsWrites(t *testing.T) {
	var got int
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got += len(body)
	}))
	defer behind.Close()
	p, err := startProxy(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		body := bytes.NewReader(make([]byte, 100_000))
		if method == http.MethodGet {
			body = bytes.NewReader(nil)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, p.url+"/key", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // it has no content
	}
	if p.written() != 100_000 || got != 100_000 {
		t.Errorf("counted %d bytes of %d", p.written(), got)
	}
	if p.reset(); p.written() != 0 {
		t.Errorf("%d bytes after the reset", p.written())
	}
}

// TestKopiaVersion holds the command to the version of the library that Kedge is built with.
func TestKopiaVersion(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^\s*github.com/kopia/kopia v` + regexp.QuoteMeta(testbed.KopiaVersion) + `$`).Match(text) {
		t.Errorf("go.mod has another version of kopia than %s", testbed.KopiaVersion)
	}
}
