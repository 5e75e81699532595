//go:build unix

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/test/aws"
)

const (
	vault     = "444455556666"
	farRegion = "eu-central-1"
)

// move has the commands that follow work in another place of AWS.
func (w *volumeWorld) move(account, region string) {
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "AWS_") })
	for name, value := range w.cloud.EnvironmentOf(account, region) {
		w.env = append(w.env, name+"="+value)
	}
}

// places are where the snapshots of the double are: "region account", with their keys.
func (w *volumeWorld) places() map[string][]string {
	found := map[string][]string{}
	for _, id := range w.cloud.Snapshots() {
		region, account, key := w.cloud.SnapshotPlace(id)
		found[region+" "+account] = append(found[region+" "+account], key)
	}
	return found
}

// TestSnapshotCopies backs up an encrypted volume with copies of its snapshot in another region and in another account, loses namespace, volume and
// snapshot, and gets every byte back: in the other region from the copy there, and as the other account from its own.
func TestSnapshotCopies(t *testing.T) {
	w := newVolumeWorld(t)
	r := mathrand.New(mathrand.NewPCG(4, 9))
	home := w.cloud.CreateKeyIn("eu-west-1", aws.HomeAccount, vault)
	farKey, vaultKey, third := w.cloud.CreateKeyIn(farRegion, aws.HomeAccount), w.cloud.CreateKeyIn(farRegion, vault), w.cloud.CreateKeyIn(farRegion, vault)
	role := w.cloud.CreateRoleIn(vault, "kedge-copies", "kedge")
	volume := w.cloud.CreateVolume(aws.VolumeSpec{KMSKeyID: home})
	w.scribble(t, r, volume, 40)
	w.claim(t, "shop", "data", volume)
	w.handleOf(t, "shop", "data")
	want := w.digest(t, volume)
	w.cloud.ResetUsage()
	w.must(t, "backup", "create", "good", "--volumes", "snapshot", "--kubeconfig", w.kubeconfig,
		"--snapshot-copy", "region="+farRegion+",kms-key="+farKey, "--snapshot-copy", "region="+farRegion+",role="+role+",external-id=kedge,kms-key="+vaultKey)
	// What is called there as the role is called here too, but for the deletion.
	w.follows(t, "copies of snapshots", w.allowed(t, "--volumes", "snapshot", "--volume-kms-key", home, "--snapshot-copies", "--snapshot-copy-kms-key", farKey, "--snapshot-copy-role", role))
	have := w.places()
	for place, key := range map[string]string{"eu-west-1 " + aws.HomeAccount: home, farRegion + " " + aws.HomeAccount: farKey, farRegion + " " + vault: vaultKey} {
		if !slices.Equal(have[place], []string{key}) {
			t.Errorf("in %s there are snapshots with the keys %v, want %s", place, have[place], key)
		}
	}
	var list struct {
		Volumes []struct {
			SnapshotID     string
			SnapshotCopies []struct{ ID, Region, Account, KMSKeyID string }
		}
	}
	if err := json.Unmarshal([]byte(w.must(t, "volume", "list", "--from-backup", "good", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Volumes) != 1 || len(list.Volumes[0].SnapshotCopies) != 2 || list.Volumes[0].SnapshotCopies[1].Account != vault || list.Volumes[0].SnapshotCopies[0].KMSKeyID != farKey {
		t.Fatalf("the backup has %+v", list.Volumes)
	}
	snapshot := list.Volumes[0].SnapshotID
	if w.cloud.Shared(snapshot, vault) {
		t.Error("the snapshot is shared still")
	}
	if out := w.must(t, "backup", "describe", "good"); !strings.Contains(out, list.Volumes[0].SnapshotCopies[1].ID+" in "+farRegion+" of account "+vault) {
		t.Errorf("the description has no copies:\n%s", out)
	}

	w.lose(t, "shop")
	restore := []string{"restore", "create", "--from-backup", "good", "--include-namespaces", "shop", "--kubeconfig", w.kubeconfig, "--zone-mappings", "eu-west-1a:" + farRegion + "a"}
	w.move(aws.HomeAccount, "us-east-1")
	if _, stderr, code := w.kedge(t.Context(), restore...); code != 3 || !strings.Contains(stderr, farRegion+" of account "+vault) {
		t.Errorf("a restore where no snapshot is ended with %d: %s", code, stderr)
	}
	w.lose(t, "shop")
	for account, key := range map[string]string{aws.HomeAccount: farKey, vault: vaultKey} {
		w.move(account, farRegion)
		w.must(t, restore...)
		w.restored(t, want, key)
		w.lose(t, "shop")
	}
	w.move(vault, farRegion) // whose key the third is
	w.must(t, append(restore, "--kms-key-mappings", home+"="+third)...)
	w.restored(t, want, third)

	w.move(aws.HomeAccount, "eu-west-1")
	w.must(t, "backup", "delete", "good", "--yes")
	if left := w.cloud.Snapshots(); len(left) > 0 {
		t.Errorf("the backup is deleted, but not its snapshots %v in %v", left, w.places())
	}
}

// restored looks at the volume of the restored claim: where it is, its bytes, its key.
func (w *volumeWorld) restored(t *testing.T, want []byte, key string) {
	t.Helper()
	handle := w.handleOf(t, "shop", "data")
	region, _, has := w.cloud.VolumePlace(handle)
	if region != farRegion || has != key {
		t.Errorf("the volume %s is in %s and has the key %s, want %s", handle, region, has, key)
	}
	if !bytes.Equal(w.digest(t, handle), want) {
		t.Error("the volume has other bytes than the backup")
	}
}

// TestSnapshotCopyFails makes a backup one of whose copies cannot be made, which keeps the rest, and one that is killed while a copy is asked for, of which
// everything is found and removed.
func TestSnapshotCopyFails(t *testing.T) {
	w := newVolumeWorld(t)
	volume := w.cloud.CreateVolume(aws.VolumeSpec{})
	w.scribble(t, mathrand.New(mathrand.NewPCG(4, 10)), volume, 10)
	w.claim(t, "shop", "data", volume)
	w.handleOf(t, "shop", "data")
	create := []string{"backup", "create", "--volumes", "snapshot", "--kubeconfig", w.kubeconfig, "--snapshot-copy", "region=" + farRegion}
	w.exits(t, 3, append(create, "partial", "--snapshot-copy", "region=us-east-1,role=arn:aws:iam::"+vault+":role/none")...)
	if out := w.must(t, "backup", "describe", "partial"); !strings.Contains(out, "SnapshotCopyFailed") || !strings.Contains(out, "role/none") || !strings.Contains(out, " in "+farRegion) {
		t.Errorf("the description is\n%s", out)
	}
	partial := w.cloud.Snapshots()
	if len(partial) != 2 {
		t.Fatalf("the backup has the snapshots %v", partial)
	}
	w.exits(t, 2, append(create, "same", "--snapshot-copy", "region="+farRegion)...)
	w.exits(t, 2, append(create, "odd", "--snapshot-copy", "region="+farRegion+",key=x")...)

	ctx, cancel := context.WithCancel(t.Context())
	w.cloud.Inject(aws.Fault{Op: "CopySnapshot", Before: func() { cancel(); time.Sleep(time.Second) }})
	if _, _, code := w.kedge(ctx, append(create, "killed")...); code == 0 {
		t.Fatal("the backup was not killed")
	}
	until(t, "the copy is made", func() bool { return len(w.cloud.Snapshots()) == 4 })
	// The place of the partial backup is the killed one's. What is new may not be shown at once.
	until(t, "what the killed backup has left is removed", func() bool {
		w.must(t, "volume", "orphans", "--older-than", "0s", "--backups-only", "--delete", "--yes")
		return slices.Equal(w.cloud.Snapshots(), partial)
	})
	// A role that is not there keeps the deletion open; nothing is forgotten.
	if _, stderr, code := w.kedge(t.Context(), "backup", "delete", "partial", "--yes"); code == 0 || !strings.Contains(stderr, "role/none") {
		t.Errorf("the deletion ended with %d: %s", code, stderr)
	}
	w.cloud.CreateRoleIn(vault, "none", "")
	w.must(t, "backup", "delete", "partial", "--yes")
	if left := w.cloud.Snapshots(); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}
