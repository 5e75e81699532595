//go:build unix

package scale_test

import (
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"kedge.dev/kedge/test/scale"
	"kedge.dev/kedge/test/testbed"
)

// binary is the kedge under test.
var binary string

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(testbed.WithKedge(m, &binary))
}

// patience bounds the wait for what must come. Nothing depends on how long it takes.
const patience = 3 * time.Minute

// TestRequests counts what a small world costs; make bench measures a large one. Each backup is shown with two writes and one read of its record, and
// from then on a sync costs one write and one read of the API server and two lists of S3, however many schedules and backups there are.
func TestRequests(t *testing.T) {
	const schedules, backups = 5, 50
	w, err := scale.Start(t.Context(), scale.Options{
		Schedules: schedules, Backups: backups, Kedge: binary, Dir: t.TempDir(), SyncPeriod: 2 * time.Second, Latency: 2 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	s, err := w.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := s.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Check(t.Context()); err != nil {
		t.Error(err)
	}
	api, s3 := take(t, s, 3)
	t.Logf("first sync: API: %s; S3: %s", api, s3)
	if api["create backups"] != backups || api["update backups/status"] != backups {
		t.Errorf("%d Backup objects were created, and %d statuses written, for %d backups", api["create backups"], api["update backups/status"], backups)
	}
	// A schedule is looked at when something of its backups changed: at the worst once for each, and for itself.
	if n := api.Of("patch schedules"); n > backups+2*schedules {
		t.Errorf("%d statuses of %d schedules were written", n, schedules)
	}
	const opening = 10 // kedge.json, keys, and what else makes a location
	if n := s3["GET"]; n < backups || n > backups+opening {
		t.Errorf("%d objects were read for %d records", n, backups)
	}

	api, s3 = take(t, s, 5)
	t.Logf("idle: API: %s; S3: %s", api, s3)
	syncs := api[syncOf]
	for what, n := range api {
		switch what {
		case syncOf, "update leases":
		case "get secrets": // the location's credentials, which may have been changed
			if n > syncs+1 {
				t.Errorf("%d syncs read %d Secrets", syncs, n)
			}
		default:
			t.Errorf("an idle server asked %d times to %s", n, what)
		}
	}
	// The sync that is under way at an end of the count may have listed already, or not yet.
	if n := s3["LIST"]; n < 2*(syncs-1) || n > 2*(syncs+1) || s3.Total() != n {
		t.Errorf("%d syncs asked S3 for %s: two lists each are expected", syncs, s3)
	}
}

// syncOf is what a sync writes.
const syncOf = "patch backupstoragelocations/status"

// take counts until so many syncs have ended.
func take(t *testing.T, s *scale.Server, syncs int) (api, s3 scale.Tally) {
	t.Helper()
	api, s3 = scale.Tally{}, scale.Tally{}
	for end := time.Now().Add(patience); api[syncOf] < syncs; time.Sleep(50 * time.Millisecond) {
		moreAPI, moreS3, err := s.Requests()
		if err != nil {
			t.Fatal(err)
		}
		api.Add(moreAPI)
		s3.Add(moreS3)
		if time.Now().After(end) {
			t.Fatalf("%d syncs did not come: API: %s", syncs, api)
		}
	}
	return api, s3
}
