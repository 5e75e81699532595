package notify

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/test/testbed"
)

func install(t *testing.T, cluster *testbed.Cluster) client.Client {
	t.Helper()
	err := fs.WalkDir(deploy.CRDs, "crds", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := deploy.CRDs.ReadFile(path)
		if err != nil {
			return err
		}
		return cluster.ApplyYAML(t.Context(), string(text))
	})
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cluster.Master(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kedge"}}); err != nil {
		t.Fatal(err)
	}
	return c
}

// serve runs a notifier as a server does; it gives what stops it.
func serve(t *testing.T, cfg *rest.Config, scheme *runtime.Scheme, conf string) (stop func()) {
	t.Helper()
	parsed, err := Parse([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Logger: testr.New(t), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := New(Options{
		Client: mgr.GetClient(), Config: parsed, OwnCluster: func(context.Context) (string, error) { return "cluster-uid", nil },
		UserAgent: "kedge/v1", Now: time.Now, Rand: func() float64 { return 0 },
	})
	if err := n.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// finished makes a Backup that has ended just now.
func finished(t *testing.T, c client.Client, name string, phase v1alpha1.Phase) *v1alpha1.Backup {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kedge"}}
	if err := c.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	b.Status = v1alpha1.BackupStatus{Phase: phase, StartTime: &now, CompletionTime: &now}
	if err := c.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %s", what)
		}
	}
}

// TestOnACluster: on a real API server, what has ended is told once and marked; a server that begins anew tells only what was not marked.
func TestOnACluster(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.36.3")
	c := install(t, cluster)
	r := newReceiver(t)
	marked := func(b *v1alpha1.Backup) bool {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(b), b); err != nil {
			t.Fatal(err)
		}
		return b.Annotations[NotifiedAnnotation] == string(b.UID)+"-"+string(b.Status.Phase)
	}

	stop := serve(t, cluster.Kedge(t), c.Scheme(), hooks(r.URL))
	one := finished(t, c, "one", v1alpha1.PhaseCompleted)
	eventually(t, "one is not marked", func() bool { return marked(one) })
	r.set(http.StatusInternalServerError, nil)
	two := finished(t, c, "two", v1alpha1.PhaseFailed)
	id := func(b *v1alpha1.Backup) string { return string(b.UID) + "-" + string(b.Status.Phase) }
	eventually(t, "two was not tried", func() bool { return len(r.ids()) >= 2 })
	stop()
	if marked(two) {
		t.Error("what was not taken is marked")
	}

	before := len(r.ids())
	r.set(http.StatusOK, nil)
	three := finished(t, c, "three", v1alpha1.PhaseCompleted) // while no server is there
	stop = serve(t, cluster.Kedge(t), c.Scheme(), hooks(r.URL))
	eventually(t, "two and three are not marked", func() bool { return marked(two) && marked(three) })
	stop()
	counts := map[string]int{}
	for _, got := range r.ids()[before:] {
		counts[got]++
	}
	if diff := cmp.Diff(map[string]int{id(two): 1, id(three): 1}, counts); diff != "" {
		t.Errorf("after the restart were told (-want +got):\n%s", diff)
	}
}
