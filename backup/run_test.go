package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/test/testbed"
)

// vault is a location in a folder, with its keys.
type vault struct {
	*archive.Location
	keys *archive.Keys
}

func newVault(t testing.TB) vault {
	t.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: t.TempDir()}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	loc, keys, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return vault{loc, keys}
}

func (v vault) open(t testing.TB, name string) *archive.Reader {
	t.Helper()
	entry, err := v.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := v.OpenBackup(t.Context(), entry, v.keys, archive.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return reader
}

func newEngine(t testing.TB, client *kube.Client, v vault) *Engine {
	t.Helper()
	return &Engine{Kube: client, Open: At(v.Location), Version: "test", Now: time.Now, Rand: rand.Reader, SpoolDir: t.TempDir()}
}

const (
	uidA = "0a6bd2a0-0000-4000-8000-000000000001"
	uidB = "0a6bd2a0-0000-4000-8000-000000000002"
)

// TestRun makes two backups of an idle cluster: whole, readable, equal in their plaintext.
func TestRun(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		v := newVault(t)
		var stages []Stage
		var last Progress
		e := newEngine(t, newClient(t, c), v)
		e.Events.Progress = func(p Progress) {
			if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
				stages = append(stages, p.Stage)
			}
			last = p
		}
		spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{ExcludedResources: []string{"leases", "events"}}, TTL: metav1.Duration{Duration: time.Hour}}
		for name, uid := range map[string]string{"a": uidA, "b": uidB} {
			record, err := e.Run(t.Context(), Request{Name: name, UID: uid, ClusterName: "blue", Labels: map[string]string{"x": "y"}, Spec: spec})
			if err != nil {
				t.Fatal(err)
			}
			if record.Phase != v1alpha1.PhaseCompleted || record.Revision == "" || record.Cluster.Name != "blue" || record.Cluster.Version != "v"+c.Version || record.Cluster.UID == "" ||
				record.Expires.Sub(record.Started) != time.Hour || int64(record.Counts.Items) != last.Items || record.Kedge != "test" {
				t.Errorf("record %+v, progress %+v", record, last)
			}
		}
		if want := []Stage{StageDiscover, StagePin, StageList, StageWrite, StageDiscover, StagePin, StageList, StageWrite}; !slices.Equal(stages, want) {
			t.Errorf("stages %v", stages)
		}
		a, b := v.open(t, "a"), v.open(t, "b")
		if x, y := plaintext(a), plaintext(b); !slices.Equal(x, y) {
			t.Errorf("frames differ:\n%v\n%v", x, y)
		}
		entry, err := v.Find(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		result, err := archive.Verify(t.Context(), v.Location, entry, v.keys, archive.VerifyOptions{Deep: true})
		if err != nil || !result.OK() {
			t.Errorf("%+v, %v", result, err)
		}
		preview, err := e.Preview(t.Context(), Request{Name: "p", Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		items := 0
		for _, r := range preview.Resources {
			items += r.Items
		}
		if items != a.Record().Counts.Items || preview.Phase != v1alpha1.PhaseCompleted {
			t.Errorf("preview of %d items, backup of %d", items, a.Record().Counts.Items)
		}
	})
}

func plaintext(r *archive.Reader) []string {
	var out []string
	for _, f := range r.Record().Frames {
		out = append(out, f.Resource+" "+f.First+" "+f.Last+" "+f.SHA256)
	}
	return out
}

// TestRunLeavesNothing fails in all the ways that end a backup: no record may be there.
func TestRunLeavesNothing(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	v := newVault(t)
	refuse := func(code int) *kube.Client {
		cfg := c.Kedge(t)
		cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Query().Has("limit") {
					return status(code, map[string]any{"message": "refused by the test"}), nil
				}
				return next.RoundTrip(req)
			})
		}
		client, err := kube.New(cfg, kube.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, check := range map[string]struct {
		ctx  context.Context
		kube *kube.Client
		spec v1alpha1.BackupSpec
		want string
	}{
		"bad selection":     {t.Context(), newClient(t, c), v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"a", "B"}}}, "spec.includedNamespaces[1]"},
		"bad version":       {t.Context(), newClient(t, c), v1alpha1.BackupSpec{AlsoVersions: []string{"ingresses"}}, `spec.alsoVersions[0]: "ingresses" names no version`},
		"cancelled":         {cancelled, newClient(t, c), v1alpha1.BackupSpec{}, "context canceled"},
		"nothing readable":  {t.Context(), refuse(http.StatusForbidden), v1alpha1.BackupSpec{}, "no resource could be read"},
		"not logged in":     {t.Context(), refuse(http.StatusUnauthorized), v1alpha1.BackupSpec{}, "HTTP 401"},
		"nothing so called": {t.Context(), newClient(t, c), v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"nonsense"}, IncludeClusterResources: new(bool)}}, "no resource could be read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newEngine(t, check.kube, v).Run(check.ctx, Request{Name: "x", UID: uidA, Spec: check.spec})
			if err == nil || !strings.Contains(err.Error(), check.want) {
				t.Errorf("error %v, want %s", err, check.want)
			}
		})
	}
	if _, err := v.Find(t.Context(), "x"); !errors.Is(err, archive.ErrBackupNotFound) {
		t.Errorf("a failed backup left a record: %v", err)
	}
}

// TestExpressionFailures names each object that an expression cannot judge.
func TestExpressionFailures(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	var told int
	e := newEngine(t, newClient(t, c), newVault(t))
	e.Events.Remark = func(s Severity, m archive.Remark) {
		if s == SeverityError && m.Reason == ReasonExpressionFailed && m.Ref != nil {
			told++
		}
	}
	preview, err := e.Preview(t.Context(), Request{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"serviceaccounts"}, Expression: "object.spec.x == 1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if preview.Phase != v1alpha1.PhasePartiallyFailed || len(preview.Report.Errors) == 0 || told != len(preview.Report.Errors) || !strings.Contains(preview.Report.Errors[0].Message, "spec.expression: no such key: spec") {
		t.Errorf("%d told, %+v", told, preview)
	}
}

// TestOddNames has a server give names that an archive cannot hold: of objects, of a namespace, of a resource. They are named, and the rest is there.
func TestOddNames(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	answers := map[string]func(*http.Response, error) (*http.Response, error){
		"/api/v1/serviceaccounts":                         rewrite(`"name":"default","namespace":"kube-node-lease"`, `"name":"de/fault","namespace":"kube-node-lease"`),
		"/apis/rbac.authorization.k8s.io/v1/rolebindings": rewrite(`"namespace":"kube-public"`, `"namespace":".."`),
		"/apis": rewrite(`"resource":"flowschemas"`, `"resource":"flow\nschemas"`),
	}
	cfg := c.Kedge(t)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "flow\nschemas") {
				req = req.Clone(req.Context())
				req.URL.Path, req.URL.RawPath = strings.Replace(req.URL.Path, "flow\nschemas", "flowschemas", 1), ""
			}
			answer := answers[req.URL.Path]
			if answer == nil {
				return next.RoundTrip(req)
			}
			if req.URL.Path != "/apis" {
				req = inJSON(req)
			}
			return answer(next.RoundTrip(req))
		})
	})
	client, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := newVault(t)
	var unreadable, lists []string
	e := newEngine(t, client, v)
	e.Events.Remark = func(s Severity, m archive.Remark) {
		switch {
		case s == SeverityError && m.Reason == ReasonUnreadable && m.Ref != nil:
			unreadable = append(unreadable, m.Ref.GroupResource()+" "+m.Ref.Namespace+" "+m.Ref.Name)
		case s == SeverityError:
			lists = append(lists, m.Resource+" "+m.Reason)
		}
	}
	record, err := e.Run(t.Context(), Request{Name: "odd", UID: uidA})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"rolebindings.rbac.authorization.k8s.io .. system:controller:bootstrap-signer", "serviceaccounts kube-node-lease de/fault"}
	if !slices.Equal(unreadable, want) || !slices.Equal(lists, []string{"flow\nschemas.flowcontrol.apiserver.k8s.io ListFailed"}) || record.Phase != v1alpha1.PhasePartiallyFailed {
		t.Errorf("unreadable %q, lists %q, %s", unreadable, lists, record.Phase)
	}
	held := 0
	err = v.open(t, "odd").Rows(t.Context(), func(*archive.Frame) bool { return true }, func(_ int, row archive.Row) error {
		if row.Resource == "serviceaccounts" || row.Resource == "rolebindings" {
			held++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if held < 4 {
		t.Errorf("%d of the objects beside them are held", held)
	}
}
