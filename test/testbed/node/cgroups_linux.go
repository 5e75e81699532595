package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the folders below which the node's cgroups are made: one of cgroups v2, or one for each controller of v1.
func hierarchies() []string {
	if unified() {
		return []string{cgroupRoot}
	}
	var out []string
	own, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] == "" {
			continue
		}
		dir := filepath.Join(cgroupRoot, strings.TrimPrefix(fields[1], "name="), fields[2])
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// leaf is where the node's own processes are: v2 has none in a cgroup that has others below it.
func leaf(dir string) string {
	if unified() {
		return filepath.Join(dir, "node")
	}
	return dir
}

func makeCgroup(name string) error {
	for _, h := range hierarchies() {
		dir := filepath.Join(h, name)
		if err := os.MkdirAll(leaf(dir), 0o755); err != nil {
			return fmt.Errorf("make the node's cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 takes no process where these are empty
			if text, err := os.ReadFile(filepath.Join(h, file)); err == nil && !unified() {
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
					return fmt.Errorf("set up the node's cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// joinCgroup moves this process, and so all that it starts, into the node's cgroup.
func joinCgroup(name string) error {
	for _, h := range hierarchies() {
		file := filepath.Join(leaf(filepath.Join(h, name)), "cgroup.procs")
		if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
			return fmt.Errorf("join the node's cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroup removes the node's cgroups; processes that are just ending get ten seconds for that.
func removeCgroup(name string) error {
	var err error
	for range 100 {
		err = nil
		for _, h := range hierarchies() {
			err = errors.Join(err, removeEmpty(filepath.Join(h, name)))
		}
		if err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// removeEmpty removes a cgroup and those below it.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeEmpty(filepath.Join(dir, e.Name())))
		}
	}
	if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sweepCgroups removes what nodes have left that were killed.
func sweepCgroups() {
	for _, h := range hierarchies() {
		stale, _ := filepath.Glob(filepath.Join(h, cgroupPrefix+"*"))
		for _, dir := range stale {
			if !alive(filepath.Base(dir)) {
				_ = removeEmpty(dir)
			}
		}
	}
}
