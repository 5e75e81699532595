package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/podexec"
)

// podLister is an API server with one pod, shop/db, which lists pods of all namespaces only where it is told to.
func podLister(t *testing.T, everywhere bool, annotations string) *kube.Client {
	t.Helper()
	pod := fmt.Sprintf(`{"metadata":{"namespace":"shop","name":"db","uid":"u","annotations":{%s}},"spec":{"containers":[{"name":"main"}]},"status":{"phase":"Running"}}`, annotations)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		items := ""
		switch {
		case r.URL.Path == "/api/v1/namespaces/shop/pods", r.URL.Path == "/api/v1/pods" && everywhere:
			items = pod
		case r.URL.Path == "/api/v1/pods":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Forbidden","code":403}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[%s]}`, items)
	}))
	t.Cleanup(server.Close)
	client, err := kube.New(&rest.Config{Host: server.URL}, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

type executor func() error

func (e executor) Exec(context.Context, podexec.Request) error { return e() }

// TestThawIsSure keeps the note of a freeze unless the post hooks ran, or every place where the pod may be was looked into.
func TestThawIsSure(t *testing.T) {
	post := `"post.hook.backup.kedge.dev/command":"thaw"`
	for _, c := range []struct {
		name, namespace string
		everywhere      bool
		annotations     string
		exit            error
		pod             string
		want            string // a note, or the words of the error
		kept            bool
	}{
		{"it works", "shop", false, post, nil, "u", "pod shop/db: its post hooks were run", false},
		{"the spec names another namespace now", "other", true, post, nil, "u", "pod shop/db: its post hooks were run", false},
		{"and the account may not look elsewhere", "other", false, post, nil, "u", "1 pods that are not among those that could be listed", true},
		{"gone", "other", true, post, nil, "v", "1 pods that do not run any more", false},
		{"no post hook is known", "shop", true, ``, nil, "u", "pod shop/db: an earlier attempt was cut off", true},
		{"it fails", "shop", true, post, &podexec.ExitError{Code: 5, Output: "s3cret"}, "u", "pod shop/db, container main: exit code 5", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVault(t)
			killed := errors.New("killed")
			_, err := v.Write(t.Context(), archive.WriteOptions{Name: "night", UID: uidA, SpoolDir: t.TempDir(), Now: newEngine(t, nil, v).Now, Rand: newEngine(t, nil, v).Rand},
				func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
					_, err := w.Freeze(ctx, archive.Freeze{Cluster: "here", Pods: []string{c.pod}})
					return nil, errors.Join(err, killed)
				})
			if !errors.Is(err, killed) {
				t.Fatal(err)
			}
			engine := newEngine(t, podLister(t, c.everywhere, c.annotations), v)
			engine.Exec = executor(func() error { return c.exit })
			p, err := engine.prepare(Request{Name: "night", UID: uidA, Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{c.namespace}}}})
			if err != nil {
				t.Fatal(err)
			}
			result, err := p.thaw(t.Context(), v.Location, "here")
			if err != nil {
				t.Fatal(err)
			}
			told := strings.Join(result.Notes, "\n")
			if _, ok := errors.AsType[*volumes.FrozenError](result.Frozen()); ok != c.kept || ok != (len(result.Errors) == 1) {
				t.Errorf("%v, %+v", result.Frozen(), result.Errors)
			} else if ok {
				told += result.Frozen().Error()
			}
			if !strings.Contains(told, c.want) || strings.Contains(told, "were run") != (c.want == "pod shop/db: its post hooks were run") || strings.Contains(told, "s3cret") {
				t.Errorf("told: %s", told)
			}
			if left, err := v.Freezes(t.Context(), "night", "here"); err != nil || (len(left) == 1) != c.kept || c.kept && !left[0].Thawing {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}
