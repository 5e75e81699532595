package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/deploy/render"
	"kedge.dev/kedge/internal/kube"
)

// owned are the resources that a chart of any version has made, in the order in which an uninstall deletes them. Namespaces and
// definitions of kinds are not among them: an installation never takes along what users have made.
var owned = []string{
	"deployments.apps", "services", "configmaps", "poddisruptionbudgets.policy", "networkpolicies.networking.k8s.io",
	"servicemonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com",
	"rolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io",
	"clusterrolebindings.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io", "serviceaccounts",
	"validatingadmissionpolicybindings.admissionregistration.k8s.io", "validatingadmissionpolicies.admissionregistration.k8s.io",
	"flowschemas.flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", "priorityclasses.scheduling.k8s.io",
}

// settings are the resources of Kedge's own kinds that values can make. An upgrade deletes those that the values no longer name; an
// uninstall keeps them, as it keeps what users have made of these kinds.
var settings = []string{"backupstoragelocations.kedge.dev", "schedules.kedge.dev"}

// Prune deletes what the installation has made before and objects no longer has.
func (i *Installer) Prune(ctx context.Context, objects []*unstructured.Unstructured) error {
	keep := map[string]bool{}
	for _, o := range objects {
		keep[key(o)] = true
	}
	return i.deleteOwned(ctx, slices.Concat(settings, owned), keep)
}

// Remove deletes the whole installation. The namespace, the definitions of Kedge's kinds and all objects of these kinds stay.
func (i *Installer) Remove(ctx context.Context) error {
	if err := i.deleteOwned(ctx, owned, nil); err != nil {
		return err
	}
	path := secretPath(i.Namespace, valuesName(i.Release))
	o, err := i.get(ctx, path)
	if err != nil || o == nil {
		return err
	}
	return i.delete(ctx, path, o)
}

func key(o *unstructured.Unstructured) string {
	return o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
}

func (i *Installer) deleteOwned(ctx context.Context, resources []string, keep map[string]bool) error {
	for _, name := range resources {
		n := slices.IndexFunc(i.discovery.Resources, func(r kube.Resource) bool { return r.GroupResource() == name && r.Preferred })
		if n < 0 {
			continue // the cluster has no such kind
		}
		r := i.discovery.Resources[n]
		objects, err := i.list(ctx, r)
		if err != nil {
			return fmt.Errorf("list the installation's %s: %w", name, err)
		}
		for _, o := range objects {
			if keep[key(o)] {
				continue
			}
			if err := i.delete(ctx, r.Path(o.GetNamespace(), o.GetName()), o); err != nil {
				return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
	}
	return nil
}

// list gives the installation's objects of one resource: in its own namespace, or of the cluster.
func (i *Installer) list(ctx context.Context, r kube.Resource) ([]*unstructured.Unstructured, error) {
	response, err := i.Client.Do(ctx, kube.Request{
		Path:  r.Path(i.Namespace, ""),
		Query: url.Values{"labelSelector": {managedByLabel + "=" + render.Service + "," + instanceLabel + "=" + i.Release}},
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list unstructured.UnstructuredList
	if err := list.UnmarshalJSON(response.Body); err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(list.Items))
	for n := range list.Items {
		objects[n] = &list.Items[n]
		objects[n].SetKind(r.Kind) // the items of a list need not say it
	}
	return objects, nil
}

// delete deletes the very object that was read, and what belongs to it.
func (i *Installer) delete(ctx context.Context, path string, o *unstructured.Unstructured) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": map[string]any{"uid": o.GetUID()},
	})
	if err != nil {
		return err
	}
	_, err = i.Client.Do(ctx, kube.Request{Method: http.MethodDelete, Path: path, Body: body, Idempotent: true})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	i.Changed(Change{Action: Deleted, Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()})
	return nil
}

// Objects counts the objects of Kedge's kinds in the whole cluster, by resource ("backups"); those that have none are left out.
func (i *Installer) Objects(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, r := range i.discovery.Resources {
		if r.Group != Group || !r.Preferred {
			continue
		}
		response, err := i.Client.Do(ctx, kube.Request{Path: r.Path("", "")})
		if err != nil {
			return nil, fmt.Errorf("count the %s: %w", r.Resource, err)
		}
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal(response.Body, &list); err != nil {
			return nil, fmt.Errorf("count the %s: %w", r.Resource, err)
		}
		if len(list.Items) > 0 {
			counts[r.Resource] = len(list.Items)
		}
	}
	return counts, nil
}

// RemoveKinds deletes the definitions of Kedge's kinds, and thereby all objects of these kinds, and waits until they are gone.
func (i *Installer) RemoveKinds(ctx context.Context) error {
	for _, r := range i.discovery.Resources {
		if r.Group != Group || !r.Preferred {
			continue
		}
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + url.PathEscape(r.GroupResource())
		o, err := i.get(ctx, path)
		if err == nil && o != nil {
			err = i.delete(ctx, path, o)
		}
		if err != nil {
			return fmt.Errorf("delete the kind of %s: %w", r.Resource, err)
		}
		waiting, cancel := context.WithTimeout(ctx, definedWithin)
		err = poll(waiting, func() (bool, error) {
			o, err := i.get(ctx, path)
			return o == nil, err
		})
		cancel()
		if err != nil {
			return fmt.Errorf("wait until the kind of %s is gone: %w", r.Resource, err)
		}
	}
	return nil
}
