package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
)

// checkSame compares what was read with what was written.
func checkSame(t *testing.T, want, got map[plugins.Ref]sampleItem) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%d items read, %d written", len(got), len(want))
	}
	for ref, w := range want {
		g, ok := got[ref]
		if !ok {
			t.Errorf("%s is missing", ref)
			continue
		}
		if !bytes.Equal(w.raw, g.raw) {
			t.Errorf("%s: other bytes", ref)
		}
		w.row.SHA256, w.row.Size = g.row.SHA256, int64(len(w.raw))
		if diff := cmp.Diff(w.row, g.row); diff != "" {
			t.Errorf("%s: row (-want +got):\n%s", ref, diff)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	stores := map[string]plugins.ObjectStore{"memory": newMemory()}
	folder, err := file.New(v1alpha1.FileLocation{Path: t.TempDir()}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stores["file"] = folder
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			l, keys := location(t, store)
			s := smallSample(1)
			s.volumes = sampleVolumes(3)
			rec := write(t, l, writeOptions(t, "first", "uid-1"), s)
			if rec.Counts.Items != len(s.items()) || rec.Counts.Skipped != 1 {
				t.Errorf("counts %+v", rec.Counts)
			}
			r := open(t, l, keys, "first")
			got, err := readEverything(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			checkSame(t, s.items(), got)
			if diff := cmp.Diff(s.apis, r.Record().APIs); diff != "" {
				t.Errorf("APIs (-want +got):\n%s", diff)
			}
			for ref, item := range s.items() {
				raw, err := r.Item(t.Context(), ref)
				if err != nil || !bytes.Equal(raw, item.raw) {
					t.Errorf("item %s: %v", ref, err)
				}
			}
			if _, err := r.Item(t.Context(), plugins.Ref{Version: "v1", Resource: "pods", Namespace: "team-001", Name: "nobody"}); !errors.Is(err, archive.ErrItemNotFound) {
				t.Errorf("missing item: %v", err)
			}
			rep, err := r.Report(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&s.report, rep); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			volumes, err := r.Volumes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.volumes, volumes); diff != "" || rec.Counts.Volumes != len(volumes) || rec.Counts.VolumeBytes != 30<<30 {
				t.Errorf("counts %+v, volumes (-want +got):\n%s", rec.Counts, diff)
			}
			var log strings.Builder
			if err := r.Log(t.Context(), &log); err != nil || !strings.Contains(log.String(), `"msg":"listed"`) {
				t.Errorf("log %q: %v", log.String(), err)
			}
			verifyOK(t, l, keys, "first", len(s.items()))
		})
	}
}

func verifyOK(t *testing.T, l *archive.Location, keys *archive.Keys, name string, items int) {
	t.Helper()
	e, err := l.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var last, total int64
	for _, opts := range []archive.VerifyOptions{{}, {Deep: true, OnProgress: func(d, n int64) { last, total = max(last, d), n }, Concurrency: 1}} {
		res, err := archive.Verify(t.Context(), l, e, keys, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.Problems {
			t.Errorf("verify %+v: %s", opts.Deep, p)
		}
		if opts.Deep && res.Items != items {
			t.Errorf("verify saw %d of %d items", res.Items, items)
		}
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
}

// TestEmptyBackup seals a backup of nothing.
func TestEmptyBackup(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	write(t, l, writeOptions(t, "empty", "uid-0"), &sample{})
	r := open(t, l, keys, "empty")
	if got, err := readEverything(t.Context(), r); err != nil || len(got) != 0 {
		t.Errorf("%d items, %v", len(got), err)
	}
	verifyOK(t, l, keys, "empty", 0)
}

// bigSample has sections of many frames.
func bigSample(seed uint64, perSection int) *sample {
	r := mathrand.New(mathrand.NewPCG(seed, 2))
	return &sample{sections: []sampleSection{
		makeSection(r, archive.SectionOptions{Version: "v1", Resource: "configmaps", Sorted: true}, "ConfigMap", 40, perSection, 1500),
		makeSection(r, archive.SectionOptions{Version: "v1", Resource: "pods", Sorted: true}, "Pod", 40, perSection, 3000),
		makeSection(r, archive.SectionOptions{Group: "apps", Version: "v1", Resource: "replicasets", Sorted: true}, "ReplicaSet", 40, perSection, 2000),
		makeSection(r, archive.SectionOptions{Version: "v1", Resource: "nodes", Sorted: true}, "Node", 0, perSection/10, 4000),
	}, volumes: sampleVolumes(perSection)}
}

// plaintexts decrypts the files of a backup whose bytes depend on its content alone.
func plaintexts(t *testing.T, store *memory, keys *archive.Keys, rec *archive.Record) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range []string{archive.FileItems, archive.FileIndex, archive.FileTable} {
		out[name] = decrypt(t, store.objects["backups/"+rec.Name+"/"+rec.UID+"/"+rec.Attempt+"/"+name], keys)
	}
	return out
}

func decrypt(t *testing.T, sealed []byte, keys *archive.Keys) []byte {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(sealed), keys.Identity())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// TestDeterministic writes the same objects in different orders, by different numbers of goroutines, sorted by the caller or by the
// writer: the plaintext is the same, byte for byte.
func TestDeterministic(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	s := bigSample(3, 1500)
	var want map[string][]byte
	for i, uid := range []string{"a", "b", "c", "d"} {
		opts := writeOptions(t, "same", uid)
		opts.Concurrency = 1 + i
		r := mathrand.New(mathrand.NewPCG(uint64(i), 3))
		if i > 0 {
			r.Shuffle(len(s.sections), func(a, b int) { s.sections[a], s.sections[b] = s.sections[b], s.sections[a] })
		}
		for j := range s.sections {
			s.sections[j].opts.Sorted = i < 2
			if items := s.sections[j].items; i >= 2 {
				r.Shuffle(len(items), func(a, b int) { items[a], items[b] = items[b], items[a] })
			}
		}
		got := plaintexts(t, store, keys, write(t, l, opts, s))
		if want == nil {
			want = got
		}
		for name := range want {
			if !bytes.Equal(want[name], got[name]) {
				t.Errorf("run %d: %s differs", i, name)
			}
		}
	}
}

// TestRealTar opens the decrypted file with the system's tar and zstd, and unpacks it.
func TestRealTar(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	s := bigSample(4, 700)
	s.sections = append(s.sections, smallSample(4).sections[5])
	rec := write(t, l, writeOptions(t, "tar", "uid-1"), s)
	dir := t.TempDir()
	plain := filepath.Join(dir, "items.tar.zst")
	if err := os.WriteFile(plain, plaintexts(t, store, keys, rec)[archive.FileItems], 0o600); err != nil {
		t.Fatal(err)
	}
	list := runTar(t, plain, "-t")
	names := strings.Split(strings.TrimSpace(list), "\n")
	if len(names) != rec.Counts.Items {
		t.Errorf("tar lists %d of %d items", len(names), rec.Counts.Items)
	}
	if !slices.Contains(names, "resources/replicasets.apps/v1/team-001/replicasets-00001.json") || !slices.Contains(names, "resources/clusterroles.rbac.authorization.k8s.io/v1/_cluster/system:controller:attachdetach.json") {
		t.Errorf("tar lists %q …", names[:3])
	}
	runTar(t, plain, "-x", "-C", dir)
	for _, item := range s.sections[1].items {
		raw, err := os.ReadFile(filepath.Join(dir, "resources/pods/v1", item.row.Namespace, item.row.Name+".json"))
		if err != nil || !bytes.Equal(raw, item.raw) {
			t.Fatalf("unpacked %s: %v", item.row.Ref, err)
		}
	}
}

// runTar runs tar on a .tar.zst. Where the zstd program that tar needs is missing, the bytes are decompressed by the
// library and piped in.
func runTar(t *testing.T, archiveFile string, args ...string) string {
	t.Helper()
	tarProgram, err := exec.LookPath("tar")
	if err != nil {
		t.Fatal("this test needs the program tar:", err)
	}
	var cmd *exec.Cmd
	if _, err := exec.LookPath("zstd"); err == nil {
		cmd = exec.CommandContext(t.Context(), tarProgram, append([]string{"--zstd", "-f", archiveFile}, args...)...)
	} else {
		t.Log("the program zstd is missing: tar gets the decompressed stream")
		f, err := os.Open(archiveFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		dec, err := zstd.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		cmd = exec.CommandContext(t.Context(), tarProgram, append([]string{"-f", "-"}, args...)...)
		cmd.Stdin = dec
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.String())
	}
	return string(out)
}

// TestSectionAbort drops what a section held, and lets it be filled anew.
func TestSectionAbort(t *testing.T) {
	l, keys := location(t, newMemory())
	s := smallSample(5)
	big := bigSample(5, 1200).sections[1]
	_, err := l.Write(t.Context(), writeOptions(t, "repinned", "uid-1"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		for _, closed := range []bool{false, true} {
			out, err := w.Section(archive.SectionOptions{Version: "v1", Resource: "pods", Sorted: true})
			if err != nil {
				return nil, err
			}
			for _, item := range big.items {
				if err := out.Add(ctx, item.row, item.raw); err != nil {
					return nil, err
				}
			}
			if closed {
				if err := out.Close(ctx); err != nil {
					return nil, err
				}
			}
			out.Abort()
			if n, size := w.Stored(); n != 0 || size != 0 {
				t.Errorf("after an abort %d items of %d bytes are left", n, size)
			}
		}
		return s.fill(ctx, w)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := readEverything(t.Context(), open(t, l, keys, "repinned"))
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, s.items(), got)
}
