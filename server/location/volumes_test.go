package location_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/server/location"
)

// TestRemoveSnapshotsOfCluster: snapshots that a cluster keeps are removed there, and nowhere else; by force they are left. AWS is not asked where it has none.
func TestRemoveSnapshotsOfCluster(t *testing.T) {
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/api/v1/namespaces/kube-system":
			_, _ = fmt.Fprint(w, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":"blue"}}`)
		case strings.Contains(r.URL.Path, "snapshot.storage.k8s.io"):
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}`)
		default:
			_, _ = fmt.Fprint(w, `{"apiVersion":"v1","kind":"List","metadata":{},"items":[]}`)
		}
	}))
	defer server.Close()
	here := func() (*kube.Client, error) { return kube.New(&rest.Config{Host: server.URL}, kube.Options{}) }
	nowhere := func() (*kube.Client, error) { return nil, errors.New("no kubeconfig") }
	for _, c := range []struct {
		name    string
		connect location.Connect
		what    archive.Outside
		refused bool
		left    int
	}{
		{"its own cluster", here, archive.Outside{UID: "u", Cluster: "blue", OnlyCluster: true}, false, 0},
		{"another cluster", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true}, true, 0},
		{"another cluster, only a look", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true, Look: true}, true, 0},
		{"another cluster, by force", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true, Leave: true}, false, 1},
		{"another cluster, by force, only a look", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true, Leave: true, Look: true}, false, 0},
		{"no cluster", nowhere, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true}, true, 0},
		{"no cluster, by force", nowhere, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true, Leave: true}, false, 1},
	} {
		left := 0
		err := location.RemoveSnapshots(&v1alpha1.BackupStorageLocationSpec{}, nil, "id", c.connect, func(context.Context, error) { left++ })(t.Context(), c.what)
		if errors.Is(err, archive.ErrElsewhere) != c.refused || !c.refused && err != nil || left != c.left {
			t.Errorf("%s: %v, %d left", c.name, err, left)
		}
	}
	// A cluster that does not answer may be the one that is meant: nothing is left behind then.
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer away.Close()
	silent := func() (*kube.Client, error) { return kube.New(&rest.Config{Host: away.URL}, kube.Options{}) }
	forced := archive.Outside{UID: "u", Cluster: "blue", OnlyCluster: true, Leave: true}
	err := location.RemoveSnapshots(&v1alpha1.BackupStorageLocationSpec{}, nil, "id", silent, func(_ context.Context, err error) { t.Errorf("left: %v", err) })(t.Context(), forced)
	if err == nil || errors.Is(err, archive.ErrElsewhere) {
		t.Errorf("a cluster that does not answer, by force: %v", err)
	}
	if !strings.Contains(strings.Join(paths, " "), "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents") {
		t.Errorf("the contents were not looked at: %v", paths)
	}
}
