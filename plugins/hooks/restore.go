package hooks

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
)

// DefaultWait is how long the container of a restored pod is waited for where nothing says.
const DefaultWait = 5 * time.Minute

// restoreKind is what annotations of restore hooks begin with.
const restoreKind = "post.hook.restore."

// After is a command that runs in a pod that was restored.
type After struct {
	Command
	// Wait is how long the container is waited for.
	Wait time.Duration
	// Ready waits until it is ready, not only until it runs.
	Ready bool
}

// RestoreSet is the hooks of a restore's spec. Nil has none.
type RestoreSet struct{ list []compiledAfter }

type compiledAfter struct {
	chooser
	post []After
}

// CompileRestore checks the hooks of a restore's spec. Errors name the field: "spec.hooks[2].post[0].execTimeout".
func CompileRestore(list []v1alpha1.RestoreHook) (*RestoreSet, error) {
	s := &RestoreSet{}
	for i := range list {
		h, field := &list[i], fmt.Sprintf("spec.hooks[%d]", i)
		if len(h.Post) == 0 {
			return nil, fmt.Errorf("%s: hook %q has no post commands", field, h.Name)
		}
		var one compiledAfter
		var err error
		if one.chooser, err = compileChooser(field, h.Name, h.IncludedNamespaces, h.ExcludedNamespaces, h.LabelSelector); err != nil {
			return nil, err
		}
		for j := range h.Post {
			c, at := &h.Post[j], fmt.Sprintf("%s.post[%d]", field, j)
			after := After{Ready: c.WaitForReady, Command: Command{
				Source: fmt.Sprintf("hook %q", h.Name), Container: c.Container, Argv: c.Command, OnError: cmp.Or(c.OnError, v1alpha1.HookContinue),
			}}
			if after.Timeout, err = after.check(at, "execTimeout", c.ExecTimeout); err != nil {
				return nil, err
			}
			if after.Wait, err = durationOf(at+".waitTimeout", c.WaitTimeout, DefaultWait); err != nil {
				return nil, err
			}
			one.post = append(one.post, after)
		}
		s.list = append(s.list, one)
	}
	return s, nil
}

// Empty says whether the spec has no hooks. Pods may have some all the same.
func (s *RestoreSet) Empty() bool { return s == nil || len(s.list) == 0 }

// RestoreMarked says whether an object's JSON may have restore hooks in its annotations, or in those of its pods. It costs a look at the bytes.
func RestoreMarked(raw []byte) bool { return bytes.Contains(raw, []byte(restoreKind)) }

// Of gives the commands for a pod that is of that namespace in the backup. Those of its annotations win over the spec's.
func (s *RestoreSet) Of(namespace string, podLabels, annotations map[string]string) []After {
	if c, prefix, ok := annotated(annotations, restoreKind, "exec-timeout", v1alpha1.HookContinue); ok {
		return []After{annotatedAfter(c, prefix, annotations)}
	}
	if s == nil {
		return nil
	}
	var out []After
	for _, h := range s.list {
		if h.matches(namespace, podLabels) {
			out = append(out, h.post...)
		}
	}
	return out
}

func annotatedAfter(c Command, prefix string, annotations map[string]string) After {
	out := After{Command: c, Wait: DefaultWait}
	var errs [2]error
	if text, ok := annotations[prefix+"wait-timeout"]; ok {
		if out.Wait, errs[0] = parseTimeout(prefix+"wait-timeout", text); errs[0] != nil {
			out.Wait = DefaultWait
		}
	}
	if text, ok := annotations[prefix+"wait-for-ready"]; ok {
		var err error
		if out.Ready, err = strconv.ParseBool(text); err != nil {
			errs[1] = fmt.Errorf("annotation %swait-for-ready: %q is neither true nor false", prefix, text)
		}
	}
	out.Invalid = errors.Join(c.Invalid, errs[0], errs[1])
	return out
}
