package ebs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

// snapshotted takes snapshots of volumes, and fails the test unless there is one of each in the end, and none else.
func snapshotted(t *testing.T, p *ebs.Provider, cloud *aws.Cloud, handles ...string) []plugins.Snapshot {
	t.Helper()
	taken, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: handles})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range taken {
		if s.Handle != handles[i] {
			t.Errorf("snapshot %d is of %s, want %s", i, s.Handle, handles[i])
		}
	}
	if all := cloud.Snapshots(); len(all) != len(handles) {
		t.Errorf("%d snapshots of %d volumes: %v", len(all), len(handles), all)
	}
	return taken
}

// machine is an instance with so many volumes besides the root one.
func machine(cloud *aws.Cloud, volumes int) (id string, handles []string) {
	id, _ = cloud.CreateInstance("")
	for range volumes {
		handles = append(handles, cloud.CreateVolume(aws.VolumeSpec{Instance: id}))
	}
	return id, handles
}

func TestSnapshotOfRootVolume(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	id, root := cloud.CreateInstance("")
	data := cloud.CreateVolume(aws.VolumeSpec{Instance: id})
	snapshotted(t, open(t, cloud, clock), cloud, data, root)
	if u := cloud.Usage(); u.Calls["CreateSnapshots"] != 1 || u.Calls["CreateSnapshot"] != 0 {
		t.Errorf("%v", u.Calls)
	}
}

// TestManyVolumes is about instances whose other volumes are more than CreateSnapshots can leave out.
func TestManyVolumes(t *testing.T) {
	for volumes, together := range map[int]int64{42: 1, 43: 0} {
		cloud, clock := aws.New(t, aws.Options{}), newClock()
		_, handles := machine(cloud, volumes)
		snapshotted(t, open(t, cloud, clock), cloud, handles[0], handles[7])
		if u := cloud.Usage(); u.Calls["CreateSnapshots"] != together {
			t.Errorf("%d volumes: %v", volumes, u.Calls)
		}
	}
}

// TestVolumesComeAndGo changes the instance between the look at it and the call.
func TestVolumesComeAndGo(t *testing.T) {
	for name, change := range map[string]func(cloud *aws.Cloud, instance string, handles []string) error{
		"one more": func(cloud *aws.Cloud, instance string, _ []string) error {
			cloud.CreateVolume(aws.VolumeSpec{Instance: instance})
			return nil
		},
		"one of others less":   func(cloud *aws.Cloud, _ string, handles []string) error { return detach(t, cloud, handles[2]) },
		"one of those less":    func(cloud *aws.Cloud, _ string, handles []string) error { return detach(t, cloud, handles[0]) },
		"more, and lost reply": nil,
	} {
		t.Run(name, func(t *testing.T) {
			cloud, clock := aws.New(t, aws.Options{DescribeLag: 2}), newClock()
			instance, handles := machine(cloud, 3)
			lost := change == nil
			cloud.Inject(aws.Fault{Op: "CreateSnapshots", LoseReply: lost, Before: func() {
				if lost {
					cloud.CreateVolume(aws.VolumeSpec{Instance: instance})
				} else if err := change(cloud, instance, handles); err != nil {
					t.Error(err)
				}
			}})
			snapshotted(t, open(t, cloud, clock), cloud, handles[0], handles[1])
		})
	}
}

func detach(t *testing.T, cloud *aws.Cloud, volume string) error {
	t.Helper()
	_, err := awsec2.NewFromConfig(cloud.Config(cloud.Region())).DetachVolume(t.Context(), &awsec2.DetachVolumeInput{VolumeId: &volume})
	return err
}

// TestSnapshotFaults has calls fail before and after they are performed.
func TestSnapshotFaults(t *testing.T) {
	for name, fault := range map[string]aws.Fault{
		"reply lost":             {LoseReply: true},
		"replies lost":           {LoseReply: true, Times: 2},
		"answer cut short":       {CutShort: true},
		"not performed":          {Drop: true},
		"broken server":          {Code: "InternalError", Status: 500},
		"throttled":              {Code: "RequestLimitExceeded", Status: 503, Times: 2},
		"snapshots too soon":     {Code: "SnapshotCreationPerVolumeRateExceeded", Times: 2},
		"down":                   {Code: "Unavailable", Status: 503},
		"instance is a stranger": {Op: "CreateSnapshots", Code: "OperationNotPermitted"},
	} {
		for _, volumes := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d", name, volumes), func(t *testing.T) {
				cloud, clock := aws.New(t, aws.Options{DescribeLag: 3}), newClock()
				_, handles := machine(cloud, 2)
				for _, op := range []string{"CreateSnapshot", "CreateSnapshots"} {
					if fault.Op == "" || fault.Op == op {
						acting := fault
						acting.Op = op
						cloud.Inject(acting)
					}
				}
				snapshotted(t, open(t, cloud, clock), cloud, handles[:volumes]...)
			})
		}
	}
}

// TestCopiedSnapshot is about what other programs make of the snapshots: copies that carry their tags.
func TestCopiedSnapshot(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	volume := cloud.CreateVolume(aws.VolumeSpec{})
	p := open(t, cloud, clock)
	taken := snapshotted(t, p, cloud, volume)
	if _, err := p.DescribeSnapshots(t.Context(), []string{taken[0].ID}); err != nil { // which completes it
		t.Fatal(err)
	}
	var tags []types.Tag
	for name, value := range cloud.Tags(taken[0].ID) {
		tags = append(tags, types.Tag{Key: &name, Value: &value})
	}
	region := cloud.Region()
	if _, err := awsec2.NewFromConfig(cloud.Config(region)).CopySnapshot(t.Context(), &awsec2.CopySnapshotInput{
		SourceRegion: &region, SourceSnapshotId: &taken[0].ID, TagSpecifications: []types.TagSpecification{{ResourceType: "snapshot", Tags: tags}},
	}); err != nil {
		t.Fatal(err)
	}
	again, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: []string{volume}})
	if err != nil || again[0].ID != taken[0].ID || len(cloud.Snapshots()) != 2 {
		t.Errorf("got %v, %v; there are %v", again, err, cloud.Snapshots())
	}
}

// TestSnapshotGivesUp is about a service that stays broken: the error says so, and the next call with the token finds what was made.
func TestSnapshotGivesUp(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	volume := cloud.CreateVolume(aws.VolumeSpec{})
	p := open(t, cloud, clock)
	cloud.Inject(aws.Fault{Op: "CreateSnapshot", Code: "InternalError", Status: 500, Times: -1})
	_, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "token", Handles: []string{volume}})
	var known *plugins.VolumeError
	if !errors.As(err, &known) || known.Object != volume || known.Remedy == "" {
		t.Errorf("got %v", err)
	}
	cloud.Heal()
	snapshotted(t, p, cloud, volume)
}

// TestRefusalIsNotWaitedFor is about calls that are repeated after the service refused them for good.
func TestRefusalIsNotWaitedFor(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{MaxSnapshots: 1}), newClock()
	first, second := cloud.CreateVolume(aws.VolumeSpec{}), cloud.CreateVolume(aws.VolumeSpec{})
	p := open(t, cloud, clock)
	snapshotted(t, p, cloud, first)
	began := clock.Now()
	for range 3 {
		_, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "other", Handles: []string{second}})
		if !errors.Is(err, plugins.ErrVolumeQuota) || !strings.Contains(err.Error(), "quota") || plugins.Permanent(err) {
			t.Errorf("got %v", err)
		}
	}
	if !clock.Now().Equal(began) {
		t.Errorf("waited for %v", clock.Now().Sub(began))
	}
}
