package restore

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/testbed"
	"kedge.dev/kedge/volume/files"
)

// folderSource has the files of the volume of NS/data, on a file system.
type folderSource struct {
	Source
	ns string
}

func (s folderSource) Volumes(context.Context) ([]archive.Volume, error) {
	return []archive.Volume{{
		Namespace: s.ns, Claim: "data", Volume: s.ns + "-volume", Provider: "files", CopyID: "c", CopyKind: files.Kind,
		Source: plugins.Volume{Handle: efsDriver + "/fs-0123456789abcdef0"},
	}}, nil
}

// TestKeptFolder: a volume whose files stay is restored as it would be without a copy, whatever is asked about it before.
func TestKeptFolder(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	for name, tc := range map[string]struct {
		dry     func(n int64) *http.Response // the answer to the n-th dry run of its create, from 1; nil is the server's
		outcome Outcome
		reason  Reason
	}{
		"kept":      {func(int64) *http.Response { return nil }, Created, ""},
		"kept-busy": {passing, Created, ""},
		"kept-no-dry": {func(int64) *http.Response {
			return status(400, "BadRequest", `admission webhook "w.example.com" does not support dry run`)
		}, Created, ""},
		"kept-refused": {func(int64) *http.Response {
			return status(403, "Forbidden", `persistentvolumes is forbidden: User "u" cannot create resource "persistentvolumes" in API group "" at the cluster scope`)
		}, Failed, Forbidden},
	} {
		t.Run(name, func(t *testing.T) {
			var dries atomic.Int64
			c := clientFor(t, answering(cluster.Kedge(t), func(req *http.Request, body string) *http.Response {
				if req.URL.Query().Get("dryRun") == "" || !createsOf(req, body, name+"-volume") {
					return nil
				}
				return tc.dry(dries.Add(1))
			}))
			text := strings.ReplaceAll(in(name, volumeAndClaim), "driver: none.example.com, volumeHandle: vol-0123456789abcdef0", "driver: "+efsDriver+", volumeHandle: fs-0123456789abcdef0")
			source := fromYAML(t, text)
			source.info.Cluster.UID = clusterUID(t, c)
			r := restoreAll(t, engineFor(c, folderSource{source, name}), request(name))
			for _, e := range r.Entries {
				if e.Ref.Resource == "persistentvolumes" && !e.Warning && (e.Outcome != tc.outcome || e.Reason != tc.reason) {
					t.Errorf("%+v", e)
				}
			}
			if (r.Phase == v1alpha1.PhaseCompleted) != (tc.outcome == Created) || dries.Load() == 0 {
				t.Errorf("%s %+v after %d dry runs: %+v", r.Phase, r.Counts, dries.Load(), r.Entries)
			}
		})
	}
}

// passing is a refusal that is over in a moment.
func passing(n int64) *http.Response {
	if n == 1 {
		return status(500, "InternalError", `Internal error occurred: failed calling webhook "w.example.com": no endpoints available for service "w"`)
	}
	return nil
}
