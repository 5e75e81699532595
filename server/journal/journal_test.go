package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/test/testbed"
)

// world is a cluster with Kedge's kinds, and a namespace of the test's own.
func world(t testing.TB, namespace string) client.Client {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
	manifests := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n"}
	err := fs.WalkDir(deploy.CRDs, "crds", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := deploy.CRDs.ReadFile(path)
		manifests = append(manifests, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.ApplyYAML(t.Context(), manifests...); err != nil {
		t.Fatal(err)
	}
	return clientFor(t, cluster.Kedge(t))
}

func clientFor(t testing.TB, cfg *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// storeFor makes a Restore, and where its Secrets are.
func storeFor(t testing.TB, c client.Client, namespace, name string) *Store {
	t.Helper()
	owner := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	owner.Spec.BackupName = "b"
	if err := c.Create(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	return &Store{Client: c, Lister: c, Owner: owner, Writer: name}
}

func open(t testing.TB, s *Store) *Journal {
	t.Helper()
	j, err := Open(t.Context(), s, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func replay(t testing.TB, j *Journal) []restore.Record {
	t.Helper()
	var out []restore.Record
	if err := j.Replay(t.Context(), func(r restore.Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func item(n int, outcome restore.Outcome) restore.Record {
	return restore.Record{Item: &restore.ItemRecord{Ref: plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: "shop", Name: fmt.Sprintf("cm-%06d", n)}, Outcome: outcome, UID: "u"}}
}

func secretsOf(t testing.TB, s *Store) []corev1.Secret {
	t.Helper()
	var list corev1.SecretList
	if err := s.Client.List(t.Context(), &list, client.InNamespace(s.Owner.Namespace), client.MatchingLabels{RestoreLabel: string(s.Owner.UID)}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestJournal appends from many goroutines, and reads everything back in another process.
func TestJournal(t *testing.T) {
	c := world(t, "journal")
	s := storeFor(t, c, "journal", "many")
	j := open(t, s)
	if start, err := restore.ReadStart(t.Context(), j); start != nil || err != nil {
		t.Fatalf("an empty journal begins with %v, %v", start, err)
	}
	if err := j.Append(t.Context(), restore.Record{Start: &restore.Start{Name: "many", BackupUID: "b"}}); err != nil {
		t.Fatal(err)
	}
	const workers, each = 64, 30
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for n := range each {
				outcome := restore.Skipped // is waited for
				if n%3 == 0 {
					outcome = restore.Created // is not
				}
				if err := j.Append(t.Context(), item(w*each+n, outcome)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if err := j.Append(t.Context(), restore.Record{End: &restore.End{Phase: v1alpha1.PhaseCompleted}}); err != nil {
		t.Fatal(err)
	}
	secrets := secretsOf(t, s)
	if len(secrets) > 1+2*each+1 {
		t.Errorf("%d records of %d workers took %d Secrets: they do not share writes", workers*each, workers, len(secrets))
	}
	for _, secret := range secrets {
		if len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != s.Owner.UID || secret.Labels[v1alpha1.ExcludeLabel] != "true" {
			t.Fatalf("%s would outlive the restore, or be backed up: %+v", secret.Name, secret.ObjectMeta)
		}
	}
	got := replay(t, open(t, s))
	if len(got) != workers*each+2 || got[0].Start == nil || got[len(got)-1].End == nil {
		t.Fatalf("%d records came back of %d", len(got), workers*each+2)
	}
	last := map[int]int{}
	for _, r := range got[1 : len(got)-1] {
		var n int
		if _, err := fmt.Sscanf(r.Item.Ref.Name, "cm-%d", &n); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[n/each]; ok && before >= n {
			t.Fatalf("worker %d: record %d is behind %d", n/each, before, n)
		}
		last[n/each] = n
	}
}

// TestLazyRecords are stored within a second, also where nothing follows them.
func TestLazyRecords(t *testing.T) {
	c := world(t, "lazy")
	s := storeFor(t, c, "lazy", "lazy")
	j := open(t, s)
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wait.Wait()
	defer stop()
	if err := j.Append(t.Context(), item(1, restore.Created)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for len(secretsOf(t, s)) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the record was never stored")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got := replay(t, open(t, s)); len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
}

// TestFence opens a journal that another process writes: that one stops, at whatever moment it is, and nothing of it is lost before.
func TestFence(t *testing.T) {
	c := world(t, "fence")
	s := storeFor(t, c, "fence", "fence")
	old := open(t, s)
	if err := old.Append(t.Context(), restore.Record{Start: &restore.Start{Name: "fence"}}); err != nil {
		t.Fatal(err)
	}
	stored := make(chan int, 1)
	var wait sync.WaitGroup
	wait.Go(func() {
		n := 0
		for old.Append(t.Context(), item(n, restore.Failed)) == nil {
			n++
		}
		stored <- n
	})
	defer wait.Wait()
	time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	second := *s
	second.Writer = "second"
	fresh := open(t, &second)
	n := <-stored
	if !errors.Is(old.Failed(), ErrFenced) {
		t.Errorf("the old process ended with %v", old.Failed())
	}
	if got := replay(t, fresh); len(got) != n+1 {
		t.Errorf("%d records were stored, %d came back", n+1, len(got))
	}
	if err := fresh.Append(t.Context(), restore.Record{End: &restore.End{}}); err != nil {
		t.Error(err)
	}
	if err := old.Append(t.Context(), item(0, restore.Failed)); !errors.Is(err, ErrFenced) {
		t.Errorf("the old process wrote again: %v", err)
	}
}

// TestDamage names the Secret that is not as it was written.
func TestDamage(t *testing.T) {
	c := world(t, "damage")
	cases := map[string]struct {
		data []byte // nil removes the Secret
		want string
	}{
		"gone":        {nil, "it is missing"},
		"not zstd":    {[]byte("hello"), "decompress"},
		"not JSON":    {must(pack([]byte("{}\n{\n"))), "line 2"},
		"a bomb":      {must(pack(make([]byte, maxPlain+1))), "decompress"},
		"cut in half": {must(pack([]byte(strings.Repeat("{}\n", 1000))))[:20], "decompress"},
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			s := storeFor(t, c, "damage", strings.ReplaceAll("d-"+strings.ToLower(name), " ", "-"))
			j := open(t, s)
			for n := range 3 {
				if err := j.Append(t.Context(), item(n, restore.Failed)); err != nil {
					t.Fatal(err)
				}
			}
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "damage", Name: j.series.name(2)}}
			if err := c.Delete(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			if damage.data != nil {
				other := *s
				other.Writer = "vandal"
				if err := (series{&other, "journal"}).create(t.Context(), 2, damage.data); err != nil {
					t.Fatal(err)
				}
			}
			again, err := Open(t.Context(), s, time.Now)
			if err == nil {
				err = again.Replay(t.Context(), func(restore.Record) error { return nil })
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), damage.want) || !strings.Contains(err.Error(), j.series.name(2)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestReport keeps reports of all sizes, also behind what a killed process left.
func TestReport(t *testing.T) {
	c := world(t, "report")
	for _, entries := range []int{0, 3, 60000} {
		t.Run(fmt.Sprint(entries), func(t *testing.T) {
			s := storeFor(t, c, "report", fmt.Sprintf("r-%d", entries))
			if r, err := ReadReport(t.Context(), s); r != nil || err != nil {
				t.Fatalf("there is a report already: %v, %v", r, err)
			}
			if err := (series{s, "report"}).create(t.Context(), 2, []byte("left by a kill")); err != nil {
				t.Fatal(err)
			}
			want := &restore.Report{Name: s.Owner.Name, Phase: v1alpha1.PhasePartiallyFailed, Counts: v1alpha1.RestoreCounts{Failed: entries}}
			for n := range entries { // random text does not compress
				want.Entries = append(want.Entries, restore.Entry{Ref: item(n, 0).Item.Ref, Outcome: restore.Failed, Message: fmt.Sprintf("%x", rand.Uint64())})
			}
			if err := PutReport(t.Context(), s, want); err != nil {
				t.Fatal(err)
			}
			if err := PutReport(t.Context(), s, &restore.Report{Name: "another"}); err != nil {
				t.Fatal(err)
			}
			got, err := ReadReport(t.Context(), s)
			if err != nil || got.Name != want.Name || len(got.Entries) != entries || entries > 0 && got.Entries[entries-1] != want.Entries[entries-1] {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestLog keeps the lines of all attempts in order.
func TestLog(t *testing.T) {
	c := world(t, "log")
	s := storeFor(t, c, "log", "log")
	for attempt := range 3 {
		l := &Log{}
		for n := range 10 {
			fmt.Fprintf(l, "{\"attempt\":%d,\"line\":%d}\n", attempt, n)
		}
		if err := l.Keep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if err := CopyLog(t.Context(), s, &b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 30 || lines[0] != `{"attempt":0,"line":0}` || lines[29] != `{"attempt":2,"line":9}` {
		t.Errorf("%d lines, %s to %s", len(lines), lines[0], lines[len(lines)-1])
	}
}

// TestLongLog has a log without room for all of its lines. How the attempt ended is in it.
func TestLongLog(t *testing.T) {
	c := world(t, "longlog")
	s := storeFor(t, c, "longlog", "longlog")
	l := &Log{}
	for range maxLog / 1000 * 2 {
		fmt.Fprintf(l, "{\"filler\":%q}\n", strings.Repeat("x", 1000))
	}
	l.End()
	fmt.Fprintf(l, "{\"end\":%q}\n", strings.Repeat("y", 60_000))
	if err := l.Keep(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := CopyLog(t.Context(), s, &b); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(b.String()), "\n"); b.Len() > maxLog+1000 || !strings.HasPrefix(lines[len(lines)-2], `{"end":"y`) || !strings.Contains(lines[len(lines)-1], "left out") {
		t.Errorf("%d lines, %d bytes, the last %.100s", len(lines), b.Len(), lines[len(lines)-1])
	}
}

// BenchmarkAppend measures what an Append costs a restore's 64 workers: created objects, and such that are waited for.
func BenchmarkAppend(b *testing.B) {
	c := world(b, "bench")
	for name, outcome := range map[string]restore.Outcome{"created": restore.Created, "awaited": restore.Skipped} {
		b.Run(name, func(b *testing.B) {
			s := storeFor(b, c, "bench", fmt.Sprintf("%s-%d", name, rand.Uint64()))
			j := open(b, s)
			next := make(chan int)
			var wait sync.WaitGroup
			for range 64 {
				wait.Go(func() {
					for n := range next {
						time.Sleep(3 * time.Millisecond) // the create
						if err := j.Append(b.Context(), item(n, outcome)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for n := range b.N {
				next <- n
			}
			close(next)
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "objects/s")
			b.ReportMetric(float64(len(secretsOf(b, s))), "secrets")
		})
	}
}

// TestRemoveOnlyWhatWasListed has a process remove Secrets that it listed before another took the restore over and wrote under the same names.
func TestRemoveOnlyWhatWasListed(t *testing.T) {
	c := world(t, "removal")
	store := storeFor(t, c, "removal", "late")
	s := series{store, "report"}
	for n := 1; n <= 2; n++ {
		if err := s.create(t.Context(), n, []byte("of a process that was killed")); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := s.members(t.Context())
	if err != nil || len(listed) != 2 {
		t.Fatalf("%v, %v", listed, err)
	}
	other := series{&Store{Client: c, Lister: c, Owner: store.Owner, Writer: "other"}, "report"}
	if err := other.remove(t.Context(), listed[1:]); err != nil {
		t.Fatal(err)
	}
	if err := other.create(t.Context(), 2, []byte("of the one that goes on")); err != nil {
		t.Fatal(err)
	}
	if err := s.remove(t.Context(), listed); !errors.Is(err, ErrFenced) {
		t.Errorf("it removed another's: %v", err)
	}
	if kept, err := s.get(t.Context(), 2); err != nil || string(kept) != "of the one that goes on" {
		t.Errorf("%q, %v", kept, err)
	}
	if err := s.remove(t.Context(), listed[:1]); err != nil { // it is gone: a reply that was lost
		t.Error(err)
	}
}
