package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kedge.dev/kedge/internal/podexec"
)

// Executor runs a command in a container, with the errors of podexec.
type Executor interface {
	Exec(ctx context.Context, req podexec.Request) error
}

// Run runs one command in a pod. The error says which, where and why, and nothing of what the command was given.
func Run(ctx context.Context, ex Executor, p *Pod, c *Command) error {
	if c.Invalid != nil {
		return fmt.Errorf("%s of pod %s: %w", c.Source, p, c.Invalid)
	}
	if ex == nil {
		return fmt.Errorf("%s in pod %s: this process cannot run commands in pods", c.program(), p)
	}
	container := c.Container
	if container == "" && len(p.Containers) > 0 {
		container = p.Containers[0]
	}
	if !slices.Contains(p.Containers, container) {
		return fmt.Errorf("%s in pod %s: it has no container %q, but %s", c.program(), p, container, strings.Join(p.Containers, ", "))
	}
	err := ex.Exec(ctx, podexec.Request{Namespace: p.Namespace, Pod: p.Name, Container: container, Command: c.Argv, Timeout: c.Timeout})
	if err == nil {
		return nil
	}
	remedy := ""
	if errors.Is(err, podexec.ErrForbidden) {
		remedy = fmt.Sprintf(`: grant "create" and "get" on pods/exec in namespace %s to the account that Kedge uses (of the chart: rbac.exec)`, p.Namespace)
	}
	if ctx.Err() == nil && !delivered(err) {
		err = &lostError{err}
	}
	return fmt.Errorf("%s in pod %s, container %s: %w%s", c.program(), p, container, err, remedy)
}

// lostError is of a command that may not have reached its container.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// Lost says of an error of Run that the command may not have reached its container, so that one which may run twice is worth another try.
func Lost(err error) bool {
	_, lost := errors.AsType[*lostError](err)
	return lost
}

func delivered(err error) bool {
	_, exited := errors.AsType[*podexec.ExitError](err)
	return exited || errors.Is(err, podexec.ErrTimeout) || errors.Is(err, podexec.ErrForbidden) || errors.Is(err, podexec.ErrGone)
}
