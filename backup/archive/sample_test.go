package archive_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

var testNow = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func now() time.Time { return testNow }

// sample is the content of a backup, in any order.
type sample struct {
	sections []sampleSection
	report   archive.Report
	apis     []archive.API
	volumes  []archive.Volume
	places   []plugins.Place
}

type sampleSection struct {
	opts  archive.SectionOptions
	items []sampleItem
}

type sampleItem struct {
	row archive.Row
	raw []byte
}

// object makes the JSON of an object, with filler of which part does not compress.
func object(r *mathrand.Rand, ref plugins.Ref, kind string, filler int) []byte {
	meta := map[string]any{"name": ref.Name, "uid": fakeUUID(r), "resourceVersion": fmt.Sprint(r.IntN(1 << 20)), "creationTimestamp": "2026-05-04T03:02:01Z"}
	if ref.Namespace != "" {
		meta["namespace"] = ref.Namespace
	}
	meta["managedFields"] = []any{map[string]any{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": ref.APIVersion(), "fieldsType": "FieldsV1"}}
	noise := make([]byte, filler/4)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text := ""
	for len(text) < filler/2 {
		text += "the quick brown fox jumps over the lazy dog; "
	}
	raw, err := json.Marshal(map[string]any{
		"apiVersion": ref.APIVersion(), "kind": kind, "metadata": meta,
		"data": map[string]any{"noise": hex.EncodeToString(noise), "text": text},
	})
	if err != nil {
		panic(err)
	}
	return raw
}

func fakeUUID(r *mathrand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48))
}

// makeSection fills a section with n objects over some namespaces; zero namespaces make it cluster-scoped.
func makeSection(r *mathrand.Rand, opts archive.SectionOptions, kind string, namespaces, n, filler int) sampleSection {
	s := sampleSection{opts: opts}
	for i := range n {
		ref := plugins.Ref{Group: opts.Group, Version: opts.Version, Resource: opts.Resource, Name: fmt.Sprintf("%s-%05d", opts.Resource, i)}
		if namespaces > 0 {
			ref.Namespace = fmt.Sprintf("team-%03d", i%namespaces)
		}
		row := archive.Row{Ref: ref, Kind: kind, UID: fakeUUID(r), Labels: map[string]string{"app": fmt.Sprint("app-", i%7), "tier": "back"}}
		if i%5 == 0 {
			block := i%2 == 0
			row.Owners = []archive.Owner{{APIVersion: "apps/v1", Kind: "Deployment", Name: "owner", UID: fakeUUID(r), Controller: true, BlockOwnerDeletion: &block}}
			row.Applied = i%10 == 0
		}
		s.items = append(s.items, sampleItem{row, object(r, ref, kind, filler)})
	}
	slices.SortFunc(s.items, func(a, b sampleItem) int {
		if a.row.Key() < b.row.Key() {
			return -1
		}
		return 1
	})
	return s
}

// smallSample has few objects but all kinds of names.
func smallSample(seed uint64) *sample {
	r := mathrand.New(mathrand.NewPCG(seed, 1))
	s := &sample{sections: []sampleSection{
		makeSection(r, archive.SectionOptions{Version: "v1", Resource: "pods"}, "Pod", 3, 30, 400),
		makeSection(r, archive.SectionOptions{Version: "v1", Resource: "namespaces"}, "Namespace", 0, 3, 100),
		makeSection(r, archive.SectionOptions{Group: "apps", Version: "v1", Resource: "deployments"}, "Deployment", 2, 7, 900),
		makeSection(r, archive.SectionOptions{Group: "apps", Version: "v1beta1", Resource: "deployments"}, "Deployment", 2, 7, 900),
		{opts: archive.SectionOptions{Version: "v1", Resource: "endpoints"}},
	}}
	odd := sampleSection{opts: archive.SectionOptions{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}}
	for _, name := range oddNames() {
		ref := plugins.Ref{Group: odd.opts.Group, Version: "v1", Resource: "clusterroles", Name: name}
		odd.items = append(odd.items, sampleItem{archive.Row{Ref: ref, Kind: "ClusterRole"}, object(r, ref, "ClusterRole", 10)})
	}
	slices.SortFunc(odd.items, func(a, b sampleItem) int {
		if a.row.Name < b.row.Name {
			return -1
		}
		return 1
	})
	s.sections = append(s.sections, odd)
	s.apis = []archive.API{{Resource: "pods", Kind: "Pod", Namespaced: true, Versions: []string{"v1"}, Preferred: "v1", Archived: "v1"}}
	s.report.Skipped = []archive.Remark{{Ref: &plugins.Ref{Version: "v1", Resource: "events", Namespace: "a", Name: "b"}, Reason: "ExcludedByDefault", Message: "events are not kept"}}
	return s
}

// sampleVolumes are n volumes, in the order of their claims.
func sampleVolumes(n int) []archive.Volume {
	out := make([]archive.Volume, n)
	for i := range out {
		out[i] = archive.Volume{
			Namespace: "team-000", Claim: fmt.Sprintf("data-%03d", i), ClaimUID: fmt.Sprint("uid-", i), Volume: fmt.Sprint("pvc-", i), Provider: "ebs", Taken: testNow,
			Source: plugins.Volume{
				Handle: fmt.Sprintf("vol-%017x", i), SizeBytes: 10 << 30, Region: "eu-west-1", Zone: "eu-west-1a",
				Attributes: map[string]string{"type": "gp3", "iops": "3000"}, Tags: map[string]string{"team": "a"},
			},
			SnapshotID: fmt.Sprintf("snap-%017x", i),
		}
		if i%2 == 1 {
			out[i].CopyID, out[i].CopyKind = fmt.Sprintf("%032x", i), "blocks"
		}
	}
	return out
}

func oddNames() []string {
	long := ""
	for range 30 {
		long += "long-name-"
	}
	return []string{
		"system:controller:attachdetach", "a~b", "a b", "a\\b", "ümläut", "..a", "-", "x" + long, "y" + long, "x" + long + "z",
		"new\nline", "tab\t", "quote\"'", "*", "con", "a.json", "A", "a", "star*", "100%", "%41", "%zz",
	}
}

// writeOptions are complete options for a backup of the test.
func writeOptions(t testing.TB, name, uid string) archive.WriteOptions {
	t.Helper()
	return archive.WriteOptions{Name: name, UID: uid, SpoolDir: t.TempDir(), Concurrency: 2, Kedge: "v0.0.0-test", Now: now, Rand: rand.Reader}
}

// fill gives the sample to a writer, some sections at once.
func (s *sample) fill(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, sec := range s.sections {
		group.Go(func() error {
			out, err := w.Section(sec.opts)
			if err != nil {
				return err
			}
			for _, item := range sec.items {
				if err := out.Add(groupCtx, item.row, item.raw); err != nil {
					return err
				}
			}
			return out.Close(groupCtx)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	w.Log(ctx, slog.LevelInfo, "listed", slog.Int("sections", len(s.sections)))
	return &archive.Summary{
		Cluster: v1alpha1.ClusterInfo{UID: "cluster-uid", Name: "blue", Version: "v1.36.3"}, Phase: v1alpha1.PhaseCompleted,
		Revision: "4711", Started: testNow, APIs: s.apis, Report: s.report, Volumes: s.volumes, SnapshotPlaces: s.places, Labels: map[string]string{"schedule": "nightly"},
		Spec: v1alpha1.BackupSpec{StorageLocation: "main"},
	}, nil
}

func (s *sample) items() map[plugins.Ref]sampleItem {
	out := map[plugins.Ref]sampleItem{}
	for _, sec := range s.sections {
		for _, item := range sec.items {
			out[item.row.Ref] = item
		}
	}
	return out
}

// location is a fresh one on the store, with its keys.
func location(t testing.TB, store plugins.ObjectStore) (*archive.Location, *archive.Keys) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	l, keys, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return l, keys
}

// write makes a backup of the sample.
func write(t testing.TB, l *archive.Location, opts archive.WriteOptions, s *sample) *archive.Record {
	t.Helper()
	rec, err := l.Write(t.Context(), opts, s.fill)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func open(t testing.TB, l *archive.Location, keys *archive.Keys, name string) *archive.Reader {
	t.Helper()
	e, err := l.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenBackup(t.Context(), e, keys, archive.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// readAll reads the whole of a backup: rows and items, and checks that they agree.
func readEverything(ctx context.Context, r *archive.Reader) (map[plugins.Ref]sampleItem, error) {
	out := map[plugins.Ref]sampleItem{}
	byFrame := make([][]archive.Row, len(r.Record().Frames))
	err := r.Rows(ctx, nil, func(frame int, row archive.Row) error {
		byFrame[frame] = append(byFrame[frame], row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, rows := range byFrame {
		err := r.Read(ctx, i, rows, func(row archive.Row, raw []byte) error {
			out[row.Ref] = sampleItem{row, slices.Clone(raw)}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if _, err := r.Report(ctx); err != nil {
		return nil, err
	}
	if _, err := r.Volumes(ctx); err != nil {
		return nil, err
	}
	return out, r.Log(ctx, io.Discard)
}

// watched fills like fill and calls watch again and again.
func (s *sample) watched(watch func()) func(context.Context, *archive.Writer) (*archive.Summary, error) {
	return func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(4)
		for i, sec := range s.sections {
			group.Go(func() error {
				out, err := w.Section(sec.opts)
				if err != nil {
					return err
				}
				for j, item := range sec.items {
					if i == 0 && j%200 == 0 {
						watch()
					}
					if err := out.Add(groupCtx, item.row, item.raw); err != nil {
						return err
					}
				}
				return out.Close(groupCtx)
			})
		}
		return &archive.Summary{Phase: v1alpha1.PhaseCompleted, Started: testNow}, group.Wait()
	}
}

// quoted is s as JSON.
func quoted(s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return raw
}
