//go:build linux

package node_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestHooksRunInPods: the server runs the commands that a pod's annotations name in its real container, one before and one after its files are copied;
// one that fails keeps the volume out of the backup, and its own words are in the report.
func TestHooksRunInPods(t *testing.T) {
	w := openShop(t)
	w.ready(t, "shop", "db-0")
	w.annotate(t, `["/app", "put", "/data/frozen"]`, `["/app", "remove", "/data/frozen"]`)
	w.kedge(t, "backup", "create", "frozen", "--include-namespaces", "shop", "--volumes", "copy", "--wait")
	file := filepath.Join(w.disk, "frozen")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command after the copy has not run: %v", err)
	}
	w.annotate(t, `["/app", "freeze"]`, `["/app", "put", "/data/thawed"]`)
	out, err := w.command(t.Context(), "backup", "create", "warm", "--include-namespaces", "shop", "--volumes", "copy", "--wait").CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("with a hook that fails the backup ends with %v: %s", err, out)
	}
	said := w.kedge(t, "backup", "describe", "warm")
	for _, want := range []string{"HookFailed", "no such command", "shop/data-db-0"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in:\n%s", want, said)
		}
	}
	if _, err := os.Stat(filepath.Join(w.disk, "thawed")); err != nil {
		t.Errorf("the command after the one that failed has not run: %v", err)
	}
	w.lose(t)
	w.kedge(t, "restore", "create", "back", "--from-backup", "frozen", "--include-namespaces", "shop", "--wait")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("what the command before the copy wrote is not in the backup: %v", err)
	}
}

// annotate names the commands that are run in db-0.
func (w *shopWorld) annotate(t *testing.T, pre, post string) {
	t.Helper()
	quote := strings.NewReplacer(`"`, `\"`)
	patch := `{"metadata":{"annotations":{"pre.hook.backup.kedge.dev/command":"` + quote.Replace(pre) + `","post.hook.backup.kedge.dev/command":"` + quote.Replace(post) + `"}}}`
	if _, err := w.clients.CoreV1().Pods("shop").Patch(t.Context(), "db-0", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
