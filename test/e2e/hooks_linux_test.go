package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/podrunner"
)

// TestHooksAroundFiles: where a volume's files are copied, its pod holds still until they are.
func TestHooksAroundFiles(t *testing.T) {
	w := newFileWorld(t)
	w.uploads(t)
	state := filepath.Join(w.folder, "state")
	sets := func(word string) string {
		argv, err := json.Marshal([]string{"/bin/sh", "-c", "echo " + word + " > " + state})
		if err != nil {
			t.Fatal(err)
		}
		return string(argv)
	}
	h := &hookWorld{volumeWorld: w.volumeWorld, kubelet: podrunner.StartKubelet(t, w.clients, "node-1")}
	h.pod(t, "shop", "web", map[string]string{"pre.hook.backup.kedge.dev/command": sets("still"), "post.hook.backup.kedge.dev/command": sets("moving")}, "uploads")
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(state)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	w.must(t, append([]string{"backup", "create", "held", "--include-namespaces", "shop", "--volumes", "copy", "--kubeconfig", w.kubeconfig}, moverFlags...)...)
	if got := read(); got != "moving\n" {
		t.Errorf("after the backup it is %q", got)
	}
	if err := w.clients.CoreV1().Pods("shop").Delete(t.Context(), "web", *metav1.NewDeleteOptions(0)); err != nil { // nobody else says that it has ended
		t.Fatal(err)
	}
	w.lose(t, "shop")
	w.ruin(t)
	w.must(t, append([]string{"restore", "create", "of-held", "--from-backup", "held", "--kubeconfig", w.kubeconfig}, moverFlags...)...)
	if got := read(); got != "still\n" {
		t.Errorf("the copy has %q", got)
	}
}
