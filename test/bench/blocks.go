//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/aws"
)

const (
	claimNamespace = "bench-volumes"
	claimName      = "data"
	// mostBlockMemory is what one copy may take, in MiB: the limit of a restore of 100,000 objects.
	mostBlockMemory = 250.0
)

// blockVolume is a claim in a cluster whose volume is one of the double of AWS.
type blockVolume struct {
	*bench
	cloud       *aws.Cloud
	server      *server
	handle      string
	blocks      int64
	env         []string // the double's credentials
	credentials string   // a file with the store's
	mine        bool     // the bucket is of an earlier copy
}

// volumeBlocks backs up a volume of blocks that do not compress into fresh locations, in turn with the reference; then once more into the last one, with one in
// a hundred blocks changed.
func (b *bench) volumeBlocks(ctx context.Context, blocks int64, repeat int) error {
	dir := filepath.Join(b.dir, "aws")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	cloud, err := aws.Start(aws.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { _ = cloud.Close() }() // a server in this process
	return b.onServer(ctx, func(s *server) error {
		v := &blockVolume{bench: b, cloud: cloud, server: s, blocks: blocks}
		if err := v.prepare(ctx); err != nil {
			return err
		}
		return v.measure(ctx, repeat)
	})
}

// prepare fills the volume, and makes the claim.
func (v *blockVolume) prepare(ctx context.Context) error {
	for name, value := range v.cloud.Environment() {
		v.env = append(v.env, name+"="+value)
	}
	v.credentials = filepath.Join(v.dir, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", v.s3.AccessKey, v.s3.SecretKey)
	if err := os.WriteFile(v.credentials, []byte(text), 0o600); err != nil {
		return err
	}
	gib := (v.blocks*plugins.BlockSize)>>30 + 1
	v.handle = v.cloud.CreateVolume(aws.VolumeSpec{GiB: gib})
	if err := v.write(func(f *os.File) error {
		random := rand.NewChaCha8([32]byte{3})
		buf := make([]byte, plugins.BlockSize)
		for i := range v.blocks {
			random.Read(buf) // it never fails
			if _, err := f.WriteAt(buf, i*plugins.BlockSize); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	fmt.Fprintf(v.out, "# volume of %d GiB, %d MiB written\n", gib, v.blocks*plugins.BlockSize/mib)
	return v.claim(ctx, gib)
}

func (v *blockVolume) write(fn func(*os.File) error) error {
	f, err := os.OpenFile(v.cloud.VolumeFile(v.handle), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

// claim makes the volume's objects, and says that they are bound: no controller is there to do it.
func (v *blockVolume) claim(ctx context.Context, gib int64) error {
	err := v.server.cluster.ApplyYAML(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv-bench}
spec:
  capacity: {storage: %[4]dGi}
  accessModes: [ReadWriteOnce]
  storageClassName: gp3
  claimRef: {namespace: %[1]s, name: %[2]s}
  csi: {driver: ebs.csi.aws.com, volumeHandle: %[3]s, fsType: ext4}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: gp3
  volumeName: pv-bench
  resources: {requests: {storage: %[4]dGi}}
`, claimNamespace, claimName, v.handle, gib))
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(v.server.cluster.Master())
	if err != nil {
		return err
	}
	claim, err := clients.CoreV1().PersistentVolumeClaims(claimNamespace).Get(ctx, claimName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	claim.Status.Phase = corev1.ClaimBound
	if _, err := clients.CoreV1().PersistentVolumeClaims(claimNamespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		return err
	}
	pv, err := clients.CoreV1().PersistentVolumes().Get(ctx, "pv-bench", metav1.GetOptions{})
	if err != nil {
		return err
	}
	pv.Status.Phase = corev1.VolumeBound
	_, err = clients.CoreV1().PersistentVolumes().UpdateStatus(ctx, pv, metav1.UpdateOptions{})
	return err
}

// measure finds the reference's best number of connections first, after a copy that does not count, and then has both copy in turn.
func (v *blockVolume) measure(ctx context.Context, repeat int) error {
	var ours best
	var reference float64
	var connections string
	for i := range repeat + 1 {
		took, err := v.freshBackup(ctx, "blocks-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		line, err := v.plain(ctx, connections)
		if err != nil {
			return err
		}
		if i == 0 {
			connections = strconv.Itoa(int(value(line, "connections")))
			continue
		}
		ours.add(took, took)
		reference = max(reference, value(line, "rate"))
	}
	v.figure("volume-blocks-first", float64(v.blocks*plugins.BlockSize)/mib/ours.first, reference, "MiB/s")
	v.figure("volume-blocks-memory", ours.memory, mostBlockMemory, "MiB")
	return v.again(ctx, "blocks-"+strconv.Itoa(repeat))
}

// freshBackup copies the volume into a location in a new bucket, in place of the one before.
func (v *blockVolume) freshBackup(ctx context.Context, name string) (usage, error) {
	if v.mine {
		if err := v.bucket.Remove(); err != nil {
			return usage{}, err
		}
	}
	var err error
	if v.bucket, err = v.s3.MakeBucket(ctx, ""); err != nil {
		return usage{}, err
	}
	v.mine = true
	if err := v.makeLocation(ctx, name, "--credentials-file", v.credentials); err != nil {
		return usage{}, err
	}
	syscall.Sync()
	return v.backup(ctx, name, name)
}

// backup copies the volume as a whole backup of its namespace does.
func (v *blockVolume) backup(ctx context.Context, name, location string) (usage, error) {
	v.cloud.ResetUsage()
	var made v1alpha1.Backup
	took, err := v.runKedgeAs(ctx, v.env, &made, "backup", "create", name, "--volumes", "copy", "--include-namespaces", claimNamespace, "--kubeconfig", v.server.kubeconfig,
		"--storage-location", location, "-o", "json")
	if err != nil {
		return usage{}, err
	}
	if made.Status.Phase != v1alpha1.PhaseCompleted || made.Status.Counts.Volumes != 1 {
		return usage{}, fmt.Errorf("backup %s is %s with %d volumes", name, made.Status.Phase, made.Status.Counts.Volumes)
	}
	taking := v.cloud.Usage().Taking.Seconds()
	took.seconds -= taking // AWS answers at once
	fmt.Fprintf(v.out, "kedge backup of a volume's blocks %s seconds=%.3f (and %.3f until the double had the snapshot) memory=%.0fMiB cpu=%.2fs\n", name, took.seconds, taking, took.memory, took.cpu)
	return took, nil
}

// plain has the reference copy the blocks of the snapshot that the backup has left.
func (v *blockVolume) plain(ctx context.Context, connections string) (string, error) {
	snapshots := v.cloud.Snapshots()
	if len(snapshots) == 0 {
		return "", errors.New("the backup has left no snapshot")
	}
	args := []string{"blocks", "-snapshot", snapshots[len(snapshots)-1], "-bucket", v.bucket.Name, "-endpoint", v.s3.Endpoint, "-region", v.s3.Region, "-credentials", v.credentials}
	if connections != "" { // as many as ours, not a part of them
		args = append(args, "-connections", connections, "-most", strconv.FormatInt(v.blocks, 10))
	}
	return v.runReferenceAs(ctx, v.env, args...)
}

// again changes 4 KiB of one in a hundred blocks and backs up once more, counting what is read of the snapshot and written to the bucket.
func (v *blockVolume) again(ctx context.Context, location string) error {
	rng := rand.New(rand.NewChaCha8([32]byte{4}))
	changed := rng.Perm(int(v.blocks))[:v.blocks/100]
	if err := v.write(func(f *os.File) error {
		piece := make([]byte, 4096)
		for _, i := range changed {
			for j := range piece {
				piece[j] = byte(rng.Uint32())
			}
			if _, err := f.WriteAt(piece, int64(i)*plugins.BlockSize+rng.Int64N(plugins.BlockSize/4096)*4096); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	proxy, err := startProxy(v.s3.Endpoint)
	if err != nil {
		return err
	}
	defer proxy.stop()
	_, err = v.runKedge(ctx, nil, "location", "add", "counted-blocks", "--s3-bucket", v.bucket.Name, "--region", v.s3.Region, "--path-style", "--endpoint", proxy.url,
		"--prefix", location, "--credentials-file", v.credentials, "--age-identity-file", v.identity())
	if err != nil {
		return err
	}
	proxy.reset()
	if _, err := v.backup(ctx, location+"-again", "counted-blocks"); err != nil {
		return err
	}
	bytes := float64(len(changed) * plugins.BlockSize)
	v.figure("volume-blocks-again-read", float64(v.cloud.Usage().BlockBytesRead), bytes, "bytes")
	v.figure("volume-blocks-again-written", float64(proxy.written()), bytes, "bytes")
	return nil
}
