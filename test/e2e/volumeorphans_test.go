//go:build unix

package e2e_test

import (
	"encoding/json"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

// orphans lists what is orphaned, as "kind reason", and by it the ids.
func (w *volumeWorld) orphans(t *testing.T, args ...string) map[string]string {
	t.Helper()
	var list struct {
		Orphans []struct {
			Kind, ID, Reason string
			Created          time.Time
			SizeBytes        int64
		}
	}
	if err := json.Unmarshal([]byte(w.must(t, append([]string{"volume", "orphans", "-o", "json", "--kubeconfig", w.kubeconfig}, args...)...)), &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, o := range list.Orphans {
		if o.Created.IsZero() || o.SizeBytes != 1<<30 {
			t.Errorf("orphan %+v", o)
		}
		found[o.Kind+" "+o.Reason] = o.ID
	}
	return found
}

// TestVolumeOrphans finds and deletes a snapshot of a backup that never was, and the volume of a restored namespace that was deleted. What is in
// use stays.
func TestVolumeOrphans(t *testing.T) {
	w := newVolumeWorld(t)
	volume := w.cloud.CreateVolume(aws.VolumeSpec{})
	w.scribble(t, mathrand.New(mathrand.NewPCG(4, 6)), volume, 10)
	w.claim(t, "shop", "data", volume)
	w.handleOf(t, "shop", "data")
	w.must(t, "backup", "create", "good", "--volumes", "both", "--kubeconfig", w.kubeconfig)
	for _, namespace := range []string{"kept", "lost"} {
		w.must(t, "restore", "create", "--from-backup", "good", "--include-namespaces", "shop", "--namespace-mappings", "shop:"+namespace, "--kubeconfig", w.kubeconfig)
	}
	kept, lost := w.handleOf(t, "kept", "data"), w.handleOf(t, "lost", "data")
	w.lose(t, "lost")
	provider, err := ebs.New(w.cloud.Config("eu-west-1"), ebs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good := w.cloud.Snapshots()
	described, err := provider.DescribeSnapshots(t.Context(), good)
	if err != nil || len(good) != 1 {
		t.Fatalf("snapshots %v, %v", good, err)
	}
	tags := maps.Clone(described[good[0]].Tags)
	delete(tags, ebs.TokenTag)
	delete(tags, ebs.VolumesTag)
	tags["kedge.dev/backup-uid"] = "never-sealed"
	made, err := provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "crashed", Handles: []string{volume}, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	if young := w.orphans(t); len(young) > 0 {
		t.Errorf("what is young is orphaned: %v", young)
	}
	want := map[string]string{"snapshot NoBackup": made[0].ID, "volume NoPersistentVolume": lost}
	if found := w.orphans(t, "--older-than", "0s"); !maps.Equal(found, want) {
		t.Errorf("the orphans are %v, want %v", found, want)
	}
	w.exits(t, 2, "volume", "orphans", "--older-than", "0s", "--delete", "--kubeconfig", w.kubeconfig)
	w.orphans(t, "--older-than", "0s", "--delete", "--yes")
	if left := w.cloud.Snapshots(); !slices.Equal(left, good) {
		t.Errorf("the snapshots are %v, want %v", left, good)
	}
	delete(want, "snapshot NoBackup")
	if found := w.orphans(t, "--older-than", "0s", "--delete", "--volumes", "--yes"); !maps.Equal(found, want) {
		t.Errorf("the orphans are %v, want %v", found, want)
	}
	left, err := provider.Describe(t.Context(), []string{volume, kept, lost})
	if err != nil || len(left) != 2 || left[volume].Handle == "" || left[kept].Handle == "" {
		t.Errorf("the volumes are %v, %v", left, err)
	}
	if found := w.orphans(t, "--older-than", "0s", "--backups-only"); len(found) > 0 {
		t.Errorf("the orphans are %v", found)
	}
}
