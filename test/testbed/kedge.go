package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// WithKedge is for TestMain: it builds the kedge under test, says by path where it is, and runs the tests. It returns the exit code.
func WithKedge(m *testing.M, path *string) int {
	dir, err := os.MkdirTemp("", "kedge-under-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*path = filepath.Join(dir, "kedge")
	build := exec.Command("go", "build", "-o", *path, "kedge.dev/kedge/cmd/kedge")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kedge: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
