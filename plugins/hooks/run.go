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
		return &failure{what: fmt.Sprintf("%s of pod %s", c.Source, p), err: c.Invalid}
	}
	if ex == nil {
		return &failure{what: fmt.Sprintf("%s in pod %s", c.program(), p), err: errors.New("this process cannot run commands in pods")}
	}
	container := c.Container
	if container == "" && len(p.Containers) > 0 {
		container = p.Containers[0]
	}
	if !slices.Contains(p.Containers, container) {
		return &failure{what: fmt.Sprintf("%s in pod %s", c.program(), p), err: fmt.Errorf("it has no container %q, but %s", container, strings.Join(p.Containers, ", "))}
	}
	err := ex.Exec(ctx, podexec.Request{Namespace: p.Namespace, Pod: p.Name, Container: container, Command: c.Argv, Timeout: c.Timeout})
	if err == nil {
		return nil
	}
	f := &failure{what: fmt.Sprintf("%s in pod %s, container %s", c.program(), p, container), err: err}
	_, exited := errors.AsType[*podexec.ExitError](err)
	switch {
	case errors.Is(err, podexec.ErrForbidden):
		f.remedy = fmt.Sprintf(`: grant "create" and "get" on pods/exec in namespace %s to the account that Kedge uses (of the chart: rbac.exec)`, p.Namespace)
	case errors.Is(err, podexec.ErrGone):
	case exited, errors.Is(err, podexec.ErrTimeout), ctx.Err() != nil:
		f.began = true
	default:
		f.began, f.lost = true, true
	}
	return f
}

// failure is a command that failed.
type failure struct {
	what, remedy string
	err          error
	began        bool // it may have begun
	lost         bool // nobody knows whether it has
}

// Error says which command failed, where and why.
func (f *failure) Error() string { return fmt.Sprintf("%s: %v%s", f.what, f.err, f.remedy) }
func (f *failure) Unwrap() error { return f.err }

// Lost says of an error of Run that the command may not have reached its container, so that one which may run twice is worth another try.
func Lost(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.lost
}

// Began says of what Run returned that the command may have begun.
func Began(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return !ok || f.began
}

// Brief is an error of Run without what the command has written, for where others read than those who may read the report.
func Brief(err error) string {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return err.Error()
	}
	if exit, ok := errors.AsType[*podexec.ExitError](f.err); ok {
		return fmt.Sprintf("%s: exit code %d", f.what, exit.Code)
	}
	return f.Error()
}
