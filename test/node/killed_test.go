//go:build linux

package node_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// holdEnv makes TestHold start a cluster and wait to be killed.
const holdEnv = "KEDGE_TEST_HOLD_NODE"

// TestHold is the program that TestNodeEndsWithItsOwner kills.
func TestHold(t *testing.T) {
	if os.Getenv(holdEnv) == "" {
		t.Skip("TestNodeEndsWithItsOwner runs this")
	}
	w := newWorld(t)
	fmt.Println("running", filepath.Dir(filepath.Dir(w.cluster.MasterKubeconfig())))
	select {}
}

// TestNodeEndsWithItsOwner: where the program that started a cluster is killed, nothing of its node goes on: no process, no mount, no cgroup but
// empty ones, no file.
func TestNodeEndsWithItsOwner(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHold$", "-test.v")
	cmd.Env = append(os.Environ(), holdEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir, said := "", ""
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		said += lines.Text() + "\n"
		_, dir, _ = strings.Cut(lines.Text(), "running ")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if dir == "" && strings.Contains(said, "cannot run a node") {
		t.Skip(said)
	}
	if dir == "" {
		t.Fatalf("no cluster was started: %s", said)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		left := remains(t, dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %s this is left: %v", dir, left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// remains are the processes that name a folder, the mounts below it, and the folder itself.
func remains(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	if _, err := os.Stat(dir); err == nil {
		left = append(left, dir)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir) {
			left = append(left, file+": "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		left = append(left, string(mounts))
	}
	return left
}
