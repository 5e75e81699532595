//go:build linux

package node_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/testbed"
)

const (
	kedgeNamespace = "kedge"
	moverNamespace = "kedge-movers"
)

// installed is a world in which Kedge's server runs in pods, with movers and a location that pods reach.
type installed struct {
	*world
	bucket   *testbed.Bucket
	endpoint string // the bucket's, as pods reach it
	dir      string // for the files of commands
}

// install does what docs/install.md and docs/mover.md tell an administrator to do.
func install(t *testing.T, opts ...testbed.ClusterOption) *installed {
	t.Helper()
	w := &installed{world: newWorld(t, opts...), bucket: testbed.NewBucket(t), dir: t.TempDir()}
	address, err := w.cluster.Node().Reach(t.Context(), strings.TrimPrefix(w.bucket.Endpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w.endpoint = "http://" + address
	// As the Dockerfile makes it, but for the builder's stage.
	image := testbed.Image{
		Name: kedgeImage, User: "65532:65532", Entrypoint: []string{"/usr/local/bin/kedge"},
		Files: map[string]string{"/usr/local/bin/kedge": kedgeBinary, "/etc/ssl/certs/ca-certificates.crt": authorities(t)},
	}
	if err := w.cluster.Node().Import(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	w.writeCredentials(t)
	w.prepareMovers(t)
	w.kedge(t, "install", "--image", kedgeImage, "--set", "movers.namespace="+moverNamespace, "--wait")
	w.makeLocation(t)
	return w
}

// authorities is a file with the certificates of public authorities. The Dockerfile takes the builder's; nothing here needs any of them.
func authorities(t *testing.T) string {
	t.Helper()
	const file = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(file); err == nil {
		return file
	}
	empty := filepath.Join(t.TempDir(), "none.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return empty
}

// command is a kedge command of an administrator on this machine, who reaches the cluster and nothing else.
func (w *installed) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, kedgeBinary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.MasterKubeconfig(), "KEDGE_LOCAL=false",
		"KEDGE_CONFIG="+filepath.Join(w.dir, "config.yaml"), "KEDGE_STATE_DIR="+filepath.Join(w.dir, "state"))
	return cmd
}

func (w *installed) kedge(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.command(t.Context(), args...).Output()
	if err != nil {
		said := ""
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			said = string(exit.Stderr)
		}
		t.Fatalf("kedge %s: %v\n%s%s%s\n%s", strings.Join(args, " "), err, out, said, w.events(), w.serverLog())
	}
	return string(out)
}

// writeCredentials makes what leads to the bucket and opens it: config.yaml, key.txt, credentials.
func (w *installed) writeCredentials(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", w.bucket.AccessKey, w.bucket.SecretKey)
	credentials := filepath.Join(w.dir, "credentials")
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := w.command(t.Context(), "location", "create", "main", "--s3-bucket", w.bucket.Name, "--endpoint", w.bucket.Endpoint, "--region", w.bucket.Region,
		"--path-style", "--credentials-file", credentials, "--generate-age-identity", filepath.Join(w.dir, "key.txt"))
	cmd.Env = append(cmd.Env, "KEDGE_LOCAL=true")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a location: %v\n%s", err, out)
	}
}

// secretFiles are those of a Secret that opens the location, where they are mounted at a path.
func (w *installed) secretFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	data := map[string][]byte{}
	for _, name := range []string{"config.yaml", "key.txt", "credentials"} {
		text, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		data[name] = []byte(strings.NewReplacer(w.dir+"/", path+"/", w.bucket.Endpoint, w.endpoint).Replace(string(text)))
	}
	return data
}

func (w *installed) prepareMovers(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: moverNamespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}}
	if _, err := w.clients.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "kedge-location"}, Data: w.secretFiles(t, "/etc/kedge")}
	if _, err := w.clients.CoreV1().Secrets(moverNamespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// makeLocation tells the server of the bucket, and waits until it is available.
func (w *installed) makeLocation(t *testing.T) {
	t.Helper()
	files := w.secretFiles(t, "")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Data: map[string][]byte{"key.txt": files["key.txt"], "credentials": files["credentials"]}}
	if _, err := w.clients.CoreV1().Secrets(kedgeNamespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := w.cluster.ApplyYAML(t.Context(), fmt.Sprintf(`
apiVersion: kedge.dev/v1alpha1
kind: BackupStorageLocation
metadata: {name: main, namespace: %s}
spec:
  default: true
  ageIdentitySecret: {name: main, key: key.txt}
  s3: {bucket: %q, endpoint: %q, region: %q, pathStyle: true, credentialsSecret: {name: main, key: credentials}}
`, kedgeNamespace, w.bucket.Name, w.endpoint, w.bucket.Region))
	if err != nil {
		t.Fatal(err)
	}
}

// servers are the pods of the server.
func (w *installed) servers(ctx context.Context) ([]corev1.Pod, error) {
	list, err := w.clients.CoreV1().Pods(kedgeNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=kedge"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// serverLog is the end of each server's log, for the messages of failures.
func (w *installed) serverLog() string {
	pods, err := w.servers(context.Background())
	if err != nil {
		return err.Error()
	}
	text, lines := "", int64(30)
	for i := range pods {
		log, err := w.clients.CoreV1().Pods(kedgeNamespace).GetLogs(pods[i].Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(context.Background())
		text += fmt.Sprintf("log of %s: %v\n%s\n", pods[i].Name, err, log)
	}
	return text
}

// TestServerRuns: "kedge install" on a cluster with a real node ends with two servers that their own probes call ready, and that run as what the
// chart says: an ordinary user without capabilities, on a root file system that cannot be written to.
func TestServerRuns(t *testing.T) {
	w := install(t)
	deployment, err := w.clients.AppsV1().Deployments(kedgeNamespace).Get(t.Context(), "kedge", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !available(deployment) || deployment.Status.ReadyReplicas != 2 {
		t.Errorf("the Deployment: %+v", deployment.Status)
	}
	namespace, err := w.clients.CoreV1().Namespaces().Get(t.Context(), kedgeNamespace, metav1.GetOptions{})
	if err != nil || namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the namespace's labels: %v, %v", namespace.Labels, err)
	}
	if _, err := w.clients.NetworkingV1().NetworkPolicies(kedgeNamespace).Get(t.Context(), "kedge", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	pods, err := w.servers(t.Context())
	if err != nil || len(pods) != 2 {
		t.Fatalf("%d servers, %v", len(pods), err)
	}
	for i := range pods {
		if c := pods[i].Status.ContainerStatuses[0]; c.RestartCount != 0 {
			t.Errorf("%s was started again %d times: %v", pods[i].Name, c.RestartCount, c.LastTerminationState)
		}
		w.checkProcess(t, &pods[i])
	}
	w.kedge(t, "backup", "create", "config", "--include-namespaces", kedgeNamespace, "--wait")
	system, err := w.clients.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if shown := w.kedge(t, "backup", "get", "config"); !strings.Contains(shown, string(system.UID)) {
		t.Errorf("the cluster's uid %s is not in:\n%s", system.UID, shown)
	}
	w.until(t, "the location is available", func(ctx context.Context) (bool, string) {
		out, err := w.command(ctx, "location", "get", "main", "-o", "json").CombinedOutput()
		return err == nil && strings.Contains(string(out), `"phase": "Available"`), string(out)
	})
}

func available(d *appsv1.Deployment) bool {
	return slices.ContainsFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue
	})
}

// checkProcess looks at a server as the kernel of this machine sees it.
func (w *installed) checkProcess(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	proc := fmt.Sprint("/proc/", pidOf(t, id))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("%s: its process lacks %q:\n%s", pod.Name, want, status)
		}
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "mounts"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[1] == "/" && !slices.Contains(strings.Split(fields[3], ","), "ro") {
			t.Errorf("%s: its root file system can be written to: %s", pod.Name, line)
		}
	}
}

// pidOf is the id, on this machine, of the first process of a container. Its cgroups have the container's name.
func pidOf(t *testing.T, container string) int {
	t.Helper()
	pid := 0
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // cgroups come and go
			return nil
		}
		if err != nil || d.Name() != container {
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if pid, err = strconv.Atoi(first); err != nil {
			return err
		}
		return fs.SkipAll
	})
	if err != nil || pid == 0 {
		t.Fatalf("no process of container %s is in a cgroup: %v", container, err)
	}
	return pid
}
