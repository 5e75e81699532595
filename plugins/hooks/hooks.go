// Package hooks knows which commands run in which pods around the taking of their data, from a spec and from pods' annotations, and runs them.
package hooks

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
)

// DefaultTimeout is that of a command that names none.
const DefaultTimeout = 30 * time.Second

// maxTimeout bounds a command, which keeps an application waiting.
const maxTimeout = 24 * time.Hour

// Phase says when a command runs.
type Phase string

// The phases.
const (
	Pre  Phase = "pre"
	Post Phase = "post"
)

// Command is one command for a pod.
type Command struct {
	// Source says where it is from: `hook "freeze"`, "annotation pre.hook.backup.kedge.dev/command".
	Source string
	// Container is empty for the pod's first one.
	Container string
	Argv      []string
	Timeout   time.Duration
	OnError   v1alpha1.HookErrorMode
	// Invalid is why the command cannot be run: what an annotation says cannot be understood.
	Invalid error
}

// Set is the hooks of a spec. Nil has none.
type Set struct{ list []compiled }

type compiled struct {
	name string
	chooser
	pre, post []Command
}

// chooser chooses pods.
type chooser struct {
	included, excluded []string
	labels             labels.Selector
}

// Compile checks the hooks of a spec. Errors name the field: "spec.hooks[2].pre[0].timeout".
func Compile(list []v1alpha1.BackupHook) (*Set, error) {
	s := &Set{}
	for i := range list {
		one, err := compile(fmt.Sprintf("spec.hooks[%d]", i), &list[i])
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, one)
	}
	return s, nil
}

// Empty says whether the spec has no hooks. Pods may have some all the same.
func (s *Set) Empty() bool { return s == nil || len(s.list) == 0 }

func compile(field string, h *v1alpha1.BackupHook) (compiled, error) {
	out := compiled{name: h.Name}
	if len(h.Pre)+len(h.Post) == 0 {
		return out, fmt.Errorf("%s: hook %q has neither pre nor post commands", field, h.Name)
	}
	var err error
	if out.chooser, err = compileChooser(field, h.Name, h.IncludedNamespaces, h.ExcludedNamespaces, h.LabelSelector); err != nil {
		return out, err
	}
	if out.pre, err = compileCommands(field+".pre", h.Name, h.Pre); err != nil {
		return out, err
	}
	out.post, err = compileCommands(field+".post", h.Name, h.Post)
	return out, err
}

func compileChooser(field, name string, included, excluded []string, selector *metav1.LabelSelector) (chooser, error) {
	out := chooser{included: included, excluded: excluded, labels: labels.Everything()}
	if name == "" {
		return out, fmt.Errorf("%s.name: it is empty, and reports name hooks by it", field)
	}
	for list, patterns := range map[string][]string{"includedNamespaces": included, "excludedNamespaces": excluded} {
		for j, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				return out, fmt.Errorf("%s.%s[%d]: %q is neither a name nor a glob", field, list, j, pattern)
			}
		}
	}
	if selector != nil {
		var err error
		if out.labels, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			return out, fmt.Errorf("%s.labelSelector: %w", field, err)
		}
	}
	return out, nil
}

func compileCommands(field, hook string, list []v1alpha1.HookCommand) ([]Command, error) {
	var out []Command
	for i := range list {
		c := &list[i]
		one := Command{Source: fmt.Sprintf("hook %q", hook), Container: c.Container, Argv: c.Command, OnError: cmp.Or(c.OnError, v1alpha1.HookFail)}
		var err error
		if one.Timeout, err = one.check(fmt.Sprintf("%s[%d]", field, i), "timeout", c.Timeout); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// check looks at the command of a spec, and gives its timeout, which the field of that name has.
func (c *Command) check(at, name string, timeout *metav1.Duration) (time.Duration, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return 0, fmt.Errorf("%s.command: it names no program", at)
	}
	if c.OnError != v1alpha1.HookFail && c.OnError != v1alpha1.HookContinue {
		return 0, fmt.Errorf("%s.onError: %q is neither Fail nor Continue", at, c.OnError)
	}
	return durationOf(at+"."+name, timeout, DefaultTimeout)
}

func durationOf(field string, given *metav1.Duration, otherwise time.Duration) (time.Duration, error) {
	if given == nil {
		return otherwise, nil
	}
	if err := checkTimeout(given.Duration); err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	return given.Duration, nil
}

func checkTimeout(d time.Duration) error {
	if d < time.Second || d > maxTimeout {
		return fmt.Errorf("%s is not between 1s and 24h", d)
	}
	return nil
}

// May says whether the spec has hooks for pods of a namespace with these labels.
func (s *Set) May(namespace string, podLabels map[string]string) bool {
	return s != nil && slices.ContainsFunc(s.list, func(h compiled) bool { return h.matches(namespace, podLabels) })
}

// Idle names the hooks that none of the pods matches: their selections may be misspelt.
func (s *Set) Idle(pods []Pod) []string {
	var out []string
	for i := 0; s != nil && i < len(s.list); i++ {
		h := &s.list[i]
		if !slices.ContainsFunc(pods, func(p Pod) bool { return h.matches(p.Namespace, p.Labels) }) {
			out = append(out, h.name)
		}
	}
	return out
}

// Of gives the commands of one phase for a pod. Those of its annotations win over the spec's.
func (s *Set) Of(p *Pod, phase Phase) []Command {
	if c, ok := fromAnnotations(p.Annotations, phase); ok {
		return []Command{c}
	}
	if s == nil {
		return nil
	}
	var out []Command
	for _, h := range s.list {
		if h.matches(p.Namespace, p.Labels) {
			if phase == Pre {
				out = append(out, h.pre...)
			} else {
				out = append(out, h.post...)
			}
		}
	}
	return out
}

func (h *chooser) matches(namespace string, podLabels map[string]string) bool {
	return (len(h.included) == 0 || matchesAny(h.included, namespace)) && !matchesAny(h.excluded, namespace) && h.labels.Matches(labels.Set(podLabels))
}

func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, s)
		return ok && err == nil
	})
}

// Shown is the hooks as a record in the clear may have them: of each command the program, without its arguments.
func Shown(list []v1alpha1.BackupHook) []v1alpha1.BackupHook {
	out := make([]v1alpha1.BackupHook, 0, len(list))
	for i := range list {
		h := *list[i].DeepCopy()
		for _, commands := range [][]v1alpha1.HookCommand{h.Pre, h.Post} {
			for j := range commands {
				c := &commands[j]
				if len(c.Command) == 0 {
					continue
				}
				if name := programOf(c.Command[0]); len(c.Command) > 1 || name != c.Command[0] {
					c.Command = []string{name, "…"}
				}
			}
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// program is what messages call the command: never its arguments, which may hold secrets.
func (c *Command) program() string {
	if len(c.Argv) == 0 {
		return c.Source
	}
	return fmt.Sprintf("%s (%s)", c.Source, programOf(c.Argv[0]))
}

// programOf is the program of a command's first word, which may be the whole of it, written as one text for a shell that there is not.
func programOf(word string) string {
	name := strings.TrimLeftFunc(word, unicode.IsSpace)
	if i := strings.IndexFunc(name, unicode.IsSpace); i >= 0 {
		name = name[:i]
	}
	return name
}
