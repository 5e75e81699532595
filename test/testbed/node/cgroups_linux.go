package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one of the trees of cgroups of this machine: the one of v2, or one of those of v1.
type hierarchy struct {
	controllers string // of v1, as mount(2) takes them: "cpu,cpuacct", "name=systemd"
	mount       string // where it is mounted
	own         string // the folder of this process
	parent      string // the folder below which the node's is made
}

func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

func hierarchies() ([]hierarchy, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find this machine's cgroups: %w", err)
	}
	var out []hierarchy
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		h := hierarchy{controllers: fields[1], mount: filepath.Join(cgroupRoot, strings.TrimPrefix(fields[1], "name="))}
		h.own = filepath.Join(h.mount, fields[2])
		h.parent = h.own
		if unified() {
			h.parent = cgroupRoot // v2 wants no cgroups below one that has processes, but at the root
		} else if h.controllers == "" {
			continue // v2 beside v1, without controllers
		}
		if _, err := os.Stat(filepath.Join(h.own, "cgroup.procs")); err == nil {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted at %s", cgroupRoot)
	}
	return out, nil
}

// makeCgroup makes the node's cgroup in every hierarchy.
func makeCgroup(hs []hierarchy, name string) error {
	for _, h := range hs {
		dir := filepath.Join(h.parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make the node's cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 takes no process where these are empty
			if text, err := os.ReadFile(filepath.Join(h.parent, file)); err == nil && !unified() {
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
					return fmt.Errorf("set up the node's cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// within calls a function while this process is in the node's cgroup: what it starts then stays there, and takes it for the root where it gets a
// namespace of cgroups.
func within(hs []hierarchy, name string, do func() error) error {
	var errs []error
	for _, h := range hs {
		errs = append(errs, move(filepath.Join(h.parent, name)))
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, do())
	}
	for _, h := range hs {
		errs = append(errs, move(h.own))
	}
	return errors.Join(errs...)
}

// move moves this process into a cgroup.
func move(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o600); err != nil {
		return fmt.Errorf("move into a cgroup: %w", err)
	}
	return nil
}

// mountCgroups gives the node its own view of cgroups, whose root is its own one.
func mountCgroups() error {
	if unified() {
		if err := syscall.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount the node's cgroups: %w", err)
		}
		own := filepath.Join(cgroupRoot, "node") // beside those of pods
		return errors.Join(os.Mkdir(own, 0o755), move(own))
	}
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount the node's cgroups: %w", err)
	}
	for _, h := range hs {
		if err := os.Mkdir(h.mount, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("cgroup", h.mount, "cgroup", 0, h.controllers); err != nil {
			return fmt.Errorf("mount the node's cgroups of %s: %w", h.controllers, err)
		}
	}
	return nil
}

// removeCgroup removes the node's cgroups; processes that are just ending get ten seconds for that.
func removeCgroup(hs []hierarchy, name string) error {
	var err error
	for range 100 {
		err = nil
		for _, h := range hs {
			err = errors.Join(err, removeEmpty(filepath.Join(h.parent, name)))
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
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		errs = append(errs, &os.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	return errors.Join(errs...)
}

// sweepCgroups removes what nodes have left that were killed.
func sweepCgroups(hs []hierarchy) {
	for _, h := range hs {
		stale, _ := filepath.Glob(filepath.Join(h.parent, cgroupPrefix+"*"))
		for _, dir := range stale {
			if !alive(filepath.Base(dir)) {
				_ = removeEmpty(dir)
			}
		}
	}
}
