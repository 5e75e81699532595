// Package health says whether a server can work (readiness) and whether it has to be started again (liveness).
package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"kedge.dev/kedge/api/v1alpha1"
)

// ReadyOptions say what Ready looks at. All are needed.
type ReadyOptions struct {
	// Reader reads from the API server itself: a cache answers also when that is gone.
	Reader    client.Reader
	Namespace string
	// Elected is closed when this process becomes the leader: a manager's Elected.
	Elected <-chan struct{}
	Now     func() time.Time
}

// The bounds of patience.
const (
	readTimeout = 3 * time.Second
	// unavailableFor is how long the default location may be out of reach before the leader is not ready.
	unavailableFor = 5 * time.Minute
)

// Ready succeeds where the API server answers and, in the leader, where the default location has been usable in the last minutes. A server that
// waits for its turn is ready as soon as it could take over: so one whose rights or settings were corrected replaces one that is stuck. Where
// there is no location yet there is nothing to wait for.
func Ready(opts ReadyOptions) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), readTimeout)
		defer cancel()
		var list v1alpha1.BackupStorageLocationList
		if err := opts.Reader.List(ctx, &list, client.InNamespace(opts.Namespace)); err != nil {
			return fmt.Errorf("the API server does not list locations: %w", err)
		}
		select {
		case <-opts.Elected:
		default:
			return nil
		}
		l := defaultOf(list.Items)
		if l == nil {
			return nil
		}
		c := meta.FindStatusCondition(l.Status.Conditions, "Ready")
		if c == nil || c.Status == metav1.ConditionTrue {
			return nil
		}
		if since := opts.Now().Sub(lastUsable(l, c)); since > unavailableFor {
			return fmt.Errorf("the default location %s has been unusable for %s: %s", l.Name, since.Truncate(time.Second), c.Reason)
		}
		return nil
	}
}

// defaultOf is the location of backups that name none; nil where that is not clear.
func defaultOf(all []v1alpha1.BackupStorageLocation) *v1alpha1.BackupStorageLocation {
	var marked []*v1alpha1.BackupStorageLocation
	for i := range all {
		if all[i].Spec.Default {
			marked = append(marked, &all[i])
		}
	}
	switch {
	case len(marked) == 1:
		return marked[0]
	case len(marked) == 0 && len(all) == 1:
		return &all[0]
	}
	return nil
}

// lastUsable is when a location was last known to be usable, or was made.
func lastUsable(l *v1alpha1.BackupStorageLocation, ready *metav1.Condition) time.Time {
	last := ready.LastTransitionTime.Time
	if t := l.Status.LastValidationTime; t != nil && t.After(last) {
		last = t.Time
	}
	if last.IsZero() {
		last = l.CreationTimestamp.Time
	}
	return last
}

// longestRunning is the gauge that controller-runtime keeps of each controller.
const longestRunning = "workqueue_longest_running_processor_seconds"

// Controllers fails where a reconcile has not returned for longer than most. Long work does not run in one, so it hangs, and nobody else can take over
// while this process holds its lease. registry is where controller-runtime's metrics are.
func Controllers(registry prometheus.Gatherer, most time.Duration) healthz.Checker {
	return func(*http.Request) error {
		families, err := registry.Gather()
		if err != nil && len(families) == 0 {
			return fmt.Errorf("read the metrics of the controllers: %w", err)
		}
		var stuck []string
		for _, f := range families {
			if f.GetName() != longestRunning {
				continue
			}
			for _, m := range f.Metric {
				if running := time.Duration(m.GetGauge().GetValue() * float64(time.Second)); running > most {
					stuck = append(stuck, fmt.Sprintf("%s for %s", nameOf(m), running.Truncate(time.Second)))
				}
			}
		}
		if len(stuck) > 0 {
			return errors.New("controllers hang: " + strings.Join(stuck, ", "))
		}
		return nil
	}
}

func nameOf(m *dto.Metric) string {
	for _, l := range m.Label {
		if l.GetName() == "name" {
			return l.GetValue()
		}
	}
	return "one without a name"
}
