package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

func TestCompileRestoreRefuses(t *testing.T) {
	good := []v1alpha1.RestoreHookCommand{{Command: []string{"true"}}}
	post := func(change func(*v1alpha1.RestoreHookCommand)) v1alpha1.RestoreHook {
		c := v1alpha1.RestoreHookCommand{Command: []string{"true"}}
		change(&c)
		return v1alpha1.RestoreHook{Name: "x", Post: []v1alpha1.RestoreHookCommand{c}}
	}
	for _, c := range []struct {
		want string
		hook v1alpha1.RestoreHook
	}{
		{"spec.hooks[0].name: ", v1alpha1.RestoreHook{Post: good}},
		{`spec.hooks[0]: hook "x" has no post commands`, v1alpha1.RestoreHook{Name: "x"}},
		{`spec.hooks[0].includedNamespaces[0]: "[" is neither`, v1alpha1.RestoreHook{Name: "x", Post: good, IncludedNamespaces: []string{"["}}},
		{"spec.hooks[0].post[0].command: it names no program", post(func(c *v1alpha1.RestoreHookCommand) { c.Command = nil })},
		{"spec.hooks[0].post[0].execTimeout: 1ms is not between", post(func(c *v1alpha1.RestoreHookCommand) { c.ExecTimeout = &metav1.Duration{Duration: time.Millisecond} })},
		{"spec.hooks[0].post[0].waitTimeout: 48h0m0s is not between", post(func(c *v1alpha1.RestoreHookCommand) { c.WaitTimeout = &metav1.Duration{Duration: 48 * time.Hour} })},
		{`spec.hooks[0].post[0].onError: "No" is neither`, post(func(c *v1alpha1.RestoreHookCommand) { c.OnError = "No" })},
	} {
		if _, err := CompileRestore([]v1alpha1.RestoreHook{c.hook}); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestRestoreSet(t *testing.T) {
	set, err := CompileRestore([]v1alpha1.RestoreHook{
		{Name: "db", IncludedNamespaces: []string{"shop*"}, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Post: []v1alpha1.RestoreHookCommand{
			{Command: []string{"import"}, Container: "db", ExecTimeout: &metav1.Duration{Duration: time.Hour}, WaitForReady: true, OnError: v1alpha1.HookFail}, {Command: []string{"vacuum"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	db := map[string]string{"app": "db"}
	specs := []After{
		{Command: Command{Source: `hook "db"`, Argv: []string{"import"}, Container: "db", Timeout: time.Hour, OnError: v1alpha1.HookFail}, Wait: DefaultWait, Ready: true},
		{Command: Command{Source: `hook "db"`, Argv: []string{"vacuum"}, Timeout: DefaultTimeout, OnError: v1alpha1.HookContinue}, Wait: DefaultWait},
	}
	annotated := func(domain string, more ...string) map[string]string {
		out := map[string]string{"post.hook.restore." + domain + "/command": `["a", "b"]`}
		for i := 0; i < len(more); i += 2 {
			out["post.hook.restore."+domain+"/"+more[i]] = more[i+1]
		}
		return out
	}
	of := func(domain string) After {
		return After{Command: Command{Source: "annotation post.hook.restore." + domain + "/command", Argv: []string{"a", "b"}, Timeout: DefaultTimeout, OnError: v1alpha1.HookContinue}, Wait: DefaultWait}
	}
	full := of("velero.io")
	full.Container, full.Timeout, full.Wait, full.Ready, full.OnError = "c", time.Minute, time.Hour, true, v1alpha1.HookFail
	for _, c := range []struct {
		name, namespace     string
		labels, annotations map[string]string
		want                []After
		invalid             string
	}{
		{"the spec's", "shop-2", db, nil, specs, ""},
		{"another namespace", "other", db, nil, nil, ""},
		{"other labels", "shop", nil, nil, nil, ""},
		{"annotations win", "shop", db, annotated("kedge.dev"), []After{of("kedge.dev")}, ""},
		{"Velero's, with everything", "other", nil, annotated("velero.io", "container", "c", "exec-timeout", "1m", "wait-timeout", "1h", "wait-for-ready", "true", "on-error", "Fail"), []After{full}, ""},
		{"a wait of nothing", "other", nil, annotated("kedge.dev", "wait-timeout", "5"), []After{of("kedge.dev")}, "wait-timeout"},
		{"perhaps ready", "other", nil, annotated("kedge.dev", "wait-for-ready", "perhaps"), []After{of("kedge.dev")}, "wait-for-ready"},
	} {
		got := set.Of(c.namespace, c.labels, c.annotations)
		if len(got) > 0 {
			if invalid := got[0].Invalid; (invalid == nil) != (c.invalid == "") || invalid != nil && !strings.Contains(invalid.Error(), c.invalid) {
				t.Errorf("%s: %v", c.name, invalid)
			}
			got[0].Invalid = nil
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var none *RestoreSet
	if !none.Empty() || none.Of("shop", db, nil) != nil || len(none.Of("shop", db, annotated("kedge.dev"))) != 1 {
		t.Error("no spec has hooks of its own")
	}
	if !RestoreMarked([]byte(`{"post.hook.restore.velero.io/command":"x"}`)) || RestoreMarked([]byte(`{"post.hook.backup.velero.io/command":"x"}`)) {
		t.Error("the mark is another")
	}
}
