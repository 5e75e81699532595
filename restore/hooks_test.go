//go:build unix

package restore

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
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
			h.lateNode(t)
			for _, namespace := range []string{"hooked", "slow", "cut", "updated"} {
				h.kubelet.Take(t, namespace)
			}
			h.succeed(t)
			h.updated(t)
			h.failing(t)
			h.cutOff(t)
			h.unseen(t)
		})
	}
}

// withoutNodes waits as long as with nodes, since some clusters make a node for the first pod, and then says that there is none.
func (h *hookHouse) withoutNodes(t *testing.T) {
	t.Helper()
	e := h.engine(t, "nowhere")
	var passed atomic.Int64 // a minute at each look
	e.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Add(1)) * time.Minute) }
	r := restoreAll(t, e, request("nowhere"))
	entries := entriesOf(r, "deployments.apps", "nowhere", "web")
	if r.Phase != v1alpha1.PhaseCompleted || len(entries) != 1 || entries[0].Reason != HookFailed || !strings.Contains(entries[0].Message, "after 5m0s the target has no node") {
		t.Errorf("without nodes: %s: %+v", r.Phase, entries)
	}
}

// executorFunc is an Executor that is one function.
type executorFunc func(context.Context, podexec.Request) error

func (f executorFunc) Exec(ctx context.Context, req podexec.Request) error { return f(ctx, req) }

// lateNode brings the first node up when the restore has looked for pods and found none that runs. The pod of another namespace starts after a command that
// took longer than anything is waited for.
func (h *hookHouse) lateNode(t *testing.T) {
	t.Helper()
	e := h.engine(t, "late")
	both := in("late", hookedApps) + "\n---\n" + in("later", hookedApps)
	e.Source = fromYAML(t, strings.ReplaceAll(both, "DIARY", h.path))
	var passed atomic.Int64
	e.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	commands := e.Exec
	var took sync.Once
	e.Exec = executorFunc(func(ctx context.Context, req podexec.Request) error {
		defer took.Do(func() {
			passed.Add(int64(time.Hour))
			time.AfterFunc(time.Second, func() { h.kubelet.Take(t, "later") })
		})
		return commands.Exec(ctx, req)
	})
	req := request("late")
	req.Spec.IncludedResources = []string{"pods", "namespaces"}
	p, err := e.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var r *Report
	var g errgroup.Group
	g.Go(func() (err error) {
		r, err = e.Run(t.Context(), p)
		return err
	})
	for err := errors.New("no look yet"); err != nil && t.Context().Err() == nil; time.Sleep(100 * time.Millisecond) {
		_, err = h.clients.CoreV1().Pods("late").Get(t.Context(), "lone", metav1.GetOptions{})
	}
	time.Sleep(time.Second) // enough to give up, for who does not wait
	h.kubelet = podrunner.StartKubelet(t, h.clients, "node-1")
	h.kubelet.Take(t, "late")
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"lone", "lone"}, h.diary(t)); diff != "" || r.Phase != v1alpha1.PhaseCompleted {
		t.Errorf("with a late node it is %s, %+v; there ran (-want +got):\n%s", r.Phase, r.Entries, diff)
	}
}

// TestMade tells pods of a new template from those of the old one.
func TestMade(t *testing.T) {
	object := func(text string) *liveWorkload {
		var l liveWorkload
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		return &l
	}
	old := `{"metadata":{"uid":"r1","annotations":{"deployment.kubernetes.io/revision":"9"},"ownerReferences":[{"uid":"d","controller":true}]}}`
	next := `{"metadata":{"uid":"r2","annotations":{"deployment.kubernetes.io/revision":"10"},"ownerReferences":[{"uid":"d","controller":true}]}}`
	other := `{"metadata":{"uid":"r3","annotations":{"deployment.kubernetes.io/revision":"11"},"ownerReferences":[{"uid":"e","controller":true}]}}`
	sets := map[string]*liveWorkload{"r1": object(old), "r2": object(next), "r3": object(other)}
	seen := `{"metadata":{"uid":"d","generation":2},"status":{"observedGeneration":2}}`
	for _, c := range []struct {
		name, workload, pod, set string
		want                     bool
	}{
		{"a Deployment's new pod", seen, `{}`, "r2", true},
		{"its old pod", seen, `{}`, "r1", false},
		{"before its controller has looked", `{"metadata":{"generation":2},"status":{"observedGeneration":1}}`, `{}`, "r2", false},
		{"a StatefulSet's new pod", `{"status":{"updateRevision":"b"}}`, `{"metadata":{"labels":{"controller-revision-hash":"b"}}}`, "", true},
		{"its old pod", `{"status":{"updateRevision":"b"}}`, `{"metadata":{"labels":{"controller-revision-hash":"a"}}}`, "", false},
		{"a DaemonSet's new pod", `{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"2"}}}`, `{"metadata":{"labels":{"pod-template-generation":"2"}}}`, "", true},
		{"its old pod", `{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"2"}}}`, `{"metadata":{"labels":{"pod-template-generation":"1"}}}`, "", false},
		{"a pod of which nothing is known", seen, `{}`, "", true},
	} {
		if got := object(c.workload).made(object(c.pod), newest(sets[c.set], sets)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
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

// hookJournal keeps which hooks ended.
type hookJournal struct {
	mu    sync.Mutex
	ended []HookRecord
}

func (j *hookJournal) Replay(context.Context, func(Record) error) error { return nil }

func (j *hookJournal) Append(_ context.Context, records ...Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range records {
		if r.Hook != nil && r.Hook.Ended {
			j.ended = append(j.ended, *r.Hook)
		}
	}
	return nil
}

func (j *hookJournal) Close() error { return nil }

// updated restores another template over a StatefulSet whose pods run, which are replaced one after the other: the commands run in the pods of the new template,
// not in the old ones.
func (h *hookHouse) updated(t *testing.T) {
	t.Helper()
	source := strings.ReplaceAll(in("updated", hookedApps), "replicas: 1", "replicas: 2")
	req := request("updated")
	req.Spec.IncludedResources = []string{"statefulsets", "namespaces"}
	e := h.engine(t, "updated")
	e.Source = fromYAML(t, source)
	restoreAll(t, e, req)
	old := map[string]bool{}
	for deadline := time.Now().Add(time.Minute); len(old) < 2 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		pods, err := h.clients.CoreV1().Pods("updated").List(t.Context(), metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range pods.Items {
			old[string(pods.Items[i].UID)] = true
		}
	}
	e.Source = fromYAML(t, strings.ReplaceAll(source, "registry.example/db:1", "registry.example/db:2"))
	req = Request{Name: "newer", UID: "newer-uid", Spec: req.Spec}
	req.Spec.ExistingResourcePolicy = v1alpha1.PolicyUpdate
	req.Spec.Hooks = []v1alpha1.RestoreHook{{Name: "import", Post: []v1alpha1.RestoreHookCommand{{Command: h.echo("import")}}}}
	journal := &hookJournal{}
	e.Journal = journal
	r := restoreAll(t, e, req)
	ran := journal.ended
	if r.Counts.Updated != 1 || len(old) != 2 || len(ran) != 2 || slices.ContainsFunc(ran, func(r HookRecord) bool { return old[r.Pod] }) {
		t.Errorf("%s %+v: hooks ran in %+v, the old pods are %v: %+v", r.Phase, r.Counts, ran, old, r.Entries)
	}
	h.diary(t)
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
