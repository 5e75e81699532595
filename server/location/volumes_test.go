package location_test

import (
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
	}{
		{"its own cluster", here, archive.Outside{UID: "u", Cluster: "blue", OnlyCluster: true}, false},
		{"another cluster", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true}, true},
		{"another cluster, by force", here, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true, Leave: true}, false},
		{"no cluster", nowhere, archive.Outside{UID: "u", Cluster: "green", OnlyCluster: true}, true},
	} {
		err := location.RemoveSnapshots(&v1alpha1.BackupStorageLocationSpec{}, nil, "id", c.connect)(t.Context(), c.what)
		if errors.Is(err, archive.ErrElsewhere) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if !strings.Contains(strings.Join(paths, " "), "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents") {
		t.Errorf("the contents were not looked at: %v", paths)
	}
}
