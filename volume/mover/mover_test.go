//go:build unix

package mover_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/podrunner"
	"kedge.dev/kedge/test/testbed"
	"kedge.dev/kedge/volume/mover"
)

const (
	image  = "registry.example/kedge:test"
	handle = "fs-0123456789abcdef0:/uploads"
	uid    = "4f1c6f0e-0000-4000-8000-000000000001"
)

// place is a namespace in which movers run, with a program of the test's own in the place of kedge.
type place struct {
	*mover.Mover
	clients *kubernetes.Clientset
	runner  *podrunner.Runner
}

// newPlace makes a namespace of a level of Pod Security. The program is a shell script; $result is the file for its result.
func newPlace(t *testing.T, name, level, script string) *place {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
	clients, err := kubernetes.NewForConfig(cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.New(cluster.Kedge(t), kube.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level}}}
	if _, err := clients.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "kedge-location"}, Data: map[string][]byte{"config.yaml": []byte("{}")}}
	if _, err := clients.CoreV1().Secrets(name).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "kedge")
	text := "#!/bin/sh\nfor a; do case \"$a\" in --result-file=*) result=${a#*=};; esac; done\n" + script + "\n"
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	settings := mover.Settings{Namespace: name, Image: image, Secret: "kedge-location"}
	p := &place{Mover: settings.With(client, "main", time.Now), clients: clients}
	folder := t.TempDir()
	p.runner = podrunner.Start(t, podrunner.Options{
		Clients: clients, Namespace: name, Images: map[string]string{image: program}, Folder: func(string) string { return folder },
	})
	return p
}

// task is the copy of an EFS volume that one zone can mount.
func task() mover.Task {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "uploads"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			ClaimRef:                      &corev1.ObjectReference{Namespace: "shop", Name: "uploads", UID: "1"},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete, StorageClassName: "efs", MountOptions: []string{"tls"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "efs.csi.aws.com", VolumeHandle: handle}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"eu-west-1a"}}},
			}}}},
		},
	}
	return mover.Task{Owner: mover.Owner{Label: mover.LabelBackup, UID: uid}, Storage: "efs.csi.aws.com/" + handle, Claim: "shop/uploads", PV: pv}
}

// made are the objects of movers that a cluster has now.
func (p *place) made(t *testing.T) (pvs []corev1.PersistentVolume, claims []corev1.PersistentVolumeClaim, jobs []batchv1.Job) {
	t.Helper()
	options := metav1.ListOptions{LabelSelector: mover.LabelBackup + "=" + uid}
	v, err := p.clients.CoreV1().PersistentVolumes().List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for i := range v.Items {
		if v.Items[i].Spec.ClaimRef.Namespace == p.Namespace {
			pvs = append(pvs, v.Items[i])
		}
	}
	c, err := p.clients.CoreV1().PersistentVolumeClaims(p.Namespace).List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	j, err := p.clients.BatchV1().Jobs(p.Namespace).List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return pvs, c.Items, j.Items
}

// TestCopy looks at what a mover makes in a cluster while it runs, and that nothing of it stays.
func TestCopy(t *testing.T) {
	p := newPlace(t, "copying", "baseline", `echo '{"operation":"copy","copy":"abc","files":3,"code":0}' > "$result"`)
	looked := false
	wait := p.Sleep
	p.Sleep = func(ctx context.Context, d time.Duration) error {
		if !looked {
			looked = true
			p.check(t)
		}
		return wait(ctx, d)
	}
	r, err := p.Copy(t.Context(), "cluster-uid", task())
	if err != nil || r.Copy != "abc" || r.Files != 3 || !looked {
		t.Fatalf("copied %+v, %v", r, err)
	}
	args := strings.Join(p.runner.Runs()[0].Args, " ")
	if want := "--volume=files/efs.csi.aws.com/" + handle + " --cluster=cluster-uid"; !strings.Contains(args, want) || !strings.HasPrefix(args, "mover copy --path=/data --storage-location=main ") {
		t.Errorf("the mover got %s", args)
	}
	if pvs, claims, jobs := p.made(t); len(pvs)+len(claims)+len(jobs) > 0 {
		t.Errorf("%d volumes, %d claims and %d jobs are left", len(pvs), len(claims), len(jobs))
	}
}

func (p *place) check(t *testing.T) {
	t.Helper()
	pvs, claims, jobs := p.made(t)
	if len(pvs) != 1 || len(claims) != 1 || len(jobs) != 1 {
		t.Fatalf("%d volumes, %d claims and %d jobs", len(pvs), len(claims), len(jobs))
	}
	pv, from := pvs[0], task().PV
	if pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || pv.Spec.StorageClassName != "" || pv.Spec.CSI.VolumeHandle != handle ||
		pv.Spec.NodeAffinity.Required.String() != from.Spec.NodeAffinity.Required.String() || pv.Spec.MountOptions[0] != "tls" || pv.Spec.ClaimRef.Name != claims[0].Name {
		t.Errorf("the volume is %+v", pv.Spec)
	}
	pod := jobs[0].Spec.Template.Spec
	c := pod.Containers[0]
	if *c.SecurityContext.AllowPrivilegeEscalation || !*c.SecurityContext.ReadOnlyRootFilesystem || *pod.AutomountServiceAccountToken ||
		fmt.Sprint(c.SecurityContext.Capabilities.Add) != "[DAC_OVERRIDE FOWNER]" || !c.VolumeMounts[0].ReadOnly || !pod.Volumes[0].PersistentVolumeClaim.ReadOnly {
		t.Errorf("the pod is %+v", pod)
	}
	spread := pod.TopologySpreadConstraints
	if len(spread) != 1 || spread[0].TopologyKey != corev1.LabelHostname || spread[0].LabelSelector.MatchLabels["app.kubernetes.io/name"] != jobs[0].Spec.Template.Labels["app.kubernetes.io/name"] {
		t.Errorf("movers are spread by %+v", spread)
	}
}

// TestResults: what a mover says, and how it ends, becomes a result or an error, and what another try cannot mend is not tried again.
func TestResults(t *testing.T) {
	for _, c := range []struct {
		name, script, want string
		tries              int
	}{
		{"partial", `echo '{"copy":"abc","counts":{"unreadable":2},"code":3}' > "$result"; exit 3`, "", 1},
		{"refused", `echo '{"code":5,"error":"no key opens it"}' > "$result"; exit 5`, "exit code 5: no key opens it", 1},
		{"silent", `echo 'panic: it broke' >&2; exit 2`, "exit code 2: Error panic: it broke", 1},
		{"again", `if [ -e "$TMPDIR/../../once" ]; then echo '{"copy":"abc","counts":{"unreadable":2},"code":3}' > "$result"; exit 3; fi; touch "$TMPDIR/../../once"; exit 1`, "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, "results-"+c.name, "baseline", c.script)
			r, err := p.Copy(t.Context(), "cluster-uid", task())
			switch {
			case c.want == "" && (err != nil || r.Copy != "abc" || r.Lacks() != 2):
				t.Errorf("copied %+v, %v; %v", r, err, p.runner.Runs())
			case c.want != "" && (!errors.Is(err, mover.ErrFailed) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("failed with %v", err)
			}
			if n := len(p.runner.Runs()); n != c.tries {
				t.Errorf("%d pods ran", n)
			}
		})
	}
}

// TestResultIsLost: a Job that has succeeded, but whose pod is removed before its result is read, is run again; not for ever.
func TestResultIsLost(t *testing.T) {
	for losses, want := range map[int]error{1: nil, 5: mover.ErrFailed} {
		name := fmt.Sprint("losing-", losses)
		p := newPlace(t, name, "baseline", `echo '{"operation":"copy","copy":"abc","code":0}' > "$result"`)
		left := losses
		p.Sleep = func(ctx context.Context, _ time.Duration) error {
			for left > 0 { // nobody looks before the Job has succeeded, and its pod is gone
				jobs, err := p.clients.BatchV1().Jobs(name).List(ctx, metav1.ListOptions{})
				if err != nil {
					return err
				}
				if len(jobs.Items) == 0 || jobs.Items[0].DeletionTimestamp != nil {
					break // it is being removed
				}
				if jobs.Items[0].Status.Succeeded > 0 {
					left--
					return p.clients.CoreV1().Pods(name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
				}
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			return ctx.Err()
		}
		if r, err := p.Copy(t.Context(), "cluster-uid", task()); !errors.Is(err, want) || want == nil && (err != nil || r.Copy != "abc") {
			t.Errorf("%d losses: copied %+v, %v", losses, r, err)
		}
		if n := len(p.runner.Runs()); n != min(losses, 2)+1 {
			t.Errorf("%d losses: %d pods ran", losses, n)
		}
	}
}

// TestNotStarted: where the namespace does not let a mover's pod in, the error says so.
func TestNotStarted(t *testing.T) {
	p := newPlace(t, "closed", "restricted", "exit 1")
	var later time.Duration
	p.Now = func() time.Time { return time.Now().Add(later) }
	wait := p.Sleep
	p.Sleep = func(ctx context.Context, _ time.Duration) error {
		list, err := p.clients.CoreV1().Events("closed").List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			later = time.Hour
		}
		return wait(ctx, 50*time.Millisecond)
	}
	_, err := p.Copy(t.Context(), "cluster-uid", task())
	if !errors.Is(err, mover.ErrNotStarted) || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("failed with %v", err)
	}
}

// TestCancelAndSweep: a mover that is cancelled is told to end; one that was left behind by a crash is removed by its owner's name, and does
// not keep the next one from running.
func TestCancelAndSweep(t *testing.T) {
	p := newPlace(t, "crashing", "baseline", `trap 'exit 130' TERM; if [ -e "$TMPDIR/../../go" ]; then echo '{"copy":"abc","code":0}' > "$result"; exit 0; fi; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	p.Sleep = func(ctx context.Context, _ time.Duration) error {
		pods, err := p.clients.CoreV1().Pods("crashing").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err == nil && len(pods.Items) > 0 {
			cancel()
		}
		time.Sleep(50 * time.Millisecond)
		return context.Cause(ctx)
	}
	if _, err := p.Copy(ctx, "cluster-uid", task()); !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled one ends with %v", err)
	}
	p.Sleep = func(_ context.Context, _ time.Duration) error { time.Sleep(50 * time.Millisecond); return nil }
	if err := p.Sweep(t.Context(), task().Owner); err != nil {
		t.Fatal(err)
	}
	for len(p.runner.Runs()) == 0 && t.Context().Err() == nil { // the stand-in tells the process of the pod's end by and by
		time.Sleep(20 * time.Millisecond)
	}
	if runs := p.runner.Runs(); len(runs) != 1 || runs[0].ExitCode != 130 {
		t.Errorf("the pod ended as %+v", runs)
	}
	// What a crash leaves: here all but the Job.
	left := task()
	labels := map[string]string{mover.LabelMover: "copy", mover.LabelBackup: uid}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "kedge-mover-left", Labels: labels}, Spec: *left.PV.Spec.DeepCopy()}
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "crashing", Name: "kedge-mover-left"}
	pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	if _, err := p.clients.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Sweep(t.Context(), left.Owner); err != nil {
		t.Fatal(err)
	}
	if pvs, claims, jobs := p.made(t); len(pvs)+len(claims)+len(jobs) > 0 {
		t.Errorf("%d volumes, %d claims and %d jobs are left", len(pvs), len(claims), len(jobs))
	}
}

// TestSettings: half of what a mover needs is refused, nothing is no mover.
func TestSettings(t *testing.T) {
	whole := mover.Settings{Namespace: "n", Image: "i", Secret: "s"}
	if err := whole.Check(); err != nil || whole.With(nil, "main", time.Now) == nil {
		t.Errorf("refused: %v", err)
	}
	none := mover.Settings{Secret: "s"}
	if err := none.Check(); err != nil || none.With(nil, "main", time.Now) != nil {
		t.Errorf("no settings: %v", err)
	}
	for _, half := range []mover.Settings{{Namespace: "n", Secret: "s"}, {Image: "i", Secret: "s"}, {Namespace: "n", Image: "i"}, {ServiceAccount: "a", Secret: "s"}} {
		if half.Check() == nil {
			t.Errorf("accepted %+v", half)
		}
	}
}
