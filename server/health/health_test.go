package health

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kedge.dev/kedge/api/v1alpha1"
)

var now = time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)

func location(name string, isDefault bool, ready metav1.ConditionStatus, since time.Duration, answered time.Duration) *v1alpha1.BackupStorageLocation {
	l := &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kedge"}}
	l.Spec.Default = isDefault
	if ready != "" {
		l.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: ready, Reason: "AccessDenied", LastTransitionTime: metav1.NewTime(now.Add(-since))}}
	}
	if answered > 0 {
		t := metav1.NewTime(now.Add(-answered))
		l.Status.LastValidationTime = &t
	}
	return l
}

func TestReady(t *testing.T) {
	const bad, good = metav1.ConditionFalse, metav1.ConditionTrue
	for name, c := range map[string]struct {
		locations []client.Object
		waiting   bool
		apiDown   bool
		want      string // part of the error; "" is ready
	}{
		"no location yet":                 {},
		"a location that is new":          {locations: []client.Object{location("a", true, "", 0, 0)}},
		"usable":                          {locations: []client.Object{location("a", true, good, time.Hour, time.Minute)}},
		"unusable for a moment":           {locations: []client.Object{location("a", true, bad, time.Minute, time.Hour)}},
		"unusable, answered a moment ago": {locations: []client.Object{location("a", true, metav1.ConditionUnknown, time.Hour, time.Minute)}},
		"unusable":                        {locations: []client.Object{location("a", true, bad, time.Hour, time.Hour)}, want: "location a has been unusable for 1h0m0s: AccessDenied"},
		"the only one is the default":     {locations: []client.Object{location("a", false, bad, time.Hour, 0)}, want: "location a"},
		"another than the default":        {locations: []client.Object{location("a", true, good, time.Hour, 0), location("b", false, bad, time.Hour, 0)}},
		"no default among several":        {locations: []client.Object{location("a", false, bad, time.Hour, 0), location("b", false, bad, time.Hour, 0)}},
		"unusable, but another leads":     {locations: []client.Object{location("a", true, bad, time.Hour, 0)}, waiting: true},
		"the API server is gone":          {apiDown: true, waiting: true, want: "the API server does not list locations: no route"},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(c.locations...).WithInterceptorFuncs(interceptor.Funcs{
				List: func(ctx context.Context, w client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
					if c.apiDown {
						return errors.New("no route")
					}
					return w.List(ctx, list, opts...)
				},
			}).Build()
			elected := make(chan struct{})
			if !c.waiting {
				close(elected)
			}
			check := Ready(ReadyOptions{Reader: reader, Namespace: "kedge", Elected: elected, Now: func() time.Time { return now }})
			err := check(httptest.NewRequest(http.MethodGet, "/readyz", nil))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestControllers(t *testing.T) {
	registry := prometheus.NewRegistry()
	running := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: longestRunning}, []string{"name", "controller"})
	registry.MustRegister(running)
	running.WithLabelValues("backup", "backup").Set(3)
	check := Controllers(registry, 15*time.Minute)
	req := httptest.NewRequest(http.MethodGet, "/healthz", nil)
	if err := check(req); err != nil {
		t.Errorf("with a reconcile of 3 seconds: %v", err)
	}
	running.WithLabelValues("restore", "restore").Set(1000)
	if err := check(req); err == nil || err.Error() != "controllers hang: restore for 16m40s" {
		t.Errorf("with a reconcile of 1000 seconds: %v", err)
	}
}
