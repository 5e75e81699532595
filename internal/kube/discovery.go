package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	discoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

// Discovery is what an API server serves, at one moment.
type Discovery struct {
	ServerVersion string // gitVersion: "v1.36.3"
	// Resources has one entry for each served version of each resource, ordered by group, resource and the server's preference
	// of versions, the preferred one first.
	Resources []Resource
	// Failed has the group versions ("metrics.k8s.io/v1beta1") whose resources could not be learned, usually because the
	// service behind an aggregated API is away.
	Failed map[string]error
}

// Resource is one resource in one version.
type Resource struct {
	Group, Version, Resource, Kind, Singular string
	ShortNames, Categories                   []string
	Namespaced                               bool
	Verbs                                    []string
	// Preferred: of the versions that have this resource, it is the one that comes first in the server's order.
	Preferred bool
	// StorageVersionHash is equal in the versions of a resource that share a storage; only legacy discovery has it.
	StorageVersionHash string
	Subresources       []string // "scale", "status"; sorted
	// ResponseKind is the kind that the resource's objects have where it is not in the same group version: "autoscaling/v1 Scale".
	ResponseGroup, ResponseVersion string
}

// GroupResource is "pods" or "deployments.apps".
func (r Resource) GroupResource() string {
	if r.Group == "" {
		return r.Resource
	}
	return r.Resource + "." + r.Group
}

// APIVersion is "v1" or "apps/v1".
func (r Resource) APIVersion() string {
	if r.Group == "" {
		return r.Version
	}
	return r.Group + "/" + r.Version
}

// Can says whether the resource has all of the verbs.
func (r Resource) Can(verbs ...string) bool {
	for _, v := range verbs {
		if !slices.Contains(r.Verbs, v) {
			return false
		}
	}
	return true
}

// Path is the URL path of a collection (name "") or an object. An empty namespace means all namespaces for a collection.
func (r Resource) Path(namespace, name string) string {
	var b strings.Builder
	if r.Group == "" {
		b.WriteString("/api/")
	} else {
		b.WriteString("/apis/" + url.PathEscape(r.Group) + "/")
	}
	b.WriteString(url.PathEscape(r.Version))
	if r.Namespaced && namespace != "" {
		b.WriteString("/namespaces/" + url.PathEscape(namespace))
	}
	b.WriteString("/" + url.PathEscape(r.Resource))
	if name != "" {
		b.WriteString("/" + url.PathEscape(name))
	}
	return b.String()
}

const (
	maxDiscovery      = 64 << 20
	acceptAggregated  = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
	aggregatedMarker  = "g=apidiscovery.k8s.io"
	discoveryParallel = 16
)

// Discover learns the server's version and resources: in three requests where it knows aggregated discovery (1.27 and
// later), else with one for each group version, at once. A group version that does not answer is in Failed and fails nothing else.
func (c *Client) Discover(ctx context.Context) (*Discovery, error) {
	d := &discoverer{client: c, failed: map[string]error{}}
	var info version.Info
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.getJSON(gctx, "/version", &info) })
	g.Go(func() error { return d.root(gctx, "/api") })
	g.Go(func() error { return d.root(gctx, "/apis") })
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("discover what the server offers: %w", err)
	}
	if err := d.legacy(ctx); err != nil {
		return nil, fmt.Errorf("discover what the server offers: %w", err)
	}
	return &Discovery{ServerVersion: info.GitVersion, Resources: d.sorted(), Failed: d.failed}, nil
}

func (c *Client) getJSON(ctx context.Context, path string, into any) error {
	resp, err := c.Do(ctx, Request{Path: path, MaxBody: maxDiscovery})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Body, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return nil
}

// ranked is a resource with its version's place in the server's order.
type ranked struct {
	Resource
	rank int
}

type discoverer struct {
	client *Client
	mu     sync.Mutex
	found  []ranked
	asked  []groupVersion // what only legacy discovery can tell
	failed map[string]error
}

type groupVersion struct {
	group, version string
	rank           int
}

func (gv groupVersion) String() string {
	if gv.group == "" {
		return gv.version
	}
	return gv.group + "/" + gv.version
}

// root reads /api or /apis, in whichever form the server has it.
func (d *discoverer) root(ctx context.Context, path string) error {
	resp, err := d.client.Do(ctx, Request{Path: path, Accept: acceptAggregated, MaxBody: maxDiscovery})
	if err != nil {
		return err
	}
	if strings.Contains(resp.Header.Get("Content-Type"), aggregatedMarker) {
		// v2beta1 differs from v2 in its name only.
		var list discoveryv2.APIGroupDiscoveryList
		if err := json.Unmarshal(resp.Body, &list); err != nil {
			return fmt.Errorf("read the answer of %s: %w", path, err)
		}
		d.aggregated(&list)
		return nil
	}
	var groups struct {
		Versions []string          `json:"versions"` // of APIVersions
		Groups   []metav1.APIGroup `json:"groups"`   // of APIGroupList
	}
	if err := json.Unmarshal(resp.Body, &groups); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, v := range groups.Versions {
		d.asked = append(d.asked, groupVersion{"", v, i})
	}
	for _, g := range groups.Groups {
		for i, v := range g.Versions {
			rank := i + 1
			if v.Version == g.PreferredVersion.Version {
				rank = 0
			}
			d.asked = append(d.asked, groupVersion{g.Name, v.Version, rank})
		}
	}
	return nil
}

func (d *discoverer) aggregated(list *discoveryv2.APIGroupDiscoveryList) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range list.Items {
		for rank, v := range g.Versions {
			gv := groupVersion{g.Name, v.Version, rank}
			if v.Freshness == discoveryv2.DiscoveryFreshnessStale {
				d.failed[gv.String()] = fmt.Errorf("discover %s: the service behind this aggregated API does not answer", gv)
				continue
			}
			for i := range v.Resources {
				d.found = append(d.found, ranked{fromAggregated(gv, &v.Resources[i]), rank})
			}
		}
	}
}

func fromAggregated(gv groupVersion, r *discoveryv2.APIResourceDiscovery) Resource {
	out := Resource{
		Group: gv.group, Version: gv.version, Resource: r.Resource, Singular: r.SingularResource,
		ShortNames: r.ShortNames, Categories: r.Categories, Verbs: r.Verbs,
		Namespaced: r.Scope == discoveryv2.ScopeNamespace,
	}
	if k := r.ResponseKind; k != nil {
		out.Kind, out.ResponseGroup, out.ResponseVersion = k.Kind, k.Group, k.Version
	}
	for _, s := range r.Subresources {
		out.Subresources = append(out.Subresources, s.Subresource)
	}
	slices.Sort(out.Subresources)
	return out
}

// legacy asks for the group versions that the roots only named.
func (d *discoverer) legacy(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(discoveryParallel)
	for _, gv := range d.asked {
		g.Go(func() error {
			path := "/apis/" + gv.String()
			if gv.group == "" {
				path = "/api/" + gv.version
			}
			var list metav1.APIResourceList
			err := d.client.getJSON(ctx, path, &list)
			d.mu.Lock()
			defer d.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil:
				d.failed[gv.String()] = err
			default:
				d.found = append(d.found, fromLegacy(gv, list.APIResources)...)
			}
			return nil
		})
	}
	return g.Wait()
}

func fromLegacy(gv groupVersion, list []metav1.APIResource) []ranked {
	at := map[string]int{}
	var out []ranked
	for _, r := range list {
		if strings.Contains(r.Name, "/") {
			continue
		}
		at[r.Name] = len(out)
		out = append(out, ranked{Resource{
			Group: gv.group, Version: gv.version, Resource: r.Name, Kind: r.Kind, Singular: r.SingularName,
			ShortNames: r.ShortNames, Categories: r.Categories, Namespaced: r.Namespaced, Verbs: r.Verbs,
			StorageVersionHash: r.StorageVersionHash,
			ResponseGroup:      orElse(r.Group, gv.group), ResponseVersion: orElse(r.Version, gv.version),
		}, gv.rank})
	}
	for _, r := range list {
		parent, sub, found := strings.Cut(r.Name, "/")
		if i, known := at[parent]; found && known {
			out[i].Subresources = append(out[i].Subresources, sub)
		}
	}
	for i := range out {
		slices.Sort(out[i].Subresources)
	}
	return out
}

// sorted puts the findings in order and marks the preferred versions.
func (d *discoverer) sorted() []Resource {
	slices.SortFunc(d.found, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource.Resource, b.Resource.Resource), cmp.Compare(a.rank, b.rank), cmp.Compare(a.Version, b.Version))
	})
	out := make([]Resource, len(d.found))
	for i, r := range d.found {
		out[i] = r.Resource
		if out[i].Singular == "" {
			out[i].Singular = strings.ToLower(out[i].Kind)
		}
		out[i].Preferred = i == 0 || out[i-1].Group != out[i].Group || out[i-1].Resource != out[i].Resource
	}
	return out
}
