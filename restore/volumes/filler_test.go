package volumes_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/restore/volumes"
	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
)

// world is an encrypted volume of eu-west-1a with something in it, of which there are a snapshot and a copy.
type world struct {
	cloud *aws.Cloud
	store plugins.ObjectStore
	row   archive.Volume
	want  []byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: t.TempDir()}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{cloud: aws.New(t, aws.Options{SnapshotPolls: 1, VolumePolls: 1}), store: store}
	handle := w.cloud.CreateVolume(aws.VolumeSpec{KMSKeyID: w.cloud.CreateKey()})
	w.scribble(t, handle)
	w.want = digest(t, w.cloud.VolumeFile(handle))
	provider := w.provider(t, "eu-west-1")
	found, err := provider.Describe(t.Context(), []string{handle})
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "t", Handles: []string{handle}})
	if err != nil {
		t.Fatal(err)
	}
	for snaps[0].State != plugins.SnapshotCompleted {
		states, err := provider.DescribeSnapshots(t.Context(), []string{snaps[0].ID})
		if err != nil {
			t.Fatal(err)
		}
		snaps[0] = states[snaps[0].ID]
	}
	source, err := provider.OpenBlocks(t.Context(), snaps[0].ID, "")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := w.repository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copied, err := block.Copy(t.Context(), repo, source, block.Request{Volume: repository.Volume{Cluster: "c", Provider: ebs.Name, Handle: handle}, Snapshot: snaps[0].ID}, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.row = archive.Volume{
		Namespace: "shop", Claim: "data", Volume: "pv", Provider: ebs.Name, Source: found[handle],
		SnapshotID: snaps[0].ID, CopyID: copied.Copy.ID, CopyKind: block.Kind,
	}
	return w
}

func (w *world) provider(t *testing.T, region string) *ebs.Provider {
	t.Helper()
	p, err := ebs.New(w.cloud.Config(region), ebs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// repository opens the repository with a key that hides nothing.
func (w *world) repository(ctx context.Context) (*repository.Repository, error) {
	plain := func(b []byte) ([]byte, error) { return b, nil }
	return repository.Connect(ctx, w.store, repository.Keys{Seal: plain, Open: plain, Random: rand.Reader}, repository.CreateOptions{Layout: repository.LayoutFolder}, repository.Options{})
}

func (w *world) scribble(t *testing.T, handle string) {
	t.Helper()
	f, err := os.OpenFile(w.cloud.VolumeFile(handle), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, piece := mathrand.New(mathrand.NewPCG(1, 9)), make([]byte, 4096)
	for range 20 {
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(piece, r.Int64N(1<<18)*4096); err != nil {
			t.Fatal(err)
		}
	}
}

func digest(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

// TestFill makes volumes where the target can use them: from the snapshot in the same region, from the copy elsewhere.
func TestFill(t *testing.T) {
	w := newWorld(t)
	cases := map[string]struct {
		region string
		zones  []string
		mapped map[string]string
		change func(*archive.Volume)
		zone   string // where the new volume is
		from   string
	}{
		"same zone":            {region: "eu-west-1", zones: []string{"eu-west-1a", "eu-west-1b"}, zone: "eu-west-1a", from: "snapshot "},
		"zones are not known":  {region: "eu-west-1", zone: "eu-west-1a", from: "snapshot "},
		"no machines there":    {region: "eu-west-1", zones: []string{"eu-west-1c", "eu-west-1b"}, zone: "eu-west-1b", from: "snapshot "},
		"the user says so":     {region: "eu-west-1", zones: []string{"eu-west-1a"}, mapped: map[string]string{"eu-west-1a": "eu-west-1c"}, zone: "eu-west-1c", from: "snapshot "},
		"the snapshot is gone": {region: "eu-west-1", change: func(v *archive.Volume) { v.SnapshotID = "snap-0123456789abcdef0" }, zone: "eu-west-1a", from: "copy "},
		"another region":       {region: "us-east-1", zones: []string{"us-east-1b"}, zone: "us-east-1b", from: "copy "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			provider := w.provider(t, c.region)
			f := &volumes.Filler{Providers: []plugins.VolumeProvider{provider}, Repository: w.repository, Zones: c.zones, MapZones: c.mapped}
			row := w.row
			if c.change != nil {
				c.change(&row)
			}
			pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: row.Source.Handle},
			}}}
			before := w.cloud.Snapshots()
			req := volumes.Request{Token: name, Row: row, Tags: map[string]string{volumes.TagUID: name}}
			made, from, err := f.Fill(t.Context(), req, pv)
			if err != nil {
				t.Fatal(err)
			}
			if made.Zone != c.zone || !strings.HasPrefix(from, c.from) || pv.Spec.CSI.VolumeHandle != made.Handle || made.Attributes["encrypted"] != "true" {
				t.Errorf("%+v from %q, handle %s", made, from, pv.Spec.CSI.VolumeHandle)
			}
			if !bytes.Equal(digest(t, w.cloud.VolumeFile(made.Handle)), w.want) {
				t.Error("the new volume has other bytes")
			}
			if again, _, err := f.Fill(t.Context(), req, pv.DeepCopy()); err != nil || again.Handle != made.Handle {
				t.Errorf("the same token makes %s after %s: %v", again.Handle, made.Handle, err)
			}
			if err := f.Finish(t.Context(), name); err != nil {
				t.Error(err)
			}
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if after := w.cloud.Snapshots(); !slices.Equal(before, after) {
				t.Errorf("snapshots %v became %v", before, after)
			}
		})
	}
}

// TestFillFromCopiedSnapshot makes volumes of the copy of the snapshot that is where the restore runs, under its key or the one that is mapped. Where there
// is none, and no copy in the location, the error says what there is.
func TestFillFromCopiedSnapshot(t *testing.T) {
	w := newWorld(t)
	const region, vault = "eu-central-1", "444455556666"
	key, third := w.cloud.CreateKeyIn(region, aws.HomeAccount), w.cloud.CreateKeyIn(region, aws.HomeAccount)
	made, err := w.provider(t, "eu-west-1").CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{Token: "c", SnapshotID: w.row.SnapshotID, To: plugins.Place{Region: region}, KMSKeyID: key})
	if err != nil {
		t.Fatal(err)
	}
	row := w.row
	row.SnapshotCopies = []archive.SnapshotCopy{{ID: "snap-0123456789abcdef0", Region: region, Account: vault}, {ID: made.ID, Region: region, Account: made.Account, KMSKeyID: key}}
	row.CopyID, row.CopyKind = "", ""
	old := row.Source.Attributes[plugins.AttributeKey]
	for name, c := range map[string]struct {
		region string
		mapped map[string]string
		unsaid bool // the copy's key
		key    string
		from   string
		err    string
	}{
		"the copy's key":                        {region: region, key: key, from: "the copied snapshot " + made.ID},
		"the copy's key, which no record names": {region: region, unsaid: true, key: key, from: "the copied snapshot " + made.ID},
		"a mapped key":                          {region: region, mapped: map[string]string{old: third}, key: third, from: "the copied snapshot " + made.ID},
		"at home":                               {region: "eu-west-1", key: old, from: "snapshot " + row.SnapshotID},
		"where no copy is":                      {region: "us-east-1", err: made.ID + " in " + region + " of account " + aws.HomeAccount},
		"the snapshot is named as well":         {region: "us-east-1", err: row.SnapshotID + " in eu-west-1"},
		"and the other account's as well":       {region: "us-east-1", err: "snap-0123456789abcdef0 in " + region + " of account " + vault},
	} {
		f := &volumes.Filler{Providers: []plugins.VolumeProvider{w.provider(t, c.region)}, Zones: []string{c.region + "a"}}
		row.SnapshotCopies[1].KMSKeyID = key
		if c.unsaid {
			row.SnapshotCopies[1].KMSKeyID = ""
		}
		f.MapKeys = func(key string) (string, bool) { to, ok := c.mapped[key]; return to, ok }
		pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: row.Source.Handle},
		}}}
		filled, from, err := f.Fill(t.Context(), volumes.Request{Token: name, Row: row, Tags: map[string]string{volumes.TagUID: name}}, pv)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: the error is %v, want %q", name, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case !strings.HasPrefix(from, c.from) || filled.Attributes[plugins.AttributeKey] != c.key || !bytes.Equal(digest(t, w.cloud.VolumeFile(filled.Handle)), w.want):
			t.Errorf("%s: %+v of %s", name, filled, from)
		}
	}
	if row.Source.Attributes[plugins.AttributeKey] != old {
		t.Error("the row's attributes were changed")
	}
}
