package hooks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/podexec"
)

func command(argv ...string) v1alpha1.HookCommand { return v1alpha1.HookCommand{Command: argv} }

func TestCompileRefuses(t *testing.T) {
	second := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	good := []v1alpha1.HookCommand{command("true")}
	for _, c := range []struct {
		want string
		hook v1alpha1.BackupHook
	}{
		{"spec.hooks[1].name: ", v1alpha1.BackupHook{Pre: good}},
		{`spec.hooks[1]: hook "x" has neither`, v1alpha1.BackupHook{Name: "x"}},
		{`spec.hooks[1].includedNamespaces[0]: "[" is neither`, v1alpha1.BackupHook{Name: "x", Pre: good, IncludedNamespaces: []string{"["}}},
		{`spec.hooks[1].excludedNamespaces[1]: "" is neither`, v1alpha1.BackupHook{Name: "x", Pre: good, ExcludedNamespaces: []string{"a", ""}}},
		{"spec.hooks[1].labelSelector: ", v1alpha1.BackupHook{Name: "x", Pre: good, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}}},
		{"spec.hooks[1].pre[0].command: it names no program", v1alpha1.BackupHook{Name: "x", Pre: []v1alpha1.HookCommand{{}}}},
		{"spec.hooks[1].post[1].command: it names no program", v1alpha1.BackupHook{Name: "x", Post: []v1alpha1.HookCommand{command("a"), command("", "b")}}},
		{"spec.hooks[1].post[0].timeout: 0s is not between", v1alpha1.BackupHook{Name: "x", Post: []v1alpha1.HookCommand{{Command: []string{"a"}, Timeout: second(0)}}}},
		{"spec.hooks[1].pre[0].timeout: 25h0m0s is not between", v1alpha1.BackupHook{Name: "x", Pre: []v1alpha1.HookCommand{{Command: []string{"a"}, Timeout: second(25 * time.Hour)}}}},
		{`spec.hooks[1].pre[0].onError: "Ignore" is neither`, v1alpha1.BackupHook{Name: "x", Pre: []v1alpha1.HookCommand{{Command: []string{"a"}, OnError: "Ignore"}}}},
	} {
		_, err := Compile([]v1alpha1.BackupHook{{Name: "first", Pre: good}, c.hook})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// programs names commands by what they run.
func programs(list []Command) []string {
	var out []string
	for i := range list {
		out = append(out, strings.Join(list[i].Argv, " "))
	}
	return out
}

func TestSelection(t *testing.T) {
	set, err := Compile([]v1alpha1.BackupHook{
		{Name: "all", Pre: []v1alpha1.HookCommand{command("all")}},
		{Name: "shop", IncludedNamespaces: []string{"shop", "pay*"}, ExcludedNamespaces: []string{"payments-test"}, Pre: []v1alpha1.HookCommand{command("shop")}, Post: []v1alpha1.HookCommand{command("shop-post")}},
		{Name: "db", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Pre: []v1alpha1.HookCommand{command("db-1"), command("db-2")}},
		{Name: "star", IncludedNamespaces: []string{"*"}, Post: []v1alpha1.HookCommand{command("star")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	kedge := map[string]string{"pre.hook.backup.kedge.dev/command": "own"}
	for _, c := range []struct {
		name      string
		pod       Pod
		pre, post []string
	}{
		{"by the empty selection", Pod{Namespace: "other"}, []string{"all"}, []string{"star"}},
		{"by namespace", Pod{Namespace: "shop"}, []string{"all", "shop"}, []string{"shop-post", "star"}},
		{"by glob", Pod{Namespace: "payments"}, []string{"all", "shop"}, []string{"shop-post", "star"}},
		{"excluded wins", Pod{Namespace: "payments-test"}, []string{"all"}, []string{"star"}},
		{"by label, in order", Pod{Namespace: "x", Labels: map[string]string{"app": "db"}}, []string{"all", "db-1", "db-2"}, []string{"star"}},
		{"annotations win, for their phase", Pod{Namespace: "shop", Annotations: kedge}, []string{"own"}, []string{"shop-post", "star"}},
	} {
		if diff := cmp.Diff([][]string{c.pre, c.post}, [][]string{programs(set.Of(&c.pod, Pre)), programs(set.Of(&c.pod, Post))}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if !set.May(c.pod.Namespace, c.pod.Labels) {
			t.Errorf("%s: the pod is passed over", c.name)
		}
	}
	if got := set.Idle([]Pod{{Namespace: "shop"}}); !slices.Equal(got, []string{"db"}) {
		t.Errorf("idle are %v", got)
	}
	var none *Set
	if none.May("shop", nil) || !none.Empty() || none.Of(&Pod{}, Pre) != nil {
		t.Error("no spec has hooks")
	}
	if got := programs(none.Of(&Pod{Annotations: kedge}, Pre)); !slices.Equal(got, []string{"own"}) {
		t.Errorf("without hooks in the spec a pod's are %v", got)
	}
}

func TestAnnotations(t *testing.T) {
	for _, c := range []struct {
		name        string
		annotations map[string]string // without the phase
		want        Command
		invalid     string
	}{
		{"a program", map[string]string{"kedge.dev/command": "/usr/bin/flush"}, Command{Argv: []string{"/usr/bin/flush"}}, ""},
		{"a text is one program, as there is no shell", map[string]string{"kedge.dev/command": "/bin/sh -c x"}, Command{Argv: []string{"/bin/sh -c x"}}, ""},
		{"a JSON array", map[string]string{"kedge.dev/command": ` ["/bin/sh", "-c", "a \"b\""]`}, Command{Argv: []string{"/bin/sh", "-c", `a "b"`}}, ""},
		{
			"everything", map[string]string{"kedge.dev/command": "x", "kedge.dev/container": "db", "kedge.dev/timeout": "2m", "kedge.dev/on-error": "Continue"},
			Command{Argv: []string{"x"}, Container: "db", Timeout: 2 * time.Minute, OnError: v1alpha1.HookContinue}, "",
		},
		{"Velero's", map[string]string{"velero.io/command": "v", "velero.io/container": "c"}, Command{Argv: []string{"v"}, Container: "c"}, ""},
		{"Kedge's before Velero's, as a whole", map[string]string{"kedge.dev/command": "k", "velero.io/command": "v", "velero.io/container": "c", "velero.io/timeout": "5m"}, Command{Argv: []string{"k"}}, ""},
		{"not JSON", map[string]string{"kedge.dev/command": `["s3cret`}, Command{}, "JSON array"},
		{"no program", map[string]string{"kedge.dev/command": `[]`}, Command{}, "names no program"},
		{"nothing", map[string]string{"kedge.dev/command": " "}, Command{}, "names no program"},
		{"a number of what?", map[string]string{"kedge.dev/command": "x", "kedge.dev/timeout": "300"}, Command{Argv: []string{"x"}}, "not a time span"},
		{"for ever", map[string]string{"kedge.dev/command": "x", "kedge.dev/timeout": "99h"}, Command{Argv: []string{"x"}}, "not between 1s and 24h"},
		{"another mode", map[string]string{"kedge.dev/command": "x", "kedge.dev/on-error": "fail"}, Command{Argv: []string{"x"}}, "neither Fail nor Continue"},
	} {
		for _, phase := range []Phase{Pre, Post} {
			pod := Pod{Annotations: map[string]string{}}
			for key, value := range c.annotations {
				pod.Annotations[string(phase)+".hook.backup."+key] = value
			}
			list := (*Set)(nil).Of(&pod, phase)
			if len(list) != 1 {
				t.Fatalf("%s: %d commands", c.name, len(list))
			}
			got := list[0]
			if invalid := got.Invalid; (invalid == nil) != (c.invalid == "") || invalid != nil && (!strings.Contains(invalid.Error(), c.invalid) || strings.Contains(invalid.Error(), "s3cret")) {
				t.Errorf("%s: %v, want %q", c.name, invalid, c.invalid)
			}
			if !strings.HasPrefix(got.Source, "annotation "+string(phase)+".hook.backup.") {
				t.Errorf("%s: it is of %q", c.name, got.Source)
			}
			want := c.want
			if want.Timeout == 0 {
				want.Timeout = DefaultTimeout
			}
			if want.OnError == "" {
				want.OnError = v1alpha1.HookFail
			}
			got.Source, got.Invalid = "", nil
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
		if list := (*Set)(nil).Of(&Pod{Annotations: map[string]string{"pre.hook.backup.kedge.dev/container": "x"}}, Pre); list != nil {
			t.Errorf("a container alone is the command %v", list)
		}
	}
}

func TestParsePod(t *testing.T) {
	raw := []byte(`{"metadata":{"namespace":"shop","name":"db-0","uid":"u","labels":{"kedge.dev/freeze-group":"orders"},
		"annotations":{"pre.hook.backup.kedge.dev/command":"x","other":"y"}},
		"spec":{"containers":[{"name":"db"},{"name":"sidecar"}],
		"volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data-db-0"}},{"name":"scratch","ephemeral":{"volumeClaimTemplate":{}}},{"name":"tmp","emptyDir":{}}]},
		"status":{"phase":"Running"}}`)
	got, err := ParsePod(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := Pod{
		Namespace: "shop", Name: "db-0", UID: "u", Labels: map[string]string{"kedge.dev/freeze-group": "orders"}, Annotations: map[string]string{"pre.hook.backup.kedge.dev/command": "x"},
		Containers: []string{"db", "sidecar"}, Claims: []string{"data-db-0", "db-0-scratch"}, Phase: corev1.PodRunning,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !Marked(raw) || !got.Running() || got.Group() != "shop/orders" || Marked([]byte(`{"metadata":{"name":"web"}}`)) {
		t.Errorf("%v %v %q", Marked(raw), got.Running(), got.Group())
	}
}

// answering is an Executor that answers as it is told, and keeps what it was asked.
type answering struct {
	err   error
	asked []podexec.Request
}

func (a *answering) Exec(_ context.Context, req podexec.Request) error {
	a.asked = append(a.asked, req)
	return a.err
}

func TestRun(t *testing.T) {
	pod := &Pod{Namespace: "shop", Name: "db-0", Containers: []string{"db", "sidecar"}}
	c := Command{Source: `hook "freeze"`, Argv: []string{"/bin/psql", "-c", "s3cret"}, Timeout: time.Minute}
	for _, one := range []struct {
		name      string
		container string
		err       error
		want      []string
		lost      bool
		began     bool
	}{
		{"it works", "", nil, nil, false, true},
		{"it fails", "sidecar", &podexec.ExitError{Code: 3, Output: "no space"}, []string{`hook "freeze" (/bin/psql)`, "pod shop/db-0", "container sidecar", "exit code 3: no space"}, false, true},
		{"forbidden", "", podexec.ErrForbidden, []string{`grant "create" and "get" on pods/exec in namespace shop`, "rbac.exec"}, false, false},
		{"no such container", "web", nil, []string{`no container "web", but db, sidecar`}, false, false},
		{"too slow", "", podexec.ErrTimeout, []string{"in time"}, false, true},
		{"on the way", "", errors.New("connection reset"), []string{"connection reset"}, true, true},
	} {
		c.Container = one.container
		ex := &answering{err: one.err}
		err := Run(t.Context(), ex, pod, &c)
		if (err == nil) != (one.want == nil) || Lost(err) != one.lost || Began(err) != one.began {
			t.Errorf("%s: %v", one.name, err)
		}
		if err != nil && (strings.Contains(Brief(err), "no space") || !strings.Contains(Brief(err), "pod shop/db-0")) {
			t.Errorf("%s: in brief: %s", one.name, Brief(err))
		}
		for _, text := range one.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v lacks %q", one.name, err, text)
			}
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the message has the arguments: %v", one.name, err)
		}
		if one.container != "web" {
			want := podexec.Request{Namespace: "shop", Pod: "db-0", Container: max(one.container, "db"), Command: c.Argv, Timeout: time.Minute}
			if diff := cmp.Diff([]podexec.Request{want}, ex.asked); diff != "" {
				t.Errorf("%s (-want +got):\n%s", one.name, diff)
			}
		}
	}
	if err := Run(t.Context(), nil, pod, &Command{Argv: []string{"x"}}); err == nil {
		t.Error("nobody ran it, and there is no error")
	}
}

func TestShown(t *testing.T) {
	given := []v1alpha1.BackupHook{{Name: "x", Pre: []v1alpha1.HookCommand{command("/bin/psql", "-c", "s3cret"), command("sync"), command("psql\n-c s3cret"), command(" sh -c s3cret", "x")}}}
	want := []v1alpha1.BackupHook{{Name: "x", Pre: []v1alpha1.HookCommand{command("/bin/psql", "…"), command("sync"), command("psql", "…"), command("sh", "…")}}}
	if diff := cmp.Diff(want, Shown(given)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if given[0].Pre[0].Command[2] != "s3cret" || Shown(nil) != nil {
		t.Error("what was given is changed")
	}
}
