// Command node is the machine of a testbed's cluster: containerd and a kubelet with processes, mounts, a network and a host name of their own, so
// that they change nothing on the machine that they run on, and are gone with all that they mounted when the first of their processes ends, by
// whatever cause.
//
// It is three programs in one: "outside" starts "inside" in its own namespaces and stays on the machine's side of its network; "inside" is the node's
// process 1; "pause" holds a pod's namespaces, as the program of the sandbox image. It is built by itself and uses the standard library only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// settings are what the testbed decides; a file of JSON holds them.
type settings struct {
	// Dir is the node's folder. Its sockets are "node.sock" (connections into the node's network) and "host.sock" (out of it).
	Dir string
	// Name is the host name.
	Name string
	// Addresses are the node's own.
	Addresses []string
	// Forward is, by address of the node, which address of the machine's loopback it leads to.
	Forward map[string]string
	// Shadow is, by folder of the machine, which names in it the node has for itself.
	Shadow map[string][]string
	// Kernel is, by file below /proc/sys, what the node is to find there, so that it does not change the machine's.
	Kernel map[string]string
	// Path is where programs are looked for first.
	Path string
	// Runtime and Kubelet are command lines. Kubelet starts once RuntimeSocket is there.
	Runtime, Kubelet []string
	RuntimeSocket    string
	// Beside are command lines of what runs beside the kubelet: a CSI driver.
	Beside [][]string
}

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	var err error
	switch {
	case role == "pause":
		pause()
	case len(os.Args) == 3 && role == "outside":
		err = outside(os.Args[2])
	case len(os.Args) == 3 && role == "inside":
		err = inside(os.Args[2])
	default:
		err = errors.New("usage: node outside|inside SETTINGS, or node pause")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func read(path string) (*settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's settings: %w", err)
	}
	s := &settings{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read the node's settings in %s: %w", path, err)
	}
	return s, nil
}

// pause waits to be told to end, and reaps what others leave to it.
func pause() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	left := make(chan os.Signal, 1)
	signal.Notify(left, syscall.SIGCHLD)
	for {
		select {
		case <-told:
			return
		case <-left:
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

// outside runs the node until it ends, or until this process is told to end.
func outside(path string) error {
	s, err := read(path)
	if err != nil {
		return err
	}
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	sweepCgroups(hs)
	cgroup := fmt.Sprint(cgroupPrefix, os.Getpid())
	defer func() { _ = removeCgroup(hs, cgroup) }()
	if err := makeCgroup(hs, cgroup); err != nil {
		return err
	}
	if err := serve(filepath.Join(s.Dir, "host.sock"), loopbackOnly); err != nil {
		return err
	}
	cmd := exec.CommandContext(told, "/proc/self/exe", "inside", path)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
		syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP}
	// The other end is held by this process alone: the node ends when it does.
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	if err := within(hs, cgroup, cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && told.Err() == nil {
		return fmt.Errorf("the node ended: %w", err)
	}
	return nil
}

// inside is process 1 of the node.
func inside(path string) error {
	s, err := read(path)
	if err != nil {
		return err
	}
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if err := syscall.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set the node's host name: %w", err)
	}
	if err := mountAll(s); err != nil {
		return err
	}
	if err := network(s); err != nil {
		return err
	}
	if err := os.Setenv("PATH", s.Path+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	return supervise(s)
}

// network gives the node its addresses, and ways in and out.
func network(s *settings) error {
	if err := addresses(s.Addresses); err != nil {
		return err
	}
	// Pods reach each other through the node. (The setting is of the network namespace.)
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("let pods reach each other: %w", err)
	}
	host := filepath.Join(s.Dir, "host.sock")
	for from, to := range s.Forward {
		if err := forward(host, from, to); err != nil {
			return err
		}
	}
	return serve(filepath.Join(s.Dir, "node.sock"), nil)
}

// supervise runs the node's programs, until one of them ends.
func supervise(s *settings) error {
	c := newChildren()
	ended := make(chan error, 2+len(s.Beside))
	if err := c.start(s.Runtime, ended); err != nil {
		return err
	}
	if err := waitFor(s.RuntimeSocket, ended); err != nil {
		return err
	}
	for _, argv := range append([][]string{s.Kubelet}, s.Beside...) {
		if err := c.start(argv, ended); err != nil {
			return err
		}
	}
	return <-ended
}

// cgroupPrefix begins the name of a node's cgroups; the id of the process outside ends it.
const cgroupPrefix = "kedge-testbed-"

// alive says whether the process that made a cgroup still runs.
func alive(cgroup string) bool {
	_, err := os.Stat("/proc/" + strings.TrimPrefix(cgroup, cgroupPrefix))
	return err == nil
}
