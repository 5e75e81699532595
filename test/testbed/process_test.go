//go:build unix

package testbed

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helperEnv makes the test binary start a server and then wait, for the test that kills it.
const helperEnv = "KEDGE_TESTBED_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		p, err := startProcess(dir, "server", "/bin/sh", "-c", "echo $$ > pid; exec sleep 600")
		if err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString("started\n")
		<-p.done
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestServersEndWithAKilledProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	pid := waitPid(t, filepath.Join(dir, "server", "pid"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitFor(t, "the server's end", func() bool { return gone(pid) })
	waitFor(t, "removal of its folder", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

func TestStopEndsAServerAndItsWatcher(t *testing.T) {
	parent := t.TempDir()
	p, err := startProcess(parent, "server", "/bin/sh", "-c", "exec sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	waitFor(t, "the end of the group", func() bool { return errors.Is(syscall.Kill(-p.cmd.Process.Pid, 0), syscall.ESRCH) })
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		t.Errorf("the server's folder is still there: %v", err)
	}
}

func TestAServerThatEndsIsExplainedByItsLog(t *testing.T) {
	p, err := startProcess(t.TempDir(), "server", "/bin/sh", "-c", "echo no disk; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	never := errors.New("not yet")
	err = waitReady(t.Context(), "it", func(context.Context) error { return never }, p)
	if err == nil || !strings.Contains(err.Error(), "no disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("waitReady = %v", err)
	}
}

func TestPortsTakenMeanwhileAreTriedAgain(t *testing.T) {
	tries := 0
	got, err := retryPorts(func() (int, error) {
		if tries++; tries < 3 {
			return 0, errors.New("listen tcp 127.0.0.1:1: bind: address already in use")
		}
		return tries, nil
	})
	if got != 3 || err != nil {
		t.Errorf("retryPorts = %d, %v", got, err)
	}
	tries = 0
	if _, err = retryPorts(func() (int, error) { tries++; return 0, errors.New("no disk") }); err == nil || tries != 1 {
		t.Errorf("another failure was tried %d times: %v", tries, err)
	}
}

func waitPid(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	waitFor(t, "the server's pid", func() bool {
		data, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(string(data), "\n") {
			return false
		}
		for _, r := range strings.TrimSpace(string(data)) {
			pid = pid*10 + int(r-'0')
		}
		return true
	})
	return pid
}

// gone says that a process has ended; one that nobody has waited for yet has ended too.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
