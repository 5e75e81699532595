package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/efs"
	efstypes "github.com/aws/aws-sdk-go-v2/service/efs/types"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/podrunner"
	"kedge.dev/kedge/volume/mover"
)

const (
	movers     = "kedge-movers"
	moverImage = "registry.example/kedge:test"
)

// fileWorld is a volumeWorld in which Jobs of movers run.
type fileWorld struct {
	*volumeWorld
	runner *podrunner.Runner
	folder string    // of the volume shop/uploads
	assets string    // of all volumes on the file system
	system string    // the file system, of EFS
	then   time.Time // when all in it was written
}

// moverFlags tell commands how to run Jobs.
var moverFlags = []string{"--mover-namespace", movers, "--mover-image", moverImage}

func newFileWorld(t *testing.T) *fileWorld {
	t.Helper()
	w := &fileWorld{volumeWorld: newVolumeWorld(t), folder: t.TempDir(), assets: t.TempDir(), then: time.Now().Add(-time.Hour)}
	// What the movers mount is the configuration of this test, with the paths of their containers.
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	data := map[string][]byte{"config.yaml": []byte(strings.ReplaceAll(string(config), w.dir+"/", mover.ConfigPath+"/"))}
	for _, name := range []string{"key.txt", "credentials"} {
		if data[name], err = os.ReadFile(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: movers, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}}
	if _, err := w.clients.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "kedge-location"}, Data: data}
	if _, err := w.clients.CoreV1().Secrets(movers).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.runner = podrunner.Start(t, podrunner.Options{Clients: w.clients, Namespace: movers, Images: map[string]string{moverImage: binary}, Folder: w.folderOf})
	w.system = w.cloud.CreateFileSystem(nil)
	return w
}

// folderOf shows the same folder by whatever access point a mover mounts it.
func (w *fileWorld) folderOf(handle string) string {
	if strings.HasPrefix(handle, w.system) {
		return w.assets
	}
	return ""
}

// accessPoint makes one, and gives the handle of a volume that is mounted by it.
func (w *fileWorld) accessPoint(t *testing.T) string {
	t.Helper()
	out, err := efs.NewFromConfig(w.cloud.Config(w.cloud.Region())).CreateAccessPoint(t.Context(), &efs.CreateAccessPointInput{
		ClientToken: sdk.String("test"), FileSystemId: &w.system, PosixUser: &efstypes.PosixUser{Uid: sdk.Int64(1000), Gid: sdk.Int64(1000)},
		RootDirectory: &efstypes.RootDirectory{Path: sdk.String("/assets"), CreationInfo: &efstypes.CreationInfo{OwnerUid: sdk.Int64(1000), OwnerGid: sdk.Int64(1000), Permissions: sdk.String("0755")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.system + "::" + *out.AccessPointId
}

// removeAccessPoints removes all that there are, as a driver does that deletes its volumes.
func (w *fileWorld) removeAccessPoints(t *testing.T) {
	t.Helper()
	client := efs.NewFromConfig(w.cloud.Config(w.cloud.Region()))
	for _, id := range w.cloud.AccessPoints() {
		if _, err := client.DeleteAccessPoint(t.Context(), &efs.DeleteAccessPointInput{AccessPointId: &id}); err != nil {
			t.Fatal(err)
		}
	}
}

// uploads makes the claim shop/uploads of a hostPath volume, and a pod that mounts it.
func (w *fileWorld) uploads(t *testing.T) {
	t.Helper()
	err := w.cluster.ApplyYAML(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: uploads}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: shop, name: uploads}
  hostPath: {path: %s}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [one]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: uploads, namespace: shop}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  volumeName: uploads
  resources: {requests: {storage: 1Gi}}
`, w.folder))
	if err != nil {
		t.Fatal(err)
	}
	w.bound(t, "shop", "uploads")
}

func (w *fileWorld) bound(t *testing.T, namespace, name string) {
	t.Helper()
	until(t, "claim "+namespace+"/"+name+" is bound", func() bool {
		claim, err := w.clients.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && claim.Status.Phase == corev1.ClaimBound
	})
}

// result is that of the last mover.
func (w *fileWorld) result(t *testing.T) mover.Result {
	t.Helper()
	runs := w.runner.Runs()
	if len(runs) == 0 {
		t.Fatal("no mover has run")
	}
	last := runs[len(runs)-1]
	var r mover.Result
	if err := json.Unmarshal([]byte(last.Message), &r); err != nil {
		t.Fatalf("the mover %v left %q: %v\n%s", last.Args, last.Message, err, last.Log)
	}
	return r
}

// leftovers fails the test where something of a mover is left in the cluster.
func (w *fileWorld) leftovers(t *testing.T) {
	t.Helper()
	options := metav1.ListOptions{LabelSelector: mover.LabelMover}
	jobs, err := w.clients.BatchV1().Jobs(movers).List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := w.clients.CoreV1().PersistentVolumeClaims(movers).List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	pvs, err := w.clients.CoreV1().PersistentVolumes().List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(jobs.Items) + len(claims.Items) + len(pvs.Items); n > 0 {
		t.Errorf("%d objects of movers are left", n)
	}
}

// furnish fills the folder with files of many sorts, all older than what a copy looks at twice.
func (w *fileWorld) furnish(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		dir := filepath.Join(w.folder, fmt.Sprintf("d%d", i%4))
		must(os.MkdirAll(dir, 0o755))
		must(os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), []byte(strings.Repeat(fmt.Sprint(i, " "), 100*i)), 0o640))
	}
	must(os.Mkdir(filepath.Join(w.folder, "empty"), 0o711))
	must(os.Symlink("d0/f0", filepath.Join(w.folder, "link")))
	must(os.Link(filepath.Join(w.folder, "d1/f1"), filepath.Join(w.folder, "d2/hard")))
	must(syscall.Mkfifo(filepath.Join(w.folder, "fifo"), 0o600))
	if os.Geteuid() == 0 {
		must(os.Chown(filepath.Join(w.folder, "d1"), 1001, 1002))
		must(os.Chown(filepath.Join(w.folder, "d1/f5"), 1003, 1004))
		must(os.Chmod(filepath.Join(w.folder, "d1/f5"), 0o750|fs.ModeSetuid))
		must(os.Chmod(filepath.Join(w.folder, "d1"), 0o700))
	}
	w.age(t)
}

// age dates everything an hour back, to one moment.
func (w *fileWorld) age(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		return os.Chtimes(path, w.then, w.then)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tree describes all that is in the folder; names of one file have the same number.
func (w *fileWorld) tree(t *testing.T) map[string]string {
	t.Helper()
	out, numbers := map[string]string{}, map[uint64]int{}
	err := filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			if st.Nlink > 1 && numbers[st.Ino] == 0 {
				numbers[st.Ino] = len(numbers) + 1
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d %x %v", numbers[st.Ino], sha256.Sum256(data), info.ModTime())
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " " + target
		default:
			what += fmt.Sprintf(" %v", info.ModTime())
		}
		name, err := filepath.Rel(w.folder, path)
		out[name] = what
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ruin removes everything from the folder, and leaves a file that no backup has.
func (w *fileWorld) ruin(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(w.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.folder, "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestVolumeFiles copies the files of a volume that no provider knows twice, the second time only what changed, loses the namespace and
// the files, and gets either state back.
func TestVolumeFiles(t *testing.T) {
	w := newFileWorld(t)
	w.furnish(t)
	w.uploads(t)
	create := func(name string, more ...string) (string, int) {
		_, stderr, code := w.kedge(t.Context(), append([]string{"backup", "create", name, "--include-namespaces", "shop", "--volumes", "copy", "--kubeconfig", w.kubeconfig}, more...)...)
		return stderr, code
	}
	if stderr, code := create("none"); code != 3 || !strings.Contains(stderr, "NoVolumeProvider") || !strings.Contains(stderr, "docs/mover.md") {
		t.Errorf("without movers the backup ends with %d: %s", code, stderr)
	}
	first := w.tree(t)
	if stderr, code := create("first", moverFlags...); code != 0 {
		t.Fatalf("the first backup ends with %d: %s\n%v", code, stderr, w.runner.Runs())
	}
	if r := w.result(t); r.Files != 33 || r.ReadFiles == 0 || r.UploadedBytes == 0 {
		t.Errorf("the first copy: %+v", r)
	}
	w.leftovers(t)
	if err := os.WriteFile(filepath.Join(w.folder, "d3/new"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.age(t)
	second := w.tree(t)
	if stderr, code := create("second", moverFlags...); code != 0 {
		t.Fatalf("the second backup ends with %d: %s", code, stderr)
	}
	if r := w.result(t); r.Files != 34 || r.Base == "" || r.ReadFiles > 1 {
		t.Errorf("the second copy: %+v", r)
	}
	w.must(t, "backup", "verify", "second", "--deep")
	w.restoreFiles(t, first, second)
}

func (w *fileWorld) restoreFiles(t *testing.T, first, second map[string]string) {
	t.Helper()
	for _, c := range []struct {
		backup string
		want   map[string]string
	}{{"first", first}, {"second", second}} {
		w.lose(t, "shop")
		w.ruin(t)
		w.must(t, append([]string{"restore", "create", "of-" + c.backup, "--from-backup", c.backup, "--kubeconfig", w.kubeconfig}, moverFlags...)...)
		w.bound(t, "shop", "uploads")
		if diff := cmp.Diff(c.want, w.tree(t)); diff != "" {
			t.Errorf("backup %s: the files are other ones (-want +got):\n%s", c.backup, diff)
		}
		w.leftovers(t)
	}
	// Beside the living namespace the same storage would be written to under its feet.
	before, ran := w.tree(t), len(w.runner.Runs())
	args := append([]string{"restore", "create", "beside", "--from-backup", "first", "--namespace-mappings", "shop:shop-test", "--kubeconfig", w.kubeconfig}, moverFlags...)
	if _, stderr, code := w.kedge(t.Context(), args...); code != 3 || !strings.Contains(stderr, "claim shop/uploads uses the same storage") {
		t.Errorf("beside the living one the restore ends with %d: %s", code, stderr)
	}
	if diff := cmp.Diff(before, w.tree(t)); diff != "" || len(w.runner.Runs()) != ran {
		t.Errorf("the living claim's files were touched:\n%s", diff)
	}
	// Without movers nothing is restored into the volume, and the claim gets no other one.
	w.lose(t, "shop")
	if _, stderr, code := w.kedge(t.Context(), "restore", "create", "none", "--from-backup", "first", "--kubeconfig", w.kubeconfig); code != 3 || !strings.Contains(stderr, "docs/mover.md") {
		t.Errorf("without movers the restore ends with %d: %s", code, stderr)
	}
}

// TestVolumeFilesOfEFS: the files of an EFS volume are copied as others are, but a restore leaves the file system as it is unless it asks for them. An
// access point that is gone is made again, and the volume is mounted by the new one.
func TestVolumeFilesOfEFS(t *testing.T) {
	w := newFileWorld(t)
	file := filepath.Join(w.assets, "logo")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	handle, allowed := w.accessPoint(t), w.allowed(t, "--volumes", "copy")
	err := w.cluster.ApplyYAML(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: assets}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: efs
  claimRef: {namespace: shop, name: assets}
  csi: {driver: efs.csi.aws.com, volumeHandle: %s}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: assets, namespace: shop}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: efs
  volumeName: assets
  resources: {requests: {storage: 5Gi}}
`, handle))
	if err != nil {
		t.Fatal(err)
	}
	w.bound(t, "shop", "assets")
	w.must(t, append([]string{"backup", "create", "good", "--include-namespaces", "shop", "--volumes", "both", "--kubeconfig", w.kubeconfig}, moverFlags...)...)
	if r := w.result(t); r.Handle != "efs.csi.aws.com/"+handle || r.Files != 1 {
		t.Errorf("copied %+v", r)
	}
	for _, c := range []struct {
		name, want string
		gone       bool // the access point too
		flags      []string
	}{
		{"kept", "newer", false, nil}, {"asked-for", "old", false, []string{"--volumes", "from-backup"}},
		{"kept-by-another", "newer", true, nil}, {"asked-for-by-another", "old", true, []string{"--volumes", "from-backup"}},
	} {
		write("newer")
		w.lose(t, "shop")
		if c.gone {
			w.removeAccessPoints(t)
		}
		w.cloud.ResetUsage()
		args := append([]string{"restore", "create", c.name, "--from-backup", "good", "--kubeconfig", w.kubeconfig}, moverFlags...)
		w.must(t, append(args, c.flags...)...)
		w.bound(t, "shop", "assets")
		if got, err := os.ReadFile(file); err != nil || string(got) != c.want {
			t.Errorf("%s: the file is %q, %v", c.name, got, err)
		}
		said := w.must(t, "restore", "describe", c.name, "-o", "json")
		if kept := strings.Contains(said, "VolumesKept"); kept != (c.flags == nil && !c.gone) {
			t.Errorf("%s: the report says VolumesKept: %v", c.name, kept)
		}
		if unchecked := strings.Contains(said, "VolumeUnchecked"); unchecked != (c.flags == nil && c.gone) {
			t.Errorf("%s: the report says VolumeUnchecked: %v", c.name, unchecked)
		}
		w.follows(t, c.name, allowed)
		w.reachable(t, c.name, handle, c.gone)
	}
	w.beside(t, file)
	w.leftovers(t)
}

// beside restores the volume beside the living namespace: neither by default nor with the files of the backup may the copy get at the living files.
func (w *fileWorld) beside(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, []byte("living"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"restore", "create", "beside", "--from-backup", "good", "--namespace-mappings", "shop:shop-test", "--kubeconfig", w.kubeconfig}, moverFlags...)
	w.must(t, args...)
	if said := w.must(t, "restore", "describe", "beside", "-o", "json"); !strings.Contains(said, "VolumeInUse") || !strings.Contains(said, "EmptyVolume") {
		t.Errorf("beside the living one the report has neither VolumeInUse nor EmptyVolume:\n%s", said)
	}
	args = append([]string{"restore", "create", "files-beside", "--from-backup", "good", "--volumes", "from-backup", "--namespace-mappings", "shop:shop-files", "--kubeconfig", w.kubeconfig}, moverFlags...)
	if _, stderr, code := w.kedge(t.Context(), args...); code != 3 || !strings.Contains(stderr, "claim shop/assets uses the same storage") {
		t.Errorf("with its files, beside the living one the restore ends with %d: %s", code, stderr)
	}
	pvs, err := w.clients.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pvs.Items {
		if pv := &pvs.Items[i]; pv.Name != "assets" && pv.Spec.CSI != nil {
			t.Errorf("there is another volume of the file system: %s, %s", pv.Name, pv.Spec.CSI.VolumeHandle)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "living" || len(w.cloud.AccessPoints()) != 1 {
		t.Errorf("the living file is %q, %v; there are access points %q", got, err, w.cloud.AccessPoints())
	}
}

// reachable sees that the volume of shop/assets is mounted by an access point that there is: the one that it had, or another.
func (w *fileWorld) reachable(t *testing.T, what, before string, another bool) {
	t.Helper()
	pv, err := w.clients.CoreV1().PersistentVolumes().Get(t.Context(), "assets", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(pv.Spec.CSI.VolumeHandle, "::")
	if have := w.cloud.AccessPoints(); len(have) != 1 || have[0] != id {
		t.Errorf("%s: the volume is %s, where there are %q", what, pv.Spec.CSI.VolumeHandle, have)
	}
	if (pv.Spec.CSI.VolumeHandle != before) != another {
		t.Errorf("%s: the volume %s is now %s", what, before, pv.Spec.CSI.VolumeHandle)
	}
}

// TestVolumeFilesByServer: a server that is told of movers copies and restores files without anybody reaching the bucket.
func TestVolumeFilesByServer(t *testing.T) {
	w := newFileWorld(t)
	w.furnish(t)
	w.uploads(t)
	admin, err := w.cluster.Kubeconfig(w.cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	asked := func(args ...string) *exec.Cmd {
		cmd := w.command(filepath.Join(w.dir, "server.yaml"), args...)
		cmd.Env = append(cmd.Env, "KEDGE_LOCAL=false", "KUBECONFIG="+admin)
		return cmd
	}
	must := func(args ...string) {
		t.Helper()
		if stdout, stderr, code := output(t.Context(), asked(args...)); code != 0 {
			t.Fatalf("kedge %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
		}
	}
	must("install", "--image", "registry.example/kedge:test", "--set", "movers.namespace="+movers)
	server := asked(append([]string{"server", "--metrics-address", "0", "--health-address", "0"}, moverFlags...)...)
	log, err := os.Create(filepath.Join(w.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the server's log:\n%s", text)
		}
	}()
	data := map[string][]byte{}
	for _, name := range []string{"key.txt", "credentials"} {
		if data[name], err = os.ReadFile(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Data: data}
	if _, err := w.clients.CoreV1().Secrets("kedge").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err = w.cluster.ApplyYAML(t.Context(), fmt.Sprintf(`
apiVersion: kedge.dev/v1alpha1
kind: BackupStorageLocation
metadata: {name: main, namespace: kedge}
spec:
  default: true
  ageIdentitySecret: {name: main, key: key.txt}
  s3: {bucket: %q, endpoint: %q, region: %q, pathStyle: true, credentialsSecret: {name: main, key: credentials}}
`, w.bucket.Name, w.bucket.Endpoint, w.bucket.Region))
	if err != nil {
		t.Fatal(err)
	}
	want := w.tree(t)
	must("backup", "create", "good", "--include-namespaces", "shop", "--volumes", "copy", "--wait")
	if r := w.result(t); r.Files != 33 || r.Operation != "copy" {
		t.Errorf("copied %+v", r)
	}
	w.lose(t, "shop")
	w.ruin(t)
	must("restore", "create", "back", "--from-backup", "good", "--include-namespaces", "shop", "--wait")
	w.bound(t, "shop", "uploads")
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Errorf("the files are other ones (-want +got):\n%s", diff)
	}
	w.leftovers(t)
}
