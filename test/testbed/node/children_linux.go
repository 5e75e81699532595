package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// children are the programs that process 1 has started. It also reaps what others leave to it, which is why it cannot use os/exec to wait.
type children struct {
	mu    sync.Mutex
	known map[int]func(syscall.WaitStatus)
}

func newChildren() *children {
	c := &children{known: map[int]func(syscall.WaitStatus){}}
	go c.reap() // ends with the process
	return c
}

func (c *children) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil || pid <= 0 { // no child yet
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c.mu.Lock()
		tell := c.known[pid]
		delete(c.known, pid)
		c.mu.Unlock()
		if tell != nil {
			tell(status)
		}
	}
}

// start runs a program, whose end goes to ended.
func (c *children) start(argv []string, ended chan<- error) error {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec(program, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	c.known[pid] = func(s syscall.WaitStatus) {
		ended <- fmt.Errorf("%s ended with status %d (signal %d)", filepath.Base(program), s.ExitStatus(), s.Signal())
	}
	return nil
}

// waitFor waits for a socket that one of the children makes.
func waitFor(socket string, ended <-chan error) error {
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
