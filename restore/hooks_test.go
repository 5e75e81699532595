//go:build unix

package restore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/podexec"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/podrunner"
	"kedge.dev/kedge/test/testbed"
)

// hookedApps are workloads whose pods have hooks in their templates, or get some by a spec, and some that have none.
const hookedApps = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {post.hook.restore.kedge.dev/command: '["/bin/sh", "-c", "echo web >> DIARY"]', post.hook.restore.kedge.dev/wait-for-ready: "true"}
    spec: {containers: [{name: main, image: registry.example/web:1}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: asleep, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: asleep}}
  template:
    metadata:
      labels: {app: asleep}
      annotations: {post.hook.restore.kedge.dev/command: '["/bin/sh", "-c", "echo asleep >> DIARY"]'}
    spec: {containers: [{name: main, image: registry.example/web:1}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NS}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: proxy, image: registry.example/proxy:1}, {name: db, image: registry.example/db:1}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NS}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata:
      labels: {app: agent}
      annotations: {post.hook.restore.kedge.dev/command: '["/bin/sh", "-c", "echo agent >> DIARY"]'}
    spec: {containers: [{name: main, image: registry.example/agent:1}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: lone
  namespace: NS
  annotations: {post.hook.restore.velero.io/command: '["/bin/sh", "-c", "echo lone >> DIARY"]'}
spec: {containers: [{name: main, image: registry.example/web:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: quiet, namespace: NS}
spec: {containers: [{name: main, image: registry.example/web:1}]}
`

// hookHouse is a cluster with a node, and a diary that commands write.
type hookHouse struct {
	cluster *testbed.Cluster
	clients *kubernetes.Clientset
	kubelet *podrunner.Kubelet
	path    string
}

func newHookHouse(t *testing.T, version string) *hookHouse {
	t.Helper()
	h := &hookHouse{cluster: testbed.NewCluster(t, version), path: filepath.Join(t.TempDir(), "diary")}
	var err error
	if h.clients, err = kubernetes.NewForConfig(h.cluster.Master()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hookHouse) engine(t *testing.T, namespace string) *Engine {
	t.Helper()
	e := engineFor(clientFor(t, h.cluster.Kedge(t)), fromYAML(t, strings.ReplaceAll(in(namespace, hookedApps), "DIARY", h.path)))
	commands, err := podexec.New(h.cluster.Kedge(t))
	if err != nil {
		t.Fatal(err)
	}
	e.Exec = commands
	return e
}

// diary gives the lines that were written since the last call, sorted where their order is chance.
func (h *hookHouse) diary(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(h.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(h.path)
	return strings.Fields(string(text))
}

func (h *hookHouse) echo(line string) []string {
	return []string{"/bin/sh", "-c", "echo " + line + " >> " + h.path}
}

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}

// TestHooks runs the hooks of restored pods, also of those that controllers make, each pod's once.
func TestHooks(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			h := newHookHouse(t, version)
			h.withoutNodes(t)
			h.kubelet = podrunner.StartKubelet(t, h.clients, "node-1")
			for _, namespace := range []string{"hooked", "slow", "cut"} {
				h.kubelet.Take(t, namespace)
			}
			h.succeed(t)
			h.failing(t)
			h.cutOff(t)
			h.unseen(t)
		})
	}
}

// withoutNodes waits for nothing where nothing can run.
func (h *hookHouse) withoutNodes(t *testing.T) {
	t.Helper()
	req := request("nowhere")
	began := time.Now()
	r := restoreAll(t, h.engine(t, "nowhere"), req)
	entries := entriesOf(r, "deployments.apps", "nowhere", "web")
	if r.Phase != v1alpha1.PhaseCompleted || len(entries) != 1 || entries[0].Reason != HookFailed || !strings.Contains(entries[0].Message, "no node") || time.Since(began) > time.Minute {
		t.Errorf("without nodes: %s after %s: %+v", r.Phase, time.Since(began), entries)
	}
}

func (h *hookHouse) succeed(t *testing.T) {
	t.Helper()
	req := request("hooked")
	// The hook names the namespace as the backup has it.
	req.Spec.NamespaceMapping = map[string]string{"origin": "hooked"}
	req.Spec.Hooks = []v1alpha1.RestoreHook{
		{
			Name: "import", IncludedNamespaces: []string{"origin"}, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Post: []v1alpha1.RestoreHookCommand{{Container: "db", Command: h.echo("import")}, {Command: h.echo("vacuum"), WaitForReady: true}},
		},
		{Name: "elsewhere", IncludedNamespaces: []string{"hooked"}, Post: []v1alpha1.RestoreHookCommand{{Command: h.echo("elsewhere")}}},
	}
	r := restoreAll(t, h.engine(t, "origin"), req)
	if r.Phase != v1alpha1.PhaseCompleted {
		t.Errorf("%s: %s %+v", r.Phase, r.Message, r.Entries)
	}
	diary := h.diary(t)
	if slices.Index(diary, "import") > slices.Index(diary, "vacuum") {
		t.Errorf("the commands of a pod ran in another order: %v", diary)
	}
	if diff := cmp.Diff([]string{"agent", "import", "lone", "vacuum", "web", "web"}, sorted(diary)); diff != "" {
		t.Errorf("there ran (-want +got):\n%s", diff)
	}
	for _, c := range h.kubelet.Ran() {
		if want := map[bool]string{true: "db", false: "proxy"}[strings.Contains(strings.Join(c.Argv, " "), "import")]; c.Pod == "db-0" && c.Container != want {
			t.Errorf("%v ran in container %s", c.Argv, c.Container)
		}
	}
	// What is there already was not restored, and its hooks do not run again.
	if r := restoreAll(t, h.engine(t, "origin"), Request{Name: "again", UID: "again-uid", Spec: req.Spec}); r.Counts.Created != 0 || len(h.diary(t)) != 0 {
		t.Errorf("a second restore created %d objects, or ran hooks", r.Counts.Created)
	}
}

// unseen restores as an account that may not look for the pods: that is said, not passed over.
func (h *hookHouse) unseen(t *testing.T) {
	t.Helper()
	blind, err := h.cluster.ServiceAccountConfigWithRules(t.Context(), "blind", []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"create", "get"}}})
	if err != nil {
		t.Fatal(err)
	}
	e := h.engine(t, "blind")
	e.Look, e.Kube = e.Kube, clientFor(t, blind)
	req := request("blind")
	req.Spec.IncludedResources = []string{"statefulsets", "namespaces"}
	req.Spec.Hooks = []v1alpha1.RestoreHook{{Name: "import", Post: []v1alpha1.RestoreHookCommand{{Command: h.echo("import")}}}}
	r := restoreAll(t, e, req)
	said := slices.ContainsFunc(r.Remarks, func(m plugins.Remark) bool {
		return m.Reason == string(HookFailed) && strings.Contains(m.Message, "statefulsets.apps is forbidden") && strings.Contains(m.Message, `grant "list"`)
	})
	if r.Phase != v1alpha1.PhasePartiallyFailed || r.Counts.Created != 2 || !said {
		t.Errorf("%s: %+v %+v %+v", r.Phase, r.Counts, r.Remarks, r.Entries)
	}
}

func (h *hookHouse) failing(t *testing.T) {
	t.Helper()
	req := request("slow")
	req.Spec.IncludedResources = []string{"statefulsets", "pods", "namespaces"}
	fails := []string{"/bin/sh", "-c", "echo no such table >&2; exit 4"}
	second := &metav1.Duration{Duration: time.Second}
	req.Spec.Hooks = []v1alpha1.RestoreHook{
		{Name: "import", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Post: []v1alpha1.RestoreHookCommand{
			{Command: fails}, {Command: h.echo("goes-on")}, {Command: []string{"sleep", "5"}, ExecTimeout: second, OnError: v1alpha1.HookFail}, {Command: h.echo("never")},
		}},
	}
	r := restoreAll(t, h.engine(t, "slow"), req)
	if r.Phase != v1alpha1.PhasePartiallyFailed || r.Message != "all objects were restored, but hooks failed: 1" {
		t.Errorf("%s: %s", r.Phase, r.Message)
	}
	var text []string
	for _, e := range entriesOf(r, "statefulsets.apps", "slow", "db") {
		text = append(text, string(e.Reason)+" "+e.Message)
	}
	if len(text) != 2 || !strings.Contains(text[0], `HookFailed hook "import" (/bin/sh) in pod slow/db-0, container proxy: exit code 4: no such table`) || !strings.Contains(text[1], "did not end in time") {
		t.Errorf("the report says %q", text)
	}
	if diff := cmp.Diff([]string{"goes-on", "lone"}, sorted(h.diary(t))); diff != "" {
		t.Errorf("there ran (-want +got):\n%s", diff)
	}
}

// cutOff stops a restore while a hook runs, and goes on: the hook is not run again, and the report says so.
func (h *hookHouse) cutOff(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	run := func(ctx context.Context) *Report {
		t.Helper()
		journal, err := OpenFileJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		e := h.engine(t, "cut")
		e.Journal = journal
		req := request("cut")
		req.Spec.IncludedResources = []string{"statefulsets", "namespaces"}
		req.Spec.Hooks = []v1alpha1.RestoreHook{{Name: "import", Post: []v1alpha1.RestoreHookCommand{{Command: append(h.echo("import")[:2], h.echo("import")[2]+"; sleep 3")}}}}
		p, err := e.Plan(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Run(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := journal.Close(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends with the restore
		for ctx.Err() == nil {
			if _, err := os.Stat(h.path); err == nil {
				cancel()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if r := run(ctx); r.Phase != v1alpha1.PhaseCancelled {
		t.Errorf("stopped in a hook it is %s", r.Phase)
	}
	cancel()
	r := run(t.Context())
	entries := entriesOf(r, "statefulsets.apps", "cut", "db")
	if r.Phase != v1alpha1.PhasePartiallyFailed || len(entries) != 1 || !strings.Contains(entries[0].Message, "they are not run again") {
		t.Errorf("resumed it is %s: %+v", r.Phase, entries)
	}
	if diff := cmp.Diff([]string{"import"}, h.diary(t)); diff != "" {
		t.Errorf("there ran (-want +got):\n%s", diff)
	}
	if r := run(t.Context()); r.Phase != v1alpha1.PhasePartiallyFailed || len(entriesOf(r, "statefulsets.apps", "cut", "db")) != 1 {
		t.Errorf("resumed once more it is %s: %+v", r.Phase, r.Entries)
	}
}
