package ebs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		fault    aws.Fault
		sentinel error
		text     string // of the error, remedy included
	}{
		{aws.Fault{Op: "CreateVolume", Code: "UnauthorizedOperation", Status: 403, Message: "no"}, plugins.ErrAccess, "allow ec2:CreateVolume"},
		{aws.Fault{Op: "CreateVolume", Code: "AuthFailure", Status: 401}, plugins.ErrAccess, "access key"},
		{aws.Fault{Op: "CreateVolume", Code: "VolumeLimitExceeded", Message: "500 TiB"}, plugins.ErrVolumeQuota, "500 TiB"},
		{aws.Fault{Op: "CreateVolume", Code: "MaxIOPSLimitExceeded"}, plugins.ErrVolumeQuota, "quota"},
		{aws.Fault{Op: "CreateVolume", Code: "InvalidParameterValue", Message: "gp9"}, plugins.ErrConfig, "gp9"},
		{aws.Fault{Op: "CreateVolume", Code: "IdempotentParameterMismatch"}, plugins.ErrConfig, "another token"},
		{aws.Fault{Op: "CreateVolume", Code: "InsufficientVolumeCapacity", Status: 400}, nil, "another zone"},
		{aws.Fault{Op: "CreateVolume", Code: "ExpiredToken", Status: 400}, plugins.ErrAccess, "log in again"},
		{aws.Fault{Op: "DescribeVolumes", Code: "UnauthorizedOperation", Status: 403}, plugins.ErrAccess, "allow ec2:DescribeVolumes"},
	} {
		t.Run(c.fault.Code, func(t *testing.T) {
			clock := newClock()
			cloud := aws.New(t, aws.Options{Now: clock.Now})
			c.fault.Times = -1
			cloud.Inject(c.fault)
			_, err := open(t, cloud, clock).CreateVolume(t.Context(), plugins.VolumeRequest{Token: "t", SizeBytes: 1, Zone: "eu-west-1a"})
			wantError(t, err, c.sentinel, c.text)
		})
	}
}

// TestClock is about requests that are refused because of the clock that signed them.
func TestClock(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now}) // the test's own clock is another
	cloud.Inject(aws.Fault{Code: "AuthFailure", Status: 401, Times: -1})
	cfg := cloud.Config(cloud.Region())
	p, err := ebs.New(cfg, ebs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Describe(t.Context(), []string{"vol-00000000"})
	wantError(t, err, plugins.ErrAccess, "set the clock of this machine")
}

func wantError(t *testing.T, err, sentinel error, text string) {
	t.Helper()
	var known *plugins.VolumeError
	if !errors.As(err, &known) || sentinel != nil && !errors.Is(err, sentinel) || sentinel == nil && plugins.Permanent(err) {
		t.Errorf("got %v, want a volume error that wraps %v", err, sentinel)
		return
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
}

func TestBlockErrors(t *testing.T) {
	for _, c := range []struct {
		fault    aws.Fault
		sentinel error
		text     string
	}{
		{aws.Fault{Code: "AccessDeniedException", Reason: "DEPENDENCY_ACCESS_DENIED", Status: 403}, plugins.ErrAccess, "allow ebs:StartSnapshot"},
		{aws.Fault{Code: "ServiceQuotaExceededException", Reason: "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", Status: 402}, plugins.ErrVolumeQuota, "quota"},
		{aws.Fault{Code: "ValidationException", Reason: "INVALID_CUSTOMER_KEY", Message: "the key"}, plugins.ErrConfig, "the key"},
		{aws.Fault{Code: "ConflictException", Status: 409}, plugins.ErrConfig, "another token"},
	} {
		t.Run(c.fault.Code, func(t *testing.T) {
			cloud, clock := aws.New(t, aws.Options{}), newClock()
			c.fault.Op, c.fault.Times = "StartSnapshot", -1
			cloud.Inject(c.fault)
			_, err := open(t, cloud, clock).StartBlocks(t.Context(), plugins.VolumeRequest{Token: "t", SizeBytes: 1})
			wantError(t, err, c.sentinel, c.text)
		})
	}
}

// TestUnusableKey is about a key that only the service finds out about, when CreateVolume has long been answered.
func TestUnusableKey(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{VolumePolls: 1}), newClock()
	_, err := open(t, cloud, clock).CreateVolume(t.Context(), plugins.VolumeRequest{
		Token: "t", SizeBytes: 1 << 30, Zone: "eu-west-1a", Attributes: map[string]string{"type": "gp3", "kmsKeyId": "arn:aws:kms:eu-west-1:111122223333:key/gone"},
	})
	wantError(t, err, plugins.ErrConfig, "KMS key")
}

// TestDeletedVolumeOfToken is about a client token that stands for a volume which somebody has deleted since.
func TestDeletedVolumeOfToken(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	p := open(t, cloud, clock)
	req := plugins.VolumeRequest{Token: "t", SizeBytes: 1 << 30, Zone: "eu-west-1a"}
	v, err := p.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.DeleteVolume(t.Context(), v.Handle); err != nil {
		t.Fatal(err)
	}
	_, err = p.CreateVolume(t.Context(), req)
	wantError(t, err, plugins.ErrVolumeGone, v.Handle)
}

// TestAttachedVolume is about a volume that cannot be deleted yet.
func TestAttachedVolume(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	id, _ := cloud.CreateInstance("")
	volume := cloud.CreateVolume(aws.VolumeSpec{Instance: id, Tags: map[string]string{ebs.TokenTag: "t"}})
	wantError(t, open(t, cloud, clock).DeleteVolume(t.Context(), volume), nil, "detach it")
}

// TestNoCredentials asks once: nothing that was not sent is looked for.
func TestNoCredentials(t *testing.T) {
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	p := open(t, cloud, clock)
	volume := cloud.CreateVolume(aws.VolumeSpec{})
	snapshotted(t, p, cloud, volume)
	began := clock.Now()
	cfg := cloud.Config(cloud.Region())
	cfg.Credentials = sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
		return sdk.Credentials{}, &awsconf.CredentialsError{Err: errors.New("no EC2 IMDS role found")}
	})
	p, err := ebs.New(cfg, ebs.Options{Sleep: clock.Sleep, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "other", Handles: []string{volume}})
	wantError(t, err, plugins.ErrAccess, "AWS_ACCESS_KEY_ID")
	if !clock.Now().Equal(began) {
		t.Errorf("waited for %v", clock.Now().Sub(began))
	}
}

func TestThrottledReads(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now, Rates: map[string]aws.Rate{"DescribeSnapshots": {Burst: 4, PerSecond: 1}}})
	// Each call takes half of what the bucket needs for the next one.
	cloud.Inject(aws.Fault{Op: "DescribeSnapshots", Times: -1, Before: func() { _ = clock.Sleep(t.Context(), 500*time.Millisecond) }})
	p := open(t, cloud, clock)
	for range 8 {
		if _, err := p.FindSnapshots(t.Context(), map[string]string{"a": "b"}); err != nil {
			t.Fatal(err)
		}
	}
	if cloud.Usage().Throttled == 0 {
		t.Error("nothing was throttled")
	}
}

func TestNoRegion(t *testing.T) {
	_, err := ebs.New(sdk.Config{}, ebs.Options{})
	wantError(t, err, plugins.ErrConfig, "AWS_REGION")
}

// TestDamagedBlocks is about bytes that are changed or cut off again and again on their way.
func TestDamagedBlocks(t *testing.T) {
	for name, fault := range map[string]aws.Fault{"changed": {Damage: true}, "cut short": {CutShort: true}} {
		t.Run(name, func(t *testing.T) {
			cloud, clock := aws.New(t, aws.Options{}), newClock()
			p := open(t, cloud, clock)
			target, err := p.StartBlocks(t.Context(), plugins.VolumeRequest{Token: "t", SizeBytes: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := target.WriteBlock(t.Context(), 0, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := target.Complete(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			src, err := p.OpenBlocks(t.Context(), target.SnapshotID(), "")
			if err != nil {
				t.Fatal(err)
			}
			read := func() (first byte, err error) {
				buf := make([]byte, plugins.BlockSize)
				err = src.Blocks(t.Context(), func(b plugins.Block) error {
					_, err := src.ReadBlock(t.Context(), b, buf)
					return err
				})
				return buf[0], err
			}
			fault.Op, fault.Times = "GetSnapshotBlock", 3
			cloud.Inject(fault)
			if first, err := read(); err != nil || first != 'x' {
				t.Errorf("got %q, %v", first, err)
			}
			fault.Times = -1
			cloud.Inject(fault)
			_, err = read()
			wantError(t, err, nil, "block 0 of snapshot "+target.SnapshotID())
		})
	}
}

// TestAbandonedSnapshot is about one that EBS gave up because nobody completed it in time.
func TestAbandonedSnapshot(t *testing.T) {
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now})
	p := open(t, cloud, clock)
	req := plugins.VolumeRequest{Token: "t", SizeBytes: 1}
	target, err := p.StartBlocks(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	_ = clock.Sleep(t.Context(), 1000*time.Hour)
	wantError(t, target.WriteBlock(t.Context(), 0, []byte("x")), plugins.ErrVolumeGone, "another token")
	_, err = p.StartBlocks(t.Context(), req)
	wantError(t, err, plugins.ErrVolumeGone, "another token")
}
