//go:build unix

package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/test/testbed"
)

// volumeWorld is a cluster whose claims are bound to EBS volumes of a double of AWS, and a location in S3.
type volumeWorld struct {
	*world
	cloud      *aws.Cloud
	cluster    *testbed.Cluster
	clients    *kubernetes.Clientset
	kubeconfig string
}

func newVolumeWorld(t *testing.T) *volumeWorld {
	t.Helper()
	return newVolumeWorldOf(t, "1.36.3")
}

// newVolumeWorldOf is one on another version of Kubernetes.
func newVolumeWorldOf(t *testing.T, version string) *volumeWorld {
	t.Helper()
	w := &volumeWorld{
		world:   &world{bucket: testbed.NewBucket(t), dir: t.TempDir()},
		cloud:   aws.New(t, aws.Options{SnapshotPolls: 1, VolumePolls: 1, DescribeLag: 1, BlocksLag: 1}),
		cluster: testbed.NewCluster(t, version),
	}
	w.config = filepath.Join(w.dir, "config.yaml")
	// The bucket's credentials are in a file, since the environment has those of the double.
	file := filepath.Join(w.dir, "credentials")
	var text strings.Builder
	text.WriteString("[default]\n")
	for _, v := range w.bucket.Env() {
		name, value, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "AWS_ACCESS") || strings.HasPrefix(name, "AWS_SECRET") {
			fmt.Fprintf(&text, "%s = %s\n", strings.ToLower(name), value)
		}
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "location", "create", "main", "--s3-bucket", w.bucket.Name, "--endpoint", w.bucket.Endpoint, "--region", w.bucket.Region,
		"--path-style", "--credentials-file", file, "--generate-age-identity", filepath.Join(w.dir, "key.txt"))
	for name, value := range w.cloud.Environment() {
		w.env = append(w.env, name+"="+value)
	}
	clients, err := kubernetes.NewForConfig(w.cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	w.clients, w.kubeconfig = clients, kubeconfig(t, w.cluster)
	return w
}

// claim makes a PersistentVolume of an EBS volume, and the claim that it is bound to.
func (w *volumeWorld) claim(t *testing.T, namespace, name, handle string) {
	t.Helper()
	err := w.cluster.ApplyYAML(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv-%[1]s-%[2]s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Delete
  storageClassName: gp3
  claimRef: {namespace: %[1]s, name: %[2]s}
  csi: {driver: ebs.csi.aws.com, volumeHandle: %[3]s, fsType: ext4}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1a]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: gp3
  volumeName: pv-%[1]s-%[2]s
  resources: {requests: {storage: 1Gi}}
`, namespace, name, handle))
	if err != nil {
		t.Fatal(err)
	}
}

// handleOf waits until the claim is bound and gives the EBS volume behind it.
func (w *volumeWorld) handleOf(t *testing.T, namespace, name string) string {
	t.Helper()
	var handle string
	until(t, "claim "+namespace+"/"+name+" is bound", func() bool {
		claim, err := w.clients.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || claim.Status.Phase != corev1.ClaimBound {
			return false
		}
		pv, err := w.clients.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			return false
		}
		handle = pv.Spec.CSI.VolumeHandle
		return true
	})
	return handle
}

// scribble writes n random pieces into a volume.
func (w *volumeWorld) scribble(t *testing.T, r *mathrand.Rand, handle string, n int) {
	t.Helper()
	f, err := os.OpenFile(w.cloud.VolumeFile(handle), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	piece := make([]byte, 4096)
	for range n {
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(piece, r.Int64N(1<<30/4096)*4096); err != nil {
			t.Fatal(err)
		}
	}
}

// digest is of all bytes of a volume.
func (w *volumeWorld) digest(t *testing.T, handle string) []byte {
	t.Helper()
	return fileDigest(t, w.cloud.VolumeFile(handle))
}

func fileDigest(t *testing.T, path string) []byte {
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

// lose deletes a namespace and the volumes of its claims.
func (w *volumeWorld) lose(t *testing.T, namespace string) {
	t.Helper()
	if err := w.clients.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "namespace "+namespace+" is gone", func() bool {
		_, err := w.clients.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	pvs, err := w.clients.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pvs.Items {
		if pvs.Items[i].Spec.ClaimRef.Namespace == namespace {
			if err := w.clients.CoreV1().PersistentVolumes().Delete(t.Context(), pvs.Items[i].Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestVolumeSnapshots backs up claims by snapshots, changes the volumes, loses the namespace, and gets every byte back as it was.
func TestVolumeSnapshots(t *testing.T) {
	w := newVolumeWorld(t)
	r := mathrand.New(mathrand.NewPCG(4, 2))
	machine, _ := w.cloud.CreateInstance("eu-west-1a")
	data := w.cloud.CreateVolume(aws.VolumeSpec{Instance: machine, Tags: map[string]string{"team": "shop"}})
	logs := w.cloud.CreateVolume(aws.VolumeSpec{Instance: machine, Type: "gp3", Throughput: 250})
	spare := w.cloud.CreateVolume(aws.VolumeSpec{})
	want := map[string][]byte{}
	for claim, handle := range map[string]string{"data": data, "logs": logs, "spare": spare} {
		w.scribble(t, r, handle, 40)
		w.claim(t, "shop", claim, handle)
		w.handleOf(t, "shop", claim)
		want[claim] = w.digest(t, handle)
	}
	w.must(t, "backup", "create", "good", "--volumes", "snapshot", "--kubeconfig", w.kubeconfig)
	if n := len(w.cloud.Snapshots()); n != 3 {
		t.Errorf("%d snapshots", n)
	}
	if calls := w.cloud.Usage().Calls; calls["CreateSnapshots"] != 1 || calls["CreateSnapshot"] != 1 {
		t.Errorf("the volumes of one machine are not taken at once: %v", calls)
	}
	var b v1alpha1.Backup
	if err := json.Unmarshal([]byte(w.must(t, "backup", "get", "good", "-o", "json")), &b); err != nil {
		t.Fatal(err)
	}
	if b.Status.Counts.Volumes != 3 || b.Status.Counts.VolumeBytes != 3<<30 {
		t.Errorf("counts %+v", b.Status.Counts)
	}
	for _, handle := range []string{data, logs, spare} {
		w.scribble(t, r, handle, 10)
	}
	w.lose(t, "shop")
	w.must(t, "restore", "create", "first", "--from-backup", "good", "--include-namespaces", "shop", "--kubeconfig", w.kubeconfig)
	for claim, digest := range want {
		handle := w.handleOf(t, "shop", claim)
		if handle == data || handle == logs || handle == spare {
			t.Errorf("claim %s has its old volume %s", claim, handle)
		}
		if !bytes.Equal(w.digest(t, handle), digest) {
			t.Errorf("claim %s: the volume has other bytes than the backup", claim)
		}
	}
	w.copyBeside(t, want)
	w.must(t, "backup", "delete", "good", "--yes")
	if left := w.cloud.Snapshots(); len(left) > 0 {
		t.Errorf("the backup is deleted, but not its snapshots %v", left)
	}
}

// copyBeside restores the namespace under another name beside the living one: volumes and claims of its own.
func (w *volumeWorld) copyBeside(t *testing.T, want map[string][]byte) {
	t.Helper()
	w.must(t, "restore", "create", "second", "--from-backup", "good", "--include-namespaces", "shop", "--namespace-mappings", "shop:shop-test", "--kubeconfig", w.kubeconfig)
	for claim, digest := range want {
		handle := w.handleOf(t, "shop-test", claim)
		if handle == w.handleOf(t, "shop", claim) {
			t.Errorf("both claims %s have the volume %s", claim, handle)
		}
		if !bytes.Equal(w.digest(t, handle), digest) {
			t.Errorf("claim %s of the copy: the volume has other bytes than the backup", claim)
		}
	}
}

// TestVolumeCopies copies a volume into the location twice, the second time only what changed, loses everything that EBS has of it, and
// gets every byte of either moment back.
func TestVolumeCopies(t *testing.T) {
	w := newVolumeWorld(t)
	r := mathrand.New(mathrand.NewPCG(4, 3))
	volume := w.cloud.CreateVolume(aws.VolumeSpec{})
	w.scribble(t, r, volume, 40)
	w.claim(t, "shop", "data", volume)
	w.handleOf(t, "shop", "data")
	first := w.digest(t, volume)
	w.must(t, "backup", "create", "first", "--volumes", "copy", "--kubeconfig", w.kubeconfig)
	w.cloud.ResetUsage()
	w.scribble(t, r, volume, 5)
	second := w.digest(t, volume)
	w.must(t, "backup", "create", "second", "--volumes", "copy", "--kubeconfig", w.kubeconfig)
	if u := w.cloud.Usage(); u.BlockBytesRead > 5*512<<10 {
		t.Errorf("the second copy read %d bytes for five changed blocks: %v", u.BlockBytesRead, u.Calls)
	}
	if n := len(w.cloud.Snapshots()); n != 1 {
		t.Errorf("%d snapshots are kept for the next copy", n)
	}
	w.must(t, "backup", "verify", "second", "--deep")
	w.readAlone(t, first)
	w.lose(t, "shop")
	w.must(t, "restore", "create", "--from-backup", "first", "--include-namespaces", "shop", "--kubeconfig", w.kubeconfig)
	if !bytes.Equal(w.digest(t, w.handleOf(t, "shop", "data")), first) {
		t.Error("the volume has other bytes than the first backup")
	}
	if n := len(w.cloud.Snapshots()); n != 1 {
		t.Errorf("%d snapshots after the restore", n)
	}
	w.lose(t, "shop")
	w.must(t, "restore", "create", "--from-backup", "second", "--include-namespaces", "shop", "--kubeconfig", w.kubeconfig)
	if !bytes.Equal(w.digest(t, w.handleOf(t, "shop", "data")), second) {
		t.Error("the volume has other bytes than the second backup")
	}
}

// readAlone lists what the first backup has, writes its volume to a file without cluster or EBS, and maintains the location.
func (w *volumeWorld) readAlone(t *testing.T, want []byte) {
	t.Helper()
	var list struct {
		Volumes []struct{ Namespace, Claim, Method, CopyID, SnapshotID string }
	}
	if err := json.Unmarshal([]byte(w.must(t, "volume", "list", "--from-backup", "first", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Volumes) != 1 || list.Volumes[0].Claim != "data" || list.Volumes[0].Method != "Copy" || list.Volumes[0].CopyID == "" || list.Volumes[0].SnapshotID != "" {
		t.Errorf("the first backup has the volumes %+v", list.Volumes)
	}
	if out := w.must(t, "backup", "describe", "first"); !strings.Contains(out, "shop/data: 1.0 GiB of ebs vol-") || !strings.Contains(out, "copy "+list.Volumes[0].CopyID) {
		t.Errorf("the description has no volumes:\n%s", out)
	}
	if out := w.must(t, "backup", "get", "first", "-o", "wide"); !strings.Contains(out, "1 (1.0 GiB)") {
		t.Errorf("the list has no volumes:\n%s", out)
	}
	w.cloud.ResetUsage()
	image := filepath.Join(w.dir, "data.img")
	restore := []string{"volume", "restore", "--from-backup", "first", "--claim", "shop/data", "--to-file", image}
	w.must(t, restore...)
	if got := fileDigest(t, image); !bytes.Equal(got, want) {
		t.Error("the file has other bytes than the first backup")
	}
	if calls := w.cloud.Usage().Calls; len(calls) > 0 {
		t.Errorf("a restore to a file calls AWS: %v", calls)
	}
	if err := os.WriteFile(image, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.exits(t, 2, restore...)
	if data, err := os.ReadFile(image); err != nil || string(data) != "mine" {
		t.Errorf("the refused restore touched the file: %v", err)
	}
	w.must(t, append(restore, "--force")...)
	if got := fileDigest(t, image); !bytes.Equal(got, want) {
		t.Error("the replaced file has other bytes than the first backup")
	}
	w.exits(t, 4, "volume", "restore", "--from-backup", "first", "--claim", "shop/none", "--to-file", image+".2")
	if left, err := filepath.Glob(image + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if out := w.must(t, "location", "maintain", "main", "--full"); !strings.Contains(out, "2 copies kept, 0 forgotten; fully tidied up") {
		t.Errorf("maintained: %s", out)
	}
}

// exits runs a command that ends with an exit code.
func (w *volumeWorld) exits(t *testing.T, want int, args ...string) {
	t.Helper()
	if stdout, stderr, code := w.kedge(t.Context(), args...); code != want {
		t.Errorf("kedge %s ended with exit code %d, not %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
}
