//go:build unix

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/testbed"
)

// object is one object of the sample applications, whatever version it is served in.
type object struct {
	schema.GroupKind
	namespace, name string
}

func (o object) String() string {
	if o.namespace == "" {
		return fmt.Sprintf("%s %s", o.Kind, o.name)
	}
	return fmt.Sprintf("%s %s/%s", o.Kind, o.namespace, o.name)
}

// census lists the objects of the applications' manifests: all of them, or those of one namespace. It fails where the cluster lacks
// one, so that a comparison with it means something.
func census(ctx context.Context, c *testbed.Cluster, namespace string) ([]object, error) {
	created, applied, err := apps.Objects()
	if err != nil {
		return nil, err
	}
	var all []object
	for _, o := range slices.Concat(created, applied) {
		if namespace == "" || o.GetNamespace() == namespace {
			all = append(all, object{o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName()})
		}
	}
	missing, err := absent(ctx, c, all)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s lacks %v before anything happened", c.Name, missing)
	}
	return all, err
}

// absent returns the objects that a cluster does not have in any version it serves.
func absent(ctx context.Context, c *testbed.Cluster, objects []object) ([]object, error) {
	cfg := rest.CopyConfig(c.Master())
	cfg.QPS = -1
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(disco)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	var missing []object
	for _, o := range objects {
		mapping, err := mapper.RESTMapping(o.GroupKind)
		if meta.IsNoMatchError(err) {
			missing = append(missing, o)
			continue
		}
		if err != nil {
			return nil, err
		}
		_, err = client.Resource(mapping.Resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			missing = append(missing, o)
		case err != nil:
			return nil, err
		}
	}
	return missing, nil
}

// deleteNamespace deletes a namespace and waits until it is gone.
func deleteNamespace(ctx context.Context, c *testbed.Cluster, name string) error {
	client, err := dynamic.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	namespaces := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	if err := namespaces.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := namespaces.Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is still there: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}
