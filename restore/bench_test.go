package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/restore/transform"
	"kedge.dev/kedge/test/testbed"
)

// mixedKinds are the objects of the benchmarks, by their share in percent.
var mixedKinds = []struct {
	share int
	kind  string
	body  func(ns, name string) string
}{
	{40, "ConfigMap", func(ns, name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q,"uid":"%s","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app":"bench"}},"data":{"config.yaml":%q}}`, name, ns, uuidOf(ns, name, "c"), strings.Repeat("key: value\n", 60))
	}},
	{30, "Secret", func(ns, name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":%q,"uid":"%s","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z"},"type":"Opaque","data":{"token":%q}}`, name, ns, uuidOf(ns, name, "s"), strings.Repeat("QUJD", 100))
	}},
	{15, "ServiceAccount", func(ns, name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":%q,"namespace":%q,"uid":"%s"}}`, name, ns, uuidOf(ns, name, "a"))
	}},
	{10, "Deployment", func(ns, name string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"namespace":%q,"uid":"%s","generation":1},"spec":{"replicas":0,"selector":{"matchLabels":{"app":%q}},"template":{"metadata":{"labels":{"app":%q}},"spec":{"containers":[{"name":"c","image":"registry.invalid/app:1","env":[{"name":"A","value":"b"}],"resources":{"requests":{"cpu":"10m"}}}]}}},"status":{"observedGeneration":1}}`, name, ns, uuidOf(ns, name, "d"), name, name)
	}},
	{5, "Service", func(ns, name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":%q,"namespace":%q,"uid":"%s"},"spec":{"clusterIP":"None","clusterIPs":["None"],"selector":{"app":%q},"ports":[{"port":80,"targetPort":8080,"protocol":"TCP"}]},"status":{"loadBalancer":{}}}`, name, ns, uuidOf(ns, name, "v"), name)
	}},
}

func uuidOf(ns, name, kind string) string {
	u := parseUID(ns + name + kind)
	return u.String()
}

// mixed makes n objects in namespaces of 200.
func mixed(t testing.TB, prefix string, n int) *memory {
	t.Helper()
	m := &memory{info: Info{Name: "bench", UID: "bench", Cluster: v1alpha1.ClusterInfo{UID: "elsewhere", Version: "v1.36.3"}}}
	const perNamespace = 200
	for i := range (n + perNamespace - 1) / perNamespace {
		ns := fmt.Sprintf("%s-%d", prefix, i)
		raw := fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"uid":"%s"}}`, ns, uuidOf(ns, "", "n"))
		if err := m.add(findKind("Namespace"), []byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	first := 0
	for _, k := range mixedKinds {
		r := findKind(k.kind)
		m.info.APIs = append(m.info.APIs, archive.API{Group: r.Group, Resource: r.Resource, Kind: r.Kind, Namespaced: true, Versions: []string{"v1"}, Preferred: "v1", Archived: "v1"})
		for i := range n * k.share / 100 {
			ns, name := fmt.Sprintf("%s-%d", prefix, (first+i)/perNamespace), fmt.Sprintf("object-%06d", i)
			if err := m.add(r, []byte(k.body(ns, name))); err != nil {
				t.Fatal(err)
			}
		}
		first += n * k.share / 100
	}
	return m
}

// BenchmarkPlan plans 100,000 rows; bytes/item is what the plan keeps in memory.
func BenchmarkPlan(b *testing.B) {
	m := mixed(b, "plan", 100_000)
	var rows []archive.Row
	for _, c := range m.chunks {
		rows = append(rows, c.rows...)
	}
	for n := range kinds {
		kinds[n].Verbs = []string{"create"}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var p *Plan
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if p, err = buildPlan(Request{Name: "bench"}, &kube.Discovery{ServerVersion: "v1.36.3", Resources: kinds}, rows); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(p.Len()), "bytes/item")
	runtime.KeepAlive(p)
	runtime.KeepAlive(rows)
}

// BenchmarkPrepare makes objects ready: those that need no decode, and those that an action decodes.
func BenchmarkPrepare(b *testing.B) {
	m := mixed(b, "prepare", 1000)
	var rows []archive.Row
	raws := map[string][]byte{}
	for _, c := range m.chunks {
		rows = append(rows, c.rows...)
		raws[c.resource] = c.raws[0]
	}
	for n := range kinds {
		kinds[n].Verbs = []string{"create"}
	}
	p, err := buildPlan(Request{Name: "bench"}, &kube.Discovery{ServerVersion: "v1.36.3", Resources: kinds}, rows)
	if err != nil {
		b.Fatal(err)
	}
	if p.pipeline, err = transform.Compile(transform.Options{}); err != nil {
		b.Fatal(err)
	}
	chain, err := plugins.NewChain(actions.All(actions.Options{})...)
	if err != nil {
		b.Fatal(err)
	}
	pr := preparer{plan: p, chain: chain, targetOf: func(i int32) (*target, error) { return &p.resources[p.items[i].res].target, nil }}
	for _, resource := range []string{"configmaps", "services", "deployments"} {
		b.Run(resource, func(b *testing.B) {
			i := int32(0)
			for p.resources[p.items[i].res].Resource != resource {
				i++
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := pr.prepare(context.Background(), i, raws[resource]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRestore restores into a real server, in turns with a plain program that POSTs the same bodies. No controllers run, whose
// work for earlier rounds would fall into later ones. Run it with -benchtime=1x.
func BenchmarkRestore(b *testing.B) {
	const objects = 3000
	cluster := testbed.NewCluster(b, "1.36.3", testbed.NoControllers())
	cfg, err := cluster.ServiceAccountConfig(b.Context(), "kedge-bench")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		best, ours := 0.0, 0.0
		for round, workers := range []int{8, 16, 32} {
			source := mixed(b, fmt.Sprintf("ours%d-%d", b.N, round), objects)
			client, err := kube.New(cfg, kube.Options{MaxInFlight: workers})
			if err != nil {
				b.Fatal(err)
			}
			e := engineFor(client, source)
			start, busy := time.Now(), cpuTime(b)
			r := restoreAll(b, e, request("bench"))
			oursCPU := cpuTime(b) - busy
			rate := float64(r.Counts.Created) / time.Since(start).Seconds()
			if r.Counts.Failed > 0 || r.Counts.Created != len(source.chunks[0].rows)+objects {
				b.Fatalf("%+v", r.Counts)
			}
			plain := mixed(b, fmt.Sprintf("raw%d-%d", b.N, round), objects)
			busy = cpuTime(b)
			raw := rawRate(b, cfg, plain, workers)
			b.Logf("%d connections: ours %.0f/s with %s of CPU an object, raw %.0f/s with %s", workers, rate, oursCPU/objects, raw, (cpuTime(b)-busy)/objects)
			best, ours = max(best, raw), max(ours, rate)
		}
		b.ReportMetric(ours, "objects/s")
		b.ReportMetric(best, "raw/s")
		b.ReportMetric(ours/best, "ratio")
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rawRate POSTs everything with a number of connections and gives the objects per second.
func rawRate(b *testing.B, cfg *rest.Config, m *memory, workers int) float64 {
	b.Helper()
	rt, err := rest.TransportFor(rest.AddUserAgent(&rest.Config{Host: cfg.Host, BearerToken: cfg.BearerToken, TLSClientConfig: rest.TLSClientConfig{CAData: cfg.CAData, CAFile: cfg.CAFile, NextProtos: []string{"http/1.1"}}}, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	type object struct {
		path string
		body []byte
	}
	var namespaces, rest []object
	for _, c := range m.chunks {
		for n, row := range c.rows {
			r := kube.Resource{Group: row.Group, Version: row.Version, Resource: row.Resource, Namespaced: row.Namespace != ""}
			rw := rewriting{ref: row.Ref, kind: row.Kind, dropStatus: true}
			done, err := rw.rewrite(nil, c.raws[n])
			if err != nil {
				b.Fatal(err)
			}
			o := object{r.Path(row.Namespace, ""), done.body}
			if row.Resource == "namespaces" {
				namespaces = append(namespaces, o)
			} else {
				rest = append(rest, o)
			}
		}
	}
	start := time.Now()
	for _, part := range [][]object{namespaces, rest} {
		queue := make(chan object)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for o := range queue {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, cfg.Host+o.path, bytes.NewReader(o.body))
					if err != nil {
						b.Error(err)
						continue
					}
					req.Header.Set("Content-Type", "application/json")
					resp, err := rt.RoundTrip(req)
					if err != nil {
						b.Error(err)
						continue
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != http.StatusCreated {
						b.Errorf("%s: %s", o.path, resp.Status)
					}
				}
			})
		}
		for _, o := range part {
			queue <- o
		}
		close(queue)
		wg.Wait()
	}
	return float64(len(namespaces)+len(rest)) / time.Since(start).Seconds()
}
