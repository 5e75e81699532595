//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what the kernel says a process took.
type usage struct {
	seconds, memory, cpu float64
}

// runKedge runs the binary with the store's credentials, decodes its JSON into result unless that is nil, and gives what it took.
func (b *bench) runKedge(ctx context.Context, into any, args ...string) (usage, error) {
	return b.runKedgeAs(ctx, b.s3.Env(), into, args...)
}

// runKedgeAs is runKedge with other credentials.
func (b *bench) runKedgeAs(ctx context.Context, env []string, into any, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, b.kedge, args...)
	cmd.Env = append(os.Environ(), "KEDGE_LOCAL=true", "KEDGE_CONFIG="+filepath.Join(b.dir, "config.yaml"), "KEDGE_STATE_DIR="+filepath.Join(b.dir, "state"),
		"KEDGE_AGE_IDENTITY_FILE="+b.identity(), "AWS_EC2_METADATA_DISABLED=true")
	if args[0] == "location" && args[1] == "create" {
		cmd.Env = append(cmd.Env, "KEDGE_AGE_IDENTITY_FILE=")
	}
	cmd.Env = append(cmd.Env, env...)
	text, took, err := timed(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 && into != nil {
		err = nil // partly: the caller looks at the counts
	}
	if err != nil {
		return usage{}, fmt.Errorf("kedge %s %s: %w", args[0], args[1], err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			return usage{}, fmt.Errorf("read what kedge %s %s printed: %w", args[0], args[1], err)
		}
	}
	return took, nil
}

// timed runs a program to its end, and gives what it printed and what it took.
func timed(cmd *exec.Cmd) ([]byte, usage, error) {
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, usage{}, err
	}
	peak := watchMemory(cmd.Process.Pid)
	err := cmd.Wait()
	seconds := time.Since(start).Seconds()
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return out.Bytes(), usage{seconds: seconds, memory: peak(), cpu: cpu.Seconds()}, err
}

// watchMemory follows the peak of a process's resident memory, which the function that it returns gives in MiB once the process has ended.
// The kernel's own count for a child that has ended (ru_maxrss, getrusage(2)) would not do: it begins with that of the program that
// started the child, which is this one with its lists of objects.
func watchMemory(pid int) func() float64 {
	path := fmt.Sprintf("/proc/%d/status", pid)
	stop, peak := make(chan struct{}), make(chan float64)
	go func() { // ends with the call of the function
		var kib float64
		for {
			if n, ok := highWater(path); ok {
				kib = n
			}
			select {
			case <-stop:
				peak <- kib / 1024
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() float64 {
		close(stop)
		return <-peak
	}
}

// highWater reads VmHWM, in KiB (proc_pid_status(5)).
func highWater(path string) (float64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return n, err == nil
		}
	}
	return 0, false // it has ended
}
