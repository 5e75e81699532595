//go:build unix

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/test/testbed"
)

// key names an object apart from its API version: "deployments.apps shop/cart".
type key string

func keyOf(gr schema.GroupResource, namespace, name string) key {
	return key(gr.String() + " " + namespace + "/" + name)
}

// api is how a server serves one resource.
type api struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
	Versions   []string // all that are served
	Status     bool     // has a status subresource, so that its status is the server's side
}

// object is one object of a server.
type object struct {
	key key
	api *api
	raw *unstructured.Unstructured
}

// snapshot is all objects of a server.
type snapshot struct {
	objects map[key]*object
	byUID   map[string]*object
	apis    map[schema.GroupResource]*api
}

// lister reads a server in its own way, not through Kedge's code, which is what is on trial.
type lister struct {
	cluster   *testbed.Cluster
	dynamic   dynamic.Interface
	discovery discovery.DiscoveryInterface
	// wish are versions that are preferred to what the server prefers.
	wish map[schema.GroupResource]string
}

func newLister(c *testbed.Cluster) (*lister, error) {
	dyn, err := dynamic.NewForConfig(c.Master())
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(c.Master())
	if err != nil {
		return nil, err
	}
	return &lister{cluster: c, dynamic: dyn, discovery: disco}, nil
}

// apis finds all resources that can be listed. A group that fails (an API service without a backend) is left out.
func (l *lister) apis() (map[schema.GroupResource]*api, error) {
	_, lists, err := l.discovery.ServerGroupsAndResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, err
	}
	found := map[schema.GroupResource]*api{}
	status := map[schema.GroupVersionResource]bool{}
	for _, list := range lists { // in the server's order of preference
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			gvr := gv.WithResource(r.Name)
			if parent, sub, isSub := strings.Cut(r.Name, "/"); isSub {
				if sub == "status" {
					status[gv.WithResource(parent)] = true
				}
				continue
			}
			if !slices.Contains(r.Verbs, "list") {
				continue
			}
			known := found[gvr.GroupResource()]
			if known == nil {
				known = &api{GroupVersionResource: gvr, Kind: r.Kind, Namespaced: r.Namespaced}
				found[gvr.GroupResource()] = known
			}
			known.Versions = append(known.Versions, gv.Version)
		}
	}
	for gr, a := range found {
		if wish := l.wish[gr]; slices.Contains(a.Versions, wish) {
			a.Version = wish
		}
		a.Status = status[a.GroupVersionResource]
	}
	return found, nil
}

// revision is the number of the last write to the server's etcd, whatever was written: what a list says of itself that is neither
// old nor from a cache that lags.
func (l *lister) revision(ctx context.Context) (string, error) {
	list, err := l.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", fmt.Errorf("ask %s for its revision: %w", l.cluster.Name, err)
	}
	return list.GetResourceVersion(), nil
}

// read lists everything that takes part in comparisons.
func (l *lister) read(ctx context.Context) (*snapshot, error) {
	apis, err := l.apis()
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", l.cluster.Name, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	results := make(chan []*object, len(apis))
	for gr, a := range apis {
		if notCompared(gr) {
			continue
		}
		group.Go(func() error {
			list, err := l.dynamic.Resource(a.GroupVersionResource).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				return nil // its definition was deleted since
			}
			if err != nil {
				return fmt.Errorf("list %s of %s: %w", gr, l.cluster.Name, err)
			}
			objects := make([]*object, 0, len(list.Items))
			for i := range list.Items {
				raw := &list.Items[i]
				objects = append(objects, &object{key: keyOf(gr, raw.GetNamespace(), raw.GetName()), api: a, raw: raw})
			}
			results <- objects
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	close(results)
	s := &snapshot{objects: map[key]*object{}, byUID: map[string]*object{}, apis: apis}
	for objects := range results {
		for _, o := range objects {
			s.byUID[string(o.raw.GetUID())] = o
			if !ownedByTestbed(o) {
				s.objects[o.key] = o
			}
		}
	}
	return s, nil
}

// keys lists the objects in order.
func (s *snapshot) keys() []key {
	keys := make([]key, 0, len(s.objects))
	for k := range s.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// controller is the object that made another and keeps it as it should be, if any.
func (s *snapshot) controller(o *object) *object {
	ref := metav1.GetControllerOfNoCopy(o.raw)
	if ref == nil {
		return nil
	}
	return s.byUID[string(ref.UID)]
}
