//go:build unix

package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/server"
	"kedge.dev/kedge/server/notify"
	"kedge.dev/kedge/test/testbed"
)

// gathered gives the values of the gauges and counters of a registry.
func gathered(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			id := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			out[id] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// TestSeenFromOutside: a server that makes a backup shows it in its metrics, tells a webhook once, and answers its probes.
func TestSeenFromOutside(t *testing.T) {
	var (
		mu   sync.Mutex
		told []string
	)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, r.Header.Get("Webhook-Id"))
	}))
	defer hook.Close()
	config, err := notify.Parse([]byte("webhooks: [{name: ops, url: '" + hook.URL + "'}]"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := port.Addr().String()
	port.Close()
	h := newHouse(t, "1.36.3")
	h.location(t, "main", testbed.NewBucket(t))
	registry := prometheus.NewRegistry()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	cfg := h.cluster.Kedge(t)
	group.Go(func() error {
		return server.Run(ctx, cfg, server.Options{
			Namespace: namespace, ClusterName: "house", Version: "test", MetricsAddress: "0", HealthAddress: address, SpoolDir: t.TempDir(), Log: logr.Discard(),
			Now: time.Now, Metrics: registry, Notifications: config,
		})
	})
	h.create(t, newBackup("first"))
	b := h.backup(t, "first")
	id := string(b.UID) + "-Completed"
	wait(t, "the mark of the notification", func(ctx context.Context) (bool, any) {
		err := h.client.Get(ctx, client.ObjectKeyFromObject(b), b)
		return b.Annotations[notify.NotifiedAnnotation] == id, fmt.Sprint(b.Annotations, err)
	})
	mu.Lock()
	if len(told) != 1 || told[0] != id {
		t.Errorf("the webhook was told %v, want %s once", told, id)
	}
	mu.Unlock()

	wait(t, "the metrics of the backup", func(context.Context) (bool, any) {
		got := gathered(t, registry)
		for series, least := range map[string]float64{
			`kedge_state_readable{}`: 1, `kedge_server_leader{}`: 1, `kedge_server_info{version=test}`: 1,
			`kedge_backups_ended_total{location=main,phase=Completed}`: 1, `kedge_backup_items_total{location=main}`: float64(b.Status.Counts.Items),
			`kedge_backups{location=main,phase=Completed}`: 1, `kedge_location_ready{location=main}`: 1, `kedge_location_backups{location=main}`: 1,
			`kedge_backup_newest_restorable_timestamp_seconds{location=main,schedule=}`: float64(b.Status.StartTime.Unix()),
			`kedge_store_requests_total{location=main,operation=put,result=ok}`:         1, `kedge_store_bytes_total{direction=written,location=main}`: 1,
			`kedge_notifications_total{event=Success,result=delivered,webhook=ops}`: 1,
		} {
			if got[series] < least {
				return false, fmt.Sprintf("%s is %v, want %v", series, got[series], least)
			}
		}
		_, queued := got[`kedge_pool_queued{kind=backup}`]
		return queued, "kedge_pool_queued is missing"
	})
	for _, path := range []string{"/readyz", "/healthz"} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d: %s (%v)", path, resp.StatusCode, body, err)
		}
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if left := gathered(t, registry); len(left) > 0 {
		t.Errorf("after the server has ended the registry still has %d series", len(left))
	}
}
