package archive_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/bench/objects"
)

// benchCluster fills a backup with the benchmark's set of n objects, as a server stores and lists them.
type benchCluster struct {
	n        int
	sections map[string]*archive.Section // by the path of the collection
	rand     *mathrand.Rand
}

// fill adds the objects namespace by namespace; sections rise in the order of their keys.
func (c *benchCluster) fill(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
	c.rand = mathrand.New(mathrand.NewPCG(uint64(c.n), 3))
	c.sections = map[string]*archive.Section{}
	if err := c.add(ctx, w, []objects.Object{objects.Definition()}); err != nil {
		return nil, err
	}
	perNamespace := c.n / objects.Namespaces(c.n)
	for ns := range objects.Namespaces(c.n) {
		made := []objects.Object{objects.Namespace(ns)}
		for k := 1; k < perNamespace; k++ {
			made = append(made, objects.At(ns*perNamespace+k))
		}
		if err := c.add(ctx, w, made); err != nil {
			return nil, err
		}
	}
	for _, section := range c.sections {
		if err := section.Close(ctx); err != nil {
			return nil, err
		}
	}
	return &archive.Summary{Phase: v1alpha1.PhaseCompleted, Started: testNow}, nil
}

func (c *benchCluster) add(ctx context.Context, w *archive.Writer, made []objects.Object) error {
	type listed struct {
		row archive.Row
		raw []byte
	}
	var all []listed
	for _, o := range made {
		row, raw, err := c.stored(o)
		if err != nil {
			return err
		}
		all = append(all, listed{row, raw})
	}
	slices.SortFunc(all, func(a, b listed) int { return cmp.Compare(a.row.Name, b.row.Name) })
	for _, o := range all {
		id := o.row.GroupResource()
		if c.sections[id] == nil {
			section, err := w.Section(archive.SectionOptions{Group: o.row.Group, Version: o.row.Version, Resource: o.row.Resource, Sorted: true})
			if err != nil {
				return err
			}
			c.sections[id] = section
		}
		if err := c.sections[id].Add(ctx, o.row, o.raw); err != nil {
			return err
		}
	}
	return nil
}

// stored is an object as a server keeps it, and its row.
func (c *benchCluster) stored(o objects.Object) (archive.Row, []byte, error) {
	var head struct {
		APIVersion, Kind string
		Metadata         struct {
			Namespace, Name string
			Labels          map[string]string
		}
	}
	if err := json.Unmarshal(o.Body, &head); err != nil {
		return archive.Row{}, nil, err
	}
	group, version, found := strings.Cut(head.APIVersion, "/")
	if !found {
		group, version = "", head.APIVersion
	}
	row := archive.Row{
		Ref:  plugins.Ref{Group: group, Version: version, Resource: path.Base(o.Path), Namespace: head.Metadata.Namespace, Name: head.Metadata.Name},
		Kind: head.Kind, UID: fakeUUID(c.rand), Labels: head.Metadata.Labels,
	}
	served := fmt.Sprintf(`"metadata":{"uid":%q,"resourceVersion":"%d","creationTimestamp":"2026-05-04T03:02:01Z","managedFields":[{"manager":"bench","operation":"Update","apiVersion":%q,"time":"2026-05-04T03:02:01Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:bench.kedge.dev/owner":{},"f:meta.helm.sh/release-name":{}},"f:labels":{".":{},"f:app.kubernetes.io/instance":{},"f:app.kubernetes.io/name":{},"f:app.kubernetes.io/part-of":{}}}}}],`,
		row.UID, c.rand.IntN(1<<20), head.APIVersion)
	return row, bytes.Replace(o.Body, []byte(`"metadata":{`), []byte(served), 1), nil
}

// TestNamespaceReadsOfLargeCluster restores one namespace of 100,000 objects as a restore reads it, with the opening of the backup, and
// counts the bytes that the store hands out: at most one and a half times the frames that hold its objects, its Namespace and the
// definition of its custom resources, with their shards. The last namespace lies in what is left over at the end of each section: small
// frames, of which a chunk is more than half empty; there the bytes are fewer than for the others, though the ratio is not.
func TestNamespaceReadsOfLargeCluster(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	c := &benchCluster{n: 100_000}
	rec, err := l.Write(t.Context(), writeOptions(t, "large", "uid"), c.fill)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects in %d frames, %d bytes stored", rec.Counts.Items, len(rec.Frames), rec.StoredBytes())
	for i := range rec.Frames {
		if f := &rec.Frames[i]; f.Items > 1000 || f.Index.Size > 64<<10 {
			t.Errorf("frame %d has %d items, its shard %d bytes", i, f.Items, f.Index.Size)
		}
	}
	res, err := archive.Verify(t.Context(), l, find(t, l, "large"), keys, archive.VerifyOptions{Deep: true})
	if err != nil || !res.OK() {
		t.Errorf("deep verify says %+v, %v", res, err)
	}
	store.reads = map[string]int64{}
	most, last := int64(0), objects.Namespaces(c.n)-1
	for _, i := range []int{0, 1, 17, 499, 1000, 1234, 1777, last} {
		namespace := fmt.Sprintf("%s%05d", objects.Prefix, i)
		clear(store.reads)
		asked := readNamespace(t, open(t, l, keys, "large"), namespace)
		read := int64(0)
		for key, n := range store.reads {
			if strings.HasPrefix(key, "backups/") {
				read += n
			}
		}
		ratio := float64(read) / float64(asked)
		t.Logf("%s: %d bytes asked for, %d read: %.2f", namespace, asked, read, ratio)
		switch {
		case i == last && read <= most:
		case i < last && ratio <= 1.5:
			most = max(most, read)
		default:
			t.Errorf("%s: the ratio is %.2f, of these files: %v", namespace, ratio, store.reads)
		}
	}
}

// readNamespace reads what a restore of the namespace needs, and gives the size of the frames and shards that hold it.
func readNamespace(t *testing.T, r *archive.Reader, namespace string) int64 {
	t.Helper()
	definition := func(row *archive.Row) bool {
		return row.Resource == "customresourcedefinitions" && row.Name == objects.DefinitionName
	}
	holding, found := map[int]bool{}, 0
	err := r.Rows(t.Context(), func(f *archive.Frame) bool {
		return f.MayHold(namespace) || f.Resource == "namespaces" && f.MayHoldKey(namespace) || f.Resource == "customresourcedefinitions"
	}, func(frame int, row archive.Row) error {
		if row.Namespace == namespace || row.Resource == "namespaces" && row.Name == namespace || definition(&row) {
			holding[frame] = true
			found++
		}
		return nil
	})
	if err != nil || found != 51 {
		t.Fatalf("%s: %d objects found, %v", namespace, found, err)
	}
	size := int64(0)
	for i := range r.Record().Frames {
		if !holding[i] {
			continue
		}
		f := r.Record().Frames[i]
		size += f.Size + f.Index.Size
		if err := r.Items(t.Context(), i, nothing); err != nil {
			t.Fatal(err)
		}
	}
	return size
}
