package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

// memory is a source in memory: what a test writes, or a copy of a cluster.
type memory struct {
	info   Info
	chunks []memoryChunk
	// reads counts how often each chunk was read.
	reads []int
}

type memoryChunk struct {
	group, version, resource string
	rows                     []archive.Row
	raws                     [][]byte
}

func (m *memory) Info() Info { return m.info }

func (m *memory) Rows(_ context.Context, match func(Chunk) bool, fn func(int, archive.Row) error) error {
	for n, c := range m.chunks {
		ok := match(Chunk{Group: c.group, Version: c.version, Resource: c.resource, MayHold: func(ns string) bool {
			return slices.ContainsFunc(c.rows, func(r archive.Row) bool { return r.Namespace == ns })
		}, MayHoldName: func(name string) bool {
			return slices.ContainsFunc(c.rows, func(r archive.Row) bool { return r.Name == name })
		}})
		if !ok {
			continue
		}
		for _, r := range c.rows {
			if err := fn(n, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Read(ctx context.Context, chunk int, fn func(plugins.Ref, []byte) error) error {
	if m.reads != nil {
		m.reads[chunk]++
	}
	c := &m.chunks[chunk]
	for n, r := range c.rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(r.Ref, slices.Clone(c.raws[n])); err != nil {
			return err
		}
	}
	return nil
}

// add takes in one object, archived as resource of a group and version.
func (m *memory) add(r kube.Resource, raw []byte) error {
	head, err := rawjson.ReadHead(raw)
	if err != nil {
		return err
	}
	row := archive.Row{
		Ref:  plugins.Ref{Group: r.Group, Version: r.Version, Resource: r.Resource, Namespace: head.Namespace, Name: head.Name},
		Kind: r.Kind, UID: head.UID, Labels: head.Labels, Applied: head.Applied, Size: int64(len(raw)),
	}
	for _, o := range head.Owners {
		row.Owners = append(row.Owners, archive.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID, Controller: o.Controller})
	}
	if raw, err = rawjson.WithTypeMeta(nil, raw, r.APIVersion(), r.Kind); err != nil {
		return err
	}
	const perChunk = 500
	n := len(m.chunks) - 1
	if n < 0 || m.chunks[n].group != r.Group || m.chunks[n].version != r.Version || m.chunks[n].resource != r.Resource || len(m.chunks[n].rows) == perChunk {
		m.chunks = append(m.chunks, memoryChunk{group: r.Group, version: r.Version, resource: r.Resource})
		n++
	}
	m.chunks[n].rows = append(m.chunks[n].rows, row)
	m.chunks[n].raws = append(m.chunks[n].raws, raw)
	return nil
}

// copyCluster reads a whole cluster.
func copyCluster(t testing.TB, c *kube.Client) *memory {
	t.Helper()
	ctx := t.Context()
	info, err := c.ClusterInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Discover(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{info: Info{Name: "copy", UID: "copy-uid", Cluster: v1alpha1.ClusterInfo{UID: info.UID, Version: info.Version}}}
	for _, r := range d.Resources {
		if !r.Preferred || !r.Can("list", "create") || r.GroupResource() == "events" {
			continue
		}
		m.info.APIs = append(m.info.APIs, archive.API{Group: r.Group, Resource: r.Resource, Kind: r.Kind, Namespaced: r.Namespaced,
			Versions: []string{r.Version}, Preferred: r.Version, Archived: r.Version})
		if _, err := c.List(ctx, kube.ListRequest{Path: r.Path("", "")}, func(raw []byte) error { return m.add(r, raw) }); err != nil {
			t.Fatalf("list %s: %v", r.GroupResource(), err)
		}
	}
	return m
}

// fromYAML makes a source of manifests; uids are made of the names.
func fromYAML(t testing.TB, manifests string) *memory {
	t.Helper()
	m := &memory{info: Info{Name: "yaml", UID: "yaml-uid", Cluster: v1alpha1.ClusterInfo{UID: "elsewhere", Version: "v1.36.3"}}}
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		var obj map[string]any
		if err := yaml.Unmarshal([]byte(doc), &obj); err != nil {
			t.Fatal(err)
		}
		if len(obj) == 0 {
			continue
		}
		kind, _ := obj["kind"].(string)
		apiVersion, _ := obj["apiVersion"].(string)
		meta, _ := obj["metadata"].(map[string]any)
		ns, _ := meta["namespace"].(string)
		if meta["uid"] == nil {
			meta["uid"] = fmt.Sprintf("%s/%s/%s", kind, ns, meta["name"])
		}
		group, version, err := plugins.SplitAPIVersion(apiVersion)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		r := kube.Resource{Group: group, Version: version, Kind: kind, Resource: pluralOf(kind), Namespaced: ns != ""}
		m.info.APIs = append(m.info.APIs, archive.API{Group: group, Resource: r.Resource, Kind: kind, Namespaced: ns != "",
			Versions: []string{version}, Preferred: version, Archived: version})
		if err := m.add(r, raw); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func pluralOf(kind string) string {
	s := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(s, "s") && s != "endpoints", strings.HasSuffix(s, "x"):
		return s + "es"
	case s == "endpoints":
		return s
	case strings.HasSuffix(s, "policy"):
		return strings.TrimSuffix(s, "y") + "ies"
	}
	return s + "s"
}

func clientFor(t testing.TB, cfg *rest.Config) *kube.Client {
	t.Helper()
	c, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// engineFor makes an engine with a real clock.
func engineFor(c *kube.Client, s Source) *Engine {
	return &Engine{Kube: c, Source: s, Now: time.Now}
}

// request is a restore of everything, which does not wait long.
func request(name string) Request {
	r := Request{Name: name, UID: name + "-uid"}
	r.Spec.WaitTimeout.Duration = 20 * time.Second
	return r
}

// restoreAll plans and runs.
func restoreAll(t testing.TB, e *Engine, req Request) *Report {
	t.Helper()
	p, err := e.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// entriesOf gives the lines of a report about one object.
func entriesOf(r *Report, resource, namespace, name string) []Entry {
	var out []Entry
	for _, e := range r.Entries {
		if e.Ref.GroupResource() == resource && e.Ref.Namespace == namespace && e.Ref.Name == name {
			out = append(out, e)
		}
	}
	return out
}
