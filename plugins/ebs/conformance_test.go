package ebs_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/plugins/volumetest"
	"kedge.dev/kedge/test/aws"
)

// vault is another account.
const vault = "444455556666"

// clock goes by itself only when somebody sleeps.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

// open makes a provider as a program does: from the environment.
func open(t *testing.T, cloud *aws.Cloud, clock *clock) *ebs.Provider {
	t.Helper()
	for name, value := range cloud.Environment() {
		if name == "AWS_ENDPOINT_URL" {
			t.Setenv("AWS_ENDPOINT_URL_EC2", value)
			t.Setenv("AWS_ENDPOINT_URL_EBS", value)
			t.Setenv("AWS_ENDPOINT_URL_STS", value)
			continue
		}
		t.Setenv(name, value)
	}
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebs.New(cfg, ebs.Options{Sleep: clock.Sleep, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a slow AWS: new things are not seen at once, snapshots and volumes take a few looks, lists have many pages.
func world(t *testing.T) *volumetest.World {
	t.Helper()
	clock := newClock()
	cloud := aws.New(t, aws.Options{Now: clock.Now, SnapshotPolls: 2, SnapshotTime: time.Second, VolumePolls: 2, DescribeLag: 2, BlocksLag: 2, PageSize: 4, TokenTime: time.Hour})
	instances := map[string]string{}
	roots := map[string]bool{}
	w := &volumetest.World{
		Provider: open(t, cloud, clock), Another: func(t *testing.T) plugins.VolumeSnapshotter { t.Helper(); return open(t, cloud, clock) },
		Zone: cloud.Region() + "b", Attributes: map[string]string{"type": "gp3", "iops": "3000", "throughput": "250", "kmsKeyId": cloud.CreateKey(), "encrypted": "true"},
		UnknownVolume: "vol-0000000000000ffff", UnknownSnapshot: "snap-0000000000000ffff",
		Snapshots: cloud.Snapshots, PersistentVolumes: persistentVolumes,
		Pause:        func() { _ = clock.Sleep(t.Context(), time.Second) },
		ExpireTokens: func() { _ = clock.Sleep(t.Context(), 2*time.Hour) },
		DamageRead:   func() { cloud.Inject(aws.Fault{Op: "GetSnapshotBlock", Damage: true, Skip: 1}) },
	}
	w.Places = []volumetest.Place{
		{Place: plugins.Place{Region: "eu-central-1"}, Zone: "eu-central-1a", KMSKeyID: cloud.CreateKeyIn("eu-central-1", aws.HomeAccount)},
		{Place: plugins.Place{Region: cloud.Region(), RoleARN: cloud.CreateRoleIn(vault, "copies", "")}, Zone: cloud.Region() + "a", KMSKeyID: cloud.CreateKeyIn(cloud.Region(), vault)},
		{Place: plugins.Place{Region: "us-east-1", RoleARN: cloud.CreateRoleIn(vault, "secret", "id"), ExternalID: "id"}, Zone: "us-east-1a"},
	}
	w.BadKey = "arn:aws:kms:eu-central-1:111122223333:key/none"
	w.NoRoom = func() {
		cloud.Inject(aws.Fault{Op: "CopySnapshot", Times: 40, Code: "ResourceLimitExceeded", Message: "Too many snapshot copies in progress. The limit is 20 for this destination region."})
	}
	w.NewVolume = func(_ *testing.T, machine string) string {
		if machine != "" && instances[machine] == "" {
			id, root := cloud.CreateInstance("")
			instances[machine], roots[root] = id, true
		}
		return cloud.CreateVolume(aws.VolumeSpec{Instance: instances[machine]})
	}
	w.Volumes = func() (ids []string) {
		for _, id := range cloud.Volumes() {
			if !roots[id] {
				ids = append(ids, id)
			}
		}
		return ids
	}
	w.Write = func(t *testing.T, handle string, offset int64, data []byte) {
		t.Helper()
		withFile(t, cloud.VolumeFile(handle), func(f *os.File) error { _, err := f.WriteAt(data, offset); return err })
	}
	w.Read = func(t *testing.T, handle string, offset int64, n int) []byte {
		t.Helper()
		data := make([]byte, n)
		withFile(t, cloud.VolumeFile(handle), func(f *os.File) error { _, err := f.ReadAt(data, offset); return err })
		return data
	}
	w.Discard = func(t *testing.T, handle string, offset, length int64) {
		t.Helper()
		withFile(t, cloud.VolumeFile(handle), func(f *os.File) error { return aws.Discard(f, offset, length) })
	}
	w.BeforeEachSnapshot = func(fn func()) {
		for _, op := range []string{"CreateSnapshot", "CreateSnapshots"} {
			cloud.Inject(aws.Fault{Op: op, Times: -1, Before: fn})
		}
	}
	w.LoseReplies = func() {
		for _, op := range []string{"CreateSnapshot", "CreateSnapshots", "CopySnapshot", "CreateVolume", "StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"} {
			cloud.Inject(aws.Fault{Op: op, LoseReply: true})
		}
	}
	return w
}

func withFile(t *testing.T, path string, use func(*os.File) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := use(f); err != nil {
		t.Fatal(err)
	}
}

func persistentVolumes(handle string) (all []*corev1.PersistentVolume) {
	for _, source := range []corev1.PersistentVolumeSource{
		{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: handle, FSType: "ext4"}},
		{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.eks.amazonaws.com", VolumeHandle: handle}},
		{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: handle}},
		{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "aws://eu-west-1c/" + handle}},
		{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "aws:///" + handle}},
	} {
		all = append(all, &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pvc-1"},
			Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeSource: source, ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data"},
				Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")},
			},
		})
	}
	return all
}

func TestConformance(t *testing.T) {
	t.Run("Snapshotter", func(t *testing.T) { volumetest.TestSnapshotter(t, world) })
	t.Run("Copier", func(t *testing.T) { volumetest.TestCopier(t, world) })
	t.Run("Blocks", func(t *testing.T) { volumetest.TestBlocks(t, world) })
}
