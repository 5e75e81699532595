//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/test/podrunner"
)

// hookWorld is a volumeWorld with a node on which commands can be run, and a diary of what happened in which order.
type hookWorld struct {
	*volumeWorld
	kubelet *podrunner.Kubelet
	path    string // of the diary

	mu sync.Mutex // of the diary, for those who write to it in this process
}

func newHookWorld(t *testing.T, version string) *hookWorld {
	t.Helper()
	w := &hookWorld{volumeWorld: newVolumeWorldOf(t, version), path: filepath.Join(t.TempDir(), "diary")}
	w.kubelet = podrunner.StartKubelet(t, w.clients, "node-1")
	return w
}

// writes is a command that writes a line into the diary, and does more.
func (w *hookWorld) writes(line string, more ...string) string {
	argv, err := json.Marshal([]string{"/bin/sh", "-c", "echo " + line + " >> " + w.path + "; " + strings.Join(more, "; ")})
	if err != nil {
		panic(err)
	}
	return string(argv)
}

func (w *hookWorld) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		_ = f.Close()
	}
	if err != nil {
		panic(err)
	}
}

// diary gives what was written and begins a new one.
func (w *hookWorld) diary(t *testing.T) []string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	text, err := os.ReadFile(w.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(w.path)
	return strings.Fields(string(text))
}

// watchSnapshots writes each snapshot that is asked for into the diary, and each look at their states.
func (w *hookWorld) watchSnapshots() {
	w.cloud.Heal()
	for _, op := range []string{"CreateSnapshot", "CreateSnapshots"} {
		w.cloud.Inject(aws.Fault{Op: op, Times: -1, Before: func() { w.note("snapshot") }})
	}
	w.cloud.Inject(aws.Fault{Op: "DescribeSnapshots", Times: -1, Before: func() { w.note("look") }})
}

// pod runs a pod that mounts claims.
func (w *hookWorld) pod(t *testing.T, namespace, name string, annotations map[string]string, claims ...string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}, Annotations: annotations}}
	for _, claim := range claims {
		source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: source})
	}
	return w.kubelet.Run(t, pod)
}

// annotate changes a pod's annotations.
func (w *hookWorld) annotate(t *testing.T, namespace, name string, annotations map[string]string) {
	t.Helper()
	pod, err := w.clients.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Annotations = annotations
	if _, err := w.clients.CoreV1().Pods(namespace).Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// bound makes a claim of an EBS volume.
func (w *hookWorld) bound(t *testing.T, namespace, name string) {
	t.Helper()
	w.claim(t, namespace, name, w.cloud.CreateVolume(aws.VolumeSpec{}))
	w.handleOf(t, namespace, name)
}

// backup makes a backup of the namespace shop with snapshots.
func (w *hookWorld) backup(t *testing.T, name string, more ...string) (stderr string, code int) {
	t.Helper()
	_, stderr, code = w.kedge(t.Context(), w.backupArgs(name, more...)...)
	return stderr, code
}

func (w *hookWorld) backupArgs(name string, more ...string) []string {
	return append([]string{"backup", "create", name, "--include-namespaces", "shop", "--volumes", "snapshot", "--kubeconfig", w.kubeconfig}, more...)
}

// volumesOf are the claims whose data a backup has.
func (w *hookWorld) volumesOf(t *testing.T, name string) []string {
	t.Helper()
	var list struct{ Volumes []struct{ Claim string } }
	if err := json.Unmarshal([]byte(w.must(t, "volume", "list", "--from-backup", name, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, v := range list.Volumes {
		out = append(out, v.Claim)
	}
	slices.Sort(out)
	return out
}

func (w *hookWorld) hooks(domain string, preMore, postMore string) map[string]string {
	return map[string]string{"pre.hook.backup." + domain + "/command": w.writes("pre", preMore), "post.hook.backup." + domain + "/command": w.writes("post", postMore)}
}

// withoutLooks leaves out the looks at snapshots.
func withoutLooks(diary []string) []string {
	return slices.DeleteFunc(slices.Clone(diary), func(s string) bool { return s == "look" })
}

// TestHooks runs hooks around snapshots, on an old and a new API server, and lets each part of it fail.
func TestHooks(t *testing.T) {
	for _, version := range []string{"1.24.17", "1.36.3"} {
		t.Run(version, func(t *testing.T) {
			w := newHookWorld(t, version)
			w.bound(t, "shop", "data")
			w.pod(t, "shop", "db", w.hooks("kedge.dev", "true", "true"), "data")
			w.watchSnapshots()
			w.hooksSucceed(t)
			if version != "1.24.17" { // the same on every version
				w.hooksFail(t)
			}
			w.hooksWithoutVolumes(t)
		})
	}
}

func (w *hookWorld) hooksSucceed(t *testing.T) {
	t.Helper()
	if stderr, code := w.backup(t, "good"); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	diary := w.diary(t)
	if diff := cmp.Diff([]string{"pre", "snapshot", "post"}, withoutLooks(diary)); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
	// The pod holds still until the snapshot is created, not until it is completed.
	if diary[len(diary)-1] != "look" {
		t.Errorf("the post hook waited for the snapshot's completion: %v", diary)
	}
	if got := w.volumesOf(t, "good"); !slices.Equal(got, []string{"data"}) {
		t.Errorf("the backup has %v", got)
	}
	if n := len(w.files(t, "freeze-")); n != 0 {
		t.Errorf("%d notes are left in the bucket", n)
	}
	if stdout, stderr, code := w.kedge(t.Context(), "backup", "verify", "good", "--deep"); code != 0 {
		t.Errorf("verify: %d\n%s%s", code, stdout, stderr)
	}
}

// files are the keys in the bucket that have a text in them.
func (w *hookWorld) files(t *testing.T, text string) []string {
	t.Helper()
	list, err := w.bucket.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &w.bucket.Name})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range list.Contents {
		if strings.Contains(*o.Key, text) {
			out = append(out, *o.Key)
		}
	}
	return out
}

func (w *hookWorld) hooksFail(t *testing.T) {
	t.Helper()
	with := func(a map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			a[more[i]] = more[i+1]
		}
		return a
	}
	noSpace := "echo no space left >&2; exit 7"
	for _, c := range []struct {
		name        string
		annotations map[string]string
		fault       *aws.Fault
		code        int
		diary       []string
		says        []string
		volumes     []string
	}{
		{
			"fail", w.hooks("velero.io", noSpace, "true"), nil, 3, []string{"pre", "post"},
			[]string{"HookFailed", "pod shop/db, container main: exit code 7: no space left", "its data is not taken"}, []string{},
		},
		{
			"continue", with(w.hooks("kedge.dev", noSpace, "true"), "pre.hook.backup.kedge.dev/on-error", "Continue"), nil, 0, []string{"pre", "snapshot", "post"},
			[]string{"exit code 7: no space left"}, []string{"data"},
		},
		{
			"slow", with(w.hooks("kedge.dev", "sleep 4", "true"), "pre.hook.backup.kedge.dev/timeout", "1s"), nil, 3, []string{"pre", "post"},
			[]string{"did not end in time: 1s"}, []string{},
		},
		{"post-fails", w.hooks("kedge.dev", "true", noSpace), nil, 3, []string{"pre", "snapshot", "post"}, []string{"post annotation post.hook.backup.kedge.dev/command", "exit code 7"}, []string{"data"}},
		{
			"no-snapshot", w.hooks("kedge.dev", "true", "true"), &aws.Fault{Op: "CreateSnapshot", Code: "UnauthorizedOperation", Status: 403}, 3, []string{"pre", "post"},
			[]string{"VolumeSnapshotFailed"}, []string{},
		},
		{
			"no-container", with(w.hooks("kedge.dev", "true", "true"), "pre.hook.backup.kedge.dev/container", "web"), nil, 3, []string{"post"},
			[]string{`no container "web", but main`}, []string{},
		},
		{"not-a-command", with(w.hooks("kedge.dev", "true", "true"), "pre.hook.backup.kedge.dev/command", `["`), nil, 3, []string{"post"}, []string{"JSON array"}, []string{}},
	} {
		w.annotate(t, "shop", "db", c.annotations)
		if c.fault != nil {
			w.cloud.Heal()
			w.cloud.Inject(*c.fault)
		}
		stderr, code := w.backup(t, c.name)
		w.watchSnapshots()
		if code != c.code {
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
		if diff := cmp.Diff(c.diary, withoutLooks(w.diary(t))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		for _, text := range c.says {
			if !strings.Contains(stderr, text) {
				t.Errorf("%s: %q is not said: %s", c.name, text, stderr)
			}
		}
		if got := w.volumesOf(t, c.name); !slices.Equal(got, c.volumes) {
			t.Errorf("%s: the backup has %v, want %v", c.name, got, c.volumes)
		}
	}
}

// hooksWithoutVolumes runs those of a spec, in pods that mount nothing, in a backup that takes no volumes.
func (w *hookWorld) hooksWithoutVolumes(t *testing.T) {
	t.Helper()
	w.annotate(t, "shop", "db", nil)
	w.pod(t, "shop", "cache", nil)
	file := filepath.Join(t.TempDir(), "backup.yaml")
	text := fmt.Sprintf(`
apiVersion: kedge.dev/v1alpha1
kind: Backup
spec:
  includedNamespaces: [shop]
  hooks:
  - name: flush
    labelSelector: {matchLabels: {app: cache}}
    pre: [{command: %s}]
    post: [{container: main, command: %s, timeout: 10s}]
  - name: misspelt
    labelSelector: {matchLabels: {app: cash}}
    pre: [{command: ["false"]}]
`, w.writes("flush", "true"), w.writes("done", "true"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := w.kedge(t.Context(), "backup", "create", "flushed", "-f", file, "--kubeconfig", w.kubeconfig); code != 0 || !strings.Contains(stderr, `hook "misspelt" is for no pod`) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if diff := cmp.Diff([]string{"flush", "done"}, w.diary(t)); diff != "" {
		t.Errorf("without volumes (-want +got):\n%s", diff)
	}
	if text := w.must(t, "backup", "describe", "flushed", "-o", "json"); !strings.Contains(text, "flush") || strings.Contains(text, w.path) {
		t.Errorf("the record has the commands' arguments, or no hooks: %s", text)
	}
	w.diary(t)
	if _, stderr, code := w.kedge(t.Context(), "backup", "create", "seen", "-f", file, "--dry-run", "--kubeconfig", w.kubeconfig); code != 0 || len(w.diary(t)) != 0 {
		t.Errorf("a dry run ends with %d, or has run hooks: %s", code, stderr)
	}
}

// TestFreezeGroups ties pods together: by a label, and by a volume that two of them mount.
func TestFreezeGroups(t *testing.T) {
	w := newHookWorld(t, "1.36.3")
	hooks := w.hooks("kedge.dev", "sleep 0.3", "true")
	for _, name := range []string{"a", "b"} {
		w.bound(t, "shop", name)
		w.pod(t, "shop", name, hooks, name)
	}
	w.watchSnapshots()
	order := func(name string, want ...string) {
		t.Helper()
		if stderr, code := w.backup(t, name); code != 0 {
			t.Fatalf("%s: exit code %d: %s", name, code, stderr)
		}
		if diff := cmp.Diff(want, withoutLooks(w.diary(t))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got := w.volumesOf(t, name); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: the backup has %v", name, got)
		}
	}
	for _, name := range []string{"a", "b"} {
		pod, err := w.clients.CoreV1().Pods("shop").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pod.Labels["kedge.dev/freeze-group"] = "orders"
		if _, err := w.clients.CoreV1().Pods("shop").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	order("tied", "pre", "pre", "snapshot", "snapshot", "post", "post")
	w.pod(t, "shop", "c", hooks, "b") // and a pod that shares a volume with one of them
	order("shared", "pre", "pre", "pre", "snapshot", "snapshot", "post", "post", "post")
}

// TestHooksKilled kills a backup between the pre hook and the post hook. The next attempt runs the post hook before it does anything else.
func TestHooksKilled(t *testing.T) {
	w := newHookWorld(t, "1.36.3")
	w.bound(t, "shop", "data")
	w.pod(t, "shop", "db", w.hooks("kedge.dev", "true", "true"), "data")
	stop := func(name string, signal syscall.Signal) int {
		t.Helper()
		cmd := w.command(w.config, w.backupArgs(name)...)
		w.cloud.Heal()
		w.cloud.Inject(aws.Fault{Op: "CreateSnapshot", Drop: true, Before: func() {
			w.note("snapshot")
			_ = cmd.Process.Signal(signal)
			time.Sleep(time.Second) // so that the signal comes before the answer
		}})
		_, _, code := output(t.Context(), cmd)
		return code
	}
	if code := stop("night", syscall.SIGINT); code == 0 {
		t.Error("the backup that was interrupted has succeeded")
	}
	if diff := cmp.Diff([]string{"pre", "snapshot", "post"}, w.diary(t)); diff != "" {
		t.Errorf("interrupted (-want +got):\n%s", diff)
	}
	if left := w.files(t, "freeze-"); len(left) != 0 {
		t.Errorf("after an interruption %v are left", left)
	}
	if code := stop("night", syscall.SIGKILL); code == 0 {
		t.Error("the backup that was killed has succeeded")
	}
	if diff := cmp.Diff([]string{"pre", "snapshot"}, w.diary(t)); diff != "" {
		t.Errorf("killed (-want +got):\n%s", diff)
	}
	if left := w.files(t, "freeze-"); len(left) != 1 {
		t.Errorf("after a kill %v are left", left)
	}
	w.watchSnapshots()
	if stderr, code := w.backup(t, "night"); code != 0 {
		t.Fatalf("the next attempt: exit code %d: %s", code, stderr)
	}
	if diff := cmp.Diff([]string{"post", "pre", "snapshot", "post"}, withoutLooks(w.diary(t))); diff != "" {
		t.Errorf("the next attempt (-want +got):\n%s", diff)
	}
	if left := w.files(t, "freeze-"); len(left) != 0 {
		t.Errorf("after the next attempt %v are left", left)
	}
	if text := w.must(t, "backup", "describe", "night"); !strings.Contains(text, "its post hooks were run") {
		t.Errorf("the report does not tell of the earlier attempt: %s", text)
	}
}
