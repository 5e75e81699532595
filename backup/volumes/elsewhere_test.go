package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

const vault = "444455556666"

// abroad is a Taker with volumes on a double of AWS whose snapshots are taken, and the request of their backup.
type abroad struct {
	*Taker
	cloud *aws.Cloud
	req   Request
	known []*taking
}

// newAbroad has n volumes, the first with two claims. The snapshots of the first are kept, of the last too, that between is only the base of a copy.
func newAbroad(t *testing.T, n int, opts aws.Options, places ...v1alpha1.SnapshotCopy) *abroad {
	t.Helper()
	nap := func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	cloud := aws.New(t, opts)
	provider, err := ebs.New(cloud.Config(cloud.Region()), ebs.Options{Sleep: nap})
	if err != nil {
		t.Fatal(err)
	}
	a := &abroad{cloud: cloud, Taker: &Taker{Providers: []plugins.VolumeProvider{provider}, Now: time.Now, Sleep: nap}}
	policies, err := Compile(&v1alpha1.VolumeSelection{Method: v1alpha1.VolumeSnapshot, SnapshotCopies: places})
	if err != nil {
		t.Fatal(err)
	}
	a.req = Request{LocationID: "here", Name: "b", UID: "uid", Attempt: "attempt", ClusterUID: "blue", Policies: policies, Began: time.Now()}
	for i := range n {
		handle := cloud.CreateVolume(aws.VolumeSpec{})
		v := &taking{claim: &Claim{Namespace: "shop", Name: fmt.Sprintf("data-%d", i)}, method: v1alpha1.VolumeSnapshot, provider: provider, handle: handle, source: plugins.Volume{Handle: handle}}
		a.known = append(a.known, v)
		if i == 0 {
			other := *v
			other.claim = &Claim{Namespace: "shop", Name: "same"}
			a.known = append(a.known, &other)
		}
	}
	if err := a.snapshot(t.Context(), a.req, a.known); err != nil {
		t.Fatal(err)
	}
	return a
}

// finish does what an attempt does once the snapshots are taken.
func (a *abroad) finish(ctx context.Context, r *Result) error {
	a.asked = providersOf(a.known)
	return a.finishKnown(ctx, a.req, a.known, a.fileCopies(a.req, nil, r))
}

// in are the snapshots in a region of an account, which are Kedge's.
func (a *abroad) in(region, account string) (ids []string) {
	for _, id := range a.cloud.Snapshots() {
		if r, owner, _ := a.cloud.SnapshotPlace(id); r == region && owner == account {
			ids = append(ids, id)
		}
	}
	return ids
}

// TestCopyElsewhere copies to a place that takes a few at once, and to one that cannot be reached: each claim's row names the copy that is there, and each
// claim has an error for the one that is not.
func TestCopyElsewhere(t *testing.T) {
	a := newAbroad(t, 5, aws.Options{SnapshotPolls: 2, DescribeLag: 1, MaxPendingCopies: 2},
		v1alpha1.SnapshotCopy{Region: "eu-central-1"}, v1alpha1.SnapshotCopy{Region: "us-east-1", RoleARN: "arn:aws:iam::" + vault + ":role/none"})
	var last Progress
	a.count = newCounter(len(a.known), func(p Progress) { last = p })
	r := &Result{}
	if err := a.finish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	far := a.in("eu-central-1", aws.HomeAccount)
	if len(far) != 5 || len(a.cloud.Snapshots()) != 10 {
		t.Errorf("there are %v, in all %d", far, len(a.cloud.Snapshots()))
	}
	named := map[string]int{}
	for _, v := range a.known {
		row := v.row()
		if len(row.SnapshotCopies) != 1 || row.SnapshotCopies[0].Region != "eu-central-1" || row.SnapshotCopies[0].Account != aws.HomeAccount {
			t.Fatalf("%s has the copies %v", v.claim, row.SnapshotCopies)
		}
		named[row.SnapshotCopies[0].ID]++
	}
	if !slices.Equal(slices.Sorted(maps.Keys(named)), far) || named[a.known[0].elsewhere[0].ID] != 2 {
		t.Errorf("rows name %v", named)
	}
	if tags := a.cloud.Tags(far[0]); tags[TagUID] != "uid" || tags[TagLocation] != "here" || tags[TagAttempt] != "attempt" || !strings.HasPrefix(tags[TagClaim], "shop/") || tags[TagRole] != "" {
		t.Errorf("the tags of a copy are %v", tags)
	}
	if len(r.Errors) != 6 || r.Errors[0].Reason != ReasonSnapshotCopyFailed || !strings.Contains(r.Errors[0].Message, "role/none") {
		t.Errorf("the errors are %+v", r.Errors)
	}
	if len(r.Places) != 2 || last != (Progress{Done: 6, Total: 6, SnapshotCopiesDone: 10, SnapshotCopies: 10, SnapshotCopyPercent: 100}) {
		t.Errorf("places %v, %+v", r.Places, last)
	}
}

// TestNoCopiesOfBases copies nothing that the backup keeps only to compare the next copy with, nor what failed.
func TestNoCopiesOfBases(t *testing.T) {
	a := newAbroad(t, 2, aws.Options{}, v1alpha1.SnapshotCopy{Region: "eu-central-1"})
	a.known[0].method, a.known[1].method = v1alpha1.VolumeCopy, v1alpha1.VolumeCopy
	a.known[2].fail(ReasonSnapshotFailed, fmt.Errorf("no"))
	if all := forElsewhere(a.known, 1, &Result{}); len(all) != 0 {
		t.Errorf("%d are to be copied", len(all))
	}
	a.known[1].method = v1alpha1.VolumeBoth
	if all := forElsewhere(a.known, 1, &Result{}); len(all) != 1 || len(all[0].claims) != 1 {
		t.Errorf("%d are to be copied", len(all))
	}
}

// TestForgetElsewhere removes the copies of an earlier attempt, and leaves those of a later one.
func TestForgetElsewhere(t *testing.T) {
	a := newAbroad(t, 1, aws.Options{}, v1alpha1.SnapshotCopy{Region: "eu-central-1"})
	if err := a.finish(t.Context(), &Result{}); err != nil {
		t.Fatal(err)
	}
	earlier := a.req
	earlier.Attempt, earlier.Began = "earlier", time.Now().Add(-time.Hour)
	a.forgetElsewhere(t.Context(), earlier, &Result{})
	if n := len(a.in("eu-central-1", aws.HomeAccount)); n != 1 {
		t.Errorf("an attempt that woke up late left %d copies", n)
	}
	next := a.req
	next.Attempt, next.Began = "next", time.Now().Add(time.Second)
	r := &Result{}
	a.forgetElsewhere(t.Context(), next, r)
	if n := len(a.in("eu-central-1", aws.HomeAccount)); n != 0 || len(r.Notes) > 0 {
		t.Errorf("%d copies are left; %v", n, r.Notes)
	}
}

// TestCancelElsewhere ends while copies are made: the attempt's error is the cause, and what is there is found by its tags.
func TestCancelElsewhere(t *testing.T) {
	a := newAbroad(t, 3, aws.Options{SnapshotPolls: 3}, v1alpha1.SnapshotCopy{Region: "eu-central-1"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := fmt.Errorf("somebody said so")
	a.cloud.Inject(aws.Fault{Op: "CopySnapshot", Skip: 1, Before: func() { cancel(cause) }})
	if err := a.finish(ctx, &Result{}); !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, and the error is %v", err)
	}
	there, err := Elsewhere(a.Providers, placesOf(a.req))
	if err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), slices.Concat(there, a.Providers), map[string]string{TagAttempt: "attempt", TagLocation: "here"}); err != nil || len(a.cloud.Snapshots()) > 0 {
		t.Errorf("left are %v, %v", a.cloud.Snapshots(), err)
	}
}

func TestSnapshotCopiesAreChecked(t *testing.T) {
	const far, role = "eu-central-1", "arn:aws:iam::444455556666:role/copies"
	for text, copies := range map[string][]v1alpha1.SnapshotCopy{
		"":                               {{Region: far, KMSKeyID: "alias/copies"}, {Region: far, RoleARN: role, ExternalID: "id", KMSKeyID: "arn:aws:kms:eu-central-1:444455556666:key/a"}, {Region: "us-gov-west-1"}},
		"snapshotCopies[0].region: ":     {{Region: "Frankfurt"}},
		"snapshotCopies[1].roleARN: ":    {{Region: far}, {Region: far, RoleARN: "copies"}},
		"snapshotCopies[0].externalID: ": {{Region: far, ExternalID: "id"}},
		"snapshotCopies[0].kmsKeyID: ":   {{Region: far, KMSKeyID: "arn:aws:kms:eu-west-1:444455556666:key/a"}},
		"snapshotCopies[1]: ":            {{Region: far, RoleARN: role}, {Region: far, RoleARN: role, KMSKeyID: "alias/other"}},
		"9 are more than 8":              slices.Repeat([]v1alpha1.SnapshotCopy{{Region: far}}, 9),
	} {
		_, err := Compile(&v1alpha1.VolumeSelection{Method: v1alpha1.VolumeBoth, SnapshotCopies: copies})
		if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%+v gives %v, want %q", copies, err, text)
		}
	}
	if _, err := Compile(&v1alpha1.VolumeSelection{Method: v1alpha1.VolumeCopy, SnapshotCopies: []v1alpha1.SnapshotCopy{{Region: far}}}); err == nil {
		t.Error("copies of snapshots that nobody keeps are taken")
	}
}
