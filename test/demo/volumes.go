//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/test/testbed"
)

// shopVolumes are the EBS volumes behind shop's claims, as test/apps names them.
var shopVolumes = map[string]aws.VolumeSpec{
	"data-db-0": {ID: "vol-0aaaaaaaaaaaaaaa1", GiB: 100, Zone: "eu-west-1a"},
	"data-db-1": {ID: "vol-0aaaaaaaaaaaaaaa2", GiB: 100, Zone: "eu-west-1b"},
}

// startAWS starts the double of EC2 and EBS, with the volumes of the applications and something in them.
func (d *demo) startAWS(ctx context.Context) (err error) {
	home := aws.Credentials{AccessKeyID: d.bucket.AccessKey, SecretAccessKey: d.bucket.SecretKey}
	if d.cloud, err = aws.Start(aws.Options{Dir: filepath.Join(d.dir, "aws"), Home: home, SnapshotPolls: 1, VolumePolls: 1}); err != nil {
		return err
	}
	d.data = map[string]string{}
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for _, claim := range slices.Sorted(maps.Keys(shopVolumes)) {
		id := d.cloud.CreateVolume(shopVolumes[claim])
		if err := scribble(d.cloud.VolumeFile(id), r); err != nil {
			return err
		}
		if d.data[claim], err = d.digest(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// scribble writes 64 pieces anywhere into the first 8 GiB of a volume.
func scribble(path string, r *mathrand.Rand) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	piece := make([]byte, 16<<10)
	for range 64 {
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(piece, r.Int64N(8<<30/int64(len(piece)))*int64(len(piece))); err != nil {
			return err
		}
	}
	return f.Close()
}

// digest is of everything in a volume that is not zero, and of where it is.
func (d *demo) digest(ctx context.Context, id string) (string, error) {
	image, err := file.OpenImage(d.cloud.VolumeFile(id), "")
	if err != nil {
		return "", err
	}
	defer image.Close()
	h, buf, zeros := sha256.New(), make([]byte, plugins.BlockSize), make([]byte, plugins.BlockSize)
	err = image.Blocks(ctx, func(b plugins.Block) error {
		n, err := image.ReadBlock(ctx, b, buf)
		if err == nil && !bytes.Equal(buf[:n], zeros[:n]) {
			fmt.Fprintln(h, b.Index)
			h.Write(buf[:n])
		}
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// backupSpec writes the Backup that the demo makes: EBS volumes as snapshots and copies, EFS left out.
func (d *demo) backupSpec() (string, error) {
	path := filepath.Join(d.dir, "backup.yaml")
	text := `apiVersion: kedge.dev/v1alpha1
kind: Backup
metadata: {name: ` + backupName + `}
spec:
  volumes:
    method: Both
    policies:
    - {drivers: [efs.csi.aws.com], method: Skip}
`
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// checkData looks at the volumes behind shop's claims without Kedge: new ones, with every byte of the old.
func (d *demo) checkData(ctx context.Context, c *testbed.Cluster) error {
	clients, err := kubernetes.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	fmt.Println()
	for _, claim := range slices.Sorted(maps.Keys(d.data)) {
		handle, err := handleOf(ctx, clients, claim)
		if err != nil {
			return err
		}
		old := shopVolumes[claim].ID
		got, err := d.digest(ctx, handle)
		switch {
		case err != nil:
			return err
		case handle == old:
			return fmt.Errorf("%s: claim shop/%s has its old volume %s", c.Name, claim, old)
		case got != d.data[claim]:
			return fmt.Errorf("%s: claim shop/%s: %s has other bytes than %s had", c.Name, claim, handle, old)
		}
		fmt.Printf("%s: claim shop/%s has a new volume, %s, with every byte that %s had at the backup\n", c.Name, claim, handle, old)
	}
	return nil
}

// handleOf waits until a claim of shop is bound, and names the EBS volume behind it.
func handleOf(ctx context.Context, clients kubernetes.Interface, claim string) (string, error) {
	for deadline := time.Now().Add(20 * time.Second); ; {
		bound, err := clients.CoreV1().PersistentVolumeClaims("shop").Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		if bound.Status.Phase == corev1.ClaimBound {
			pv, err := clients.CoreV1().PersistentVolumes().Get(ctx, bound.Spec.VolumeName, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			if pv.Spec.CSI != nil {
				return pv.Spec.CSI.VolumeHandle, nil
			}
			id := pv.Spec.AWSElasticBlockStore.VolumeID
			return id[strings.LastIndexByte(id, '/')+1:], nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("claim shop/%s is not bound to %s after 20 s", claim, bound.Spec.VolumeName)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
