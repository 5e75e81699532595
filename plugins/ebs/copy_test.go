package ebs_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

// taken makes a completed snapshot of a volume that the key encrypts.
func taken(t *testing.T, cloud *aws.Cloud, clock *clock, p *ebs.Provider, key string) string {
	t.Helper()
	made, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "source of " + key, Handles: []string{cloud.CreateVolume(aws.VolumeSpec{KMSKeyID: key})}})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_ = clock.Sleep(t.Context(), time.Second)
		if _, err := p.DescribeSnapshots(t.Context(), []string{made[0].ID}); err != nil {
			t.Fatal(err)
		}
	}
	return made[0].ID
}

// TestSharing copies an encrypted snapshot into another account: it is shared while the copy is made and no longer, also where that fails.
func TestSharing(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now, SnapshotPolls: 3, DescribeLag: 1})
	p := open(t, cloud, clock)
	id := taken(t, cloud, clock, p, cloud.CreateKeyIn(cloud.Region(), aws.HomeAccount, vault))
	to := plugins.Place{Region: "eu-central-1", RoleARN: cloud.CreateRoleIn(vault, "copies", "")}
	key := cloud.CreateKeyIn("eu-central-1", vault)
	shared := false
	made, err := p.CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{
		Token: "a", SnapshotID: id, To: to, KMSKeyID: key, Progress: func(int) { shared = shared || cloud.Shared(id, vault) },
	})
	if err != nil || !shared || made.Account != vault || made.KMSKeyID != key {
		t.Errorf("the copy is %+v, %v; shared %v", made, err, shared)
	}
	locked := taken(t, cloud, clock, p, cloud.CreateKey())
	_, err = p.CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{Token: "b", SnapshotID: locked, To: to, KMSKeyID: key})
	if err == nil || !strings.Contains(err.Error(), "not accessible") || !strings.Contains(err.Error(), "key of the snapshot") {
		t.Errorf("with a key that the account may not use: %v", err)
	}
	for _, snapshot := range []string{id, locked} {
		if cloud.Shared(snapshot, vault) {
			t.Errorf("%s is shared still", snapshot)
		}
	}
	if n := len(cloud.Snapshots()); n != 3 {
		t.Errorf("%d snapshots", n)
	}
}

// TestSharingWithTwoPlaces: two places are in one account, and one copy ends while the other is made: the snapshot stays shared until both are. Where
// somebody else has ended the sharing, it is shared again.
func TestSharingWithTwoPlaces(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now, SnapshotPolls: 3, DescribeLag: 1})
	p := open(t, cloud, clock)
	id := taken(t, cloud, clock, p, cloud.CreateKeyIn(cloud.Region(), aws.HomeAccount, vault))
	role := cloud.CreateRoleIn(vault, "copies", "")
	request := func(region string, progress func(int)) plugins.SnapshotCopyRequest {
		return plugins.SnapshotCopyRequest{
			Token: region, SnapshotID: id, To: plugins.Place{Region: region, RoleARN: role}, KMSKeyID: cloud.CreateKeyIn(region, vault), Progress: progress,
		}
	}
	other, shared := false, false
	_, err := p.CopySnapshot(t.Context(), request("eu-central-1", func(int) {
		if other {
			return
		}
		other = true
		if _, err := p.CopySnapshot(t.Context(), request("us-east-1", nil)); err != nil {
			t.Error(err)
		}
		shared = cloud.Shared(id, vault)
	}))
	if err != nil || !other || !shared || cloud.Shared(id, vault) {
		t.Errorf("%v; shared while the first copy was made: %v, after both: %v", err, shared, cloud.Shared(id, vault))
	}
	cloud.ResetUsage()
	cloud.Inject(aws.Fault{Op: "CopySnapshot", Code: "InvalidSnapshot.NotFound"})
	if _, err := p.CopySnapshot(t.Context(), request("us-west-2", nil)); err != nil || cloud.Usage().Calls["ModifySnapshotAttribute"] != 3 {
		t.Errorf("%v; calls %v", err, cloud.Usage().Calls)
	}
}

// TestDefaultKeyIsNotShared: what aws/ebs encrypts can go to another region, never to another account; the error says what to do.
func TestDefaultKeyIsNotShared(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now})
	p := open(t, cloud, clock)
	id := taken(t, cloud, clock, p, "arn:aws:kms:eu-west-1:"+aws.HomeAccount+":key/aws-ebs")
	if _, err := p.CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{Token: "a", SnapshotID: id, To: plugins.Place{Region: "eu-central-1"}}); err != nil {
		t.Error(err)
	}
	_, err := p.CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{Token: "b", SnapshotID: id, To: plugins.Place{Region: "eu-central-1", RoleARN: cloud.CreateRoleIn(vault, "copies", "")}})
	if !errors.Is(err, plugins.ErrConfig) || !strings.Contains(err.Error(), "KMS key of your own") {
		t.Errorf("the error is %v", err)
	}
}

// TestCopyMadeTwice: the reply is lost, and EC2 does not show the copy for longer than anybody looks, so that it is asked for again. One stays.
func TestCopyMadeTwice(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now, DescribeLag: 7})
	p := open(t, cloud, clock)
	id := taken(t, cloud, clock, p, "")
	cloud.ResetUsage()
	cloud.Inject(aws.Fault{Op: "CopySnapshot", LoseReply: true})
	made, err := p.CopySnapshot(t.Context(), plugins.SnapshotCopyRequest{Token: "a", SnapshotID: id, To: plugins.Place{Region: "eu-central-1"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := cloud.Usage().Calls["CopySnapshot"]; n != 2 {
		t.Errorf("%d calls, want 2: the test tries nothing", n)
	}
	if have := cloud.Snapshots(); len(have) != 2 || have[1] != made.ID {
		t.Errorf("there are %v after a copy to %s", have, made.ID)
	}
}

// TestPlaces: what cannot be a place is told before anything is asked; a role that may not be assumed when it is.
func TestPlaces(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now})
	p := open(t, cloud, clock)
	for _, place := range []plugins.Place{{RoleARN: "arn:aws:iam::444455556666:role/x"}, {Region: "eu-central-1", RoleARN: "copies"}} {
		if _, err := p.At(place); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("%+v: %v", place, err)
		}
	}
	there, err := p.At(plugins.Place{Region: "eu-central-1", RoleARN: "arn:aws:iam::444455556666:role/none"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.FindSnapshots(t.Context(), map[string]string{"a": "b"}); !errors.Is(err, plugins.ErrAccess) || !strings.Contains(err.Error(), "trust policy") {
		t.Errorf("a role that is not there: %v", err)
	}
	back, err := there.At(plugins.Place{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.FindSnapshots(t.Context(), map[string]string{"a": "b"}); err != nil {
		t.Error(err)
	}
}
