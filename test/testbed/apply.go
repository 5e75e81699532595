//go:build unix

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// FieldManager owns the fields of what Apply applies.
const FieldManager = "kedge-testbed"

// Parse reads the objects of YAML or JSON documents; the items of lists stand for themselves. Empty documents are skipped.
func Parse(manifests []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	var objects []*unstructured.Unstructured
	for n := 1; ; n++ {
		var doc map[string]any
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read document %d: %w", n, err)
		}
		if len(doc) == 0 {
			continue
		}
		obj := &unstructured.Unstructured{Object: doc}
		if !obj.IsList() {
			objects = append(objects, obj)
			continue
		}
		err = obj.EachListItem(func(item runtime.Object) error {
			objects = append(objects, item.(*unstructured.Unstructured))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the list in document %d: %w", n, err)
		}
	}
}

// ApplyOptions say how Apply sends objects.
type ApplyOptions struct {
	// Namespace is where namespaced objects go that name none: "default" if empty. It is made where it is missing.
	Namespace string
	// Create chooses the objects that are POSTed, as clients do that know no server-side apply. Nil chooses none.
	Create func(*unstructured.Unstructured) bool
	// MakeNamespaces makes the namespaces that objects name and nobody else makes.
	MakeNamespaces bool
	// BeforeLast is called before what may refuse or hide others is sent. Nil does nothing.
	BeforeLast func(context.Context) error
}

// Outcome is what became of one object.
type Outcome struct {
	Object *unstructured.Unstructured // as it was sent
	Live   *unstructured.Unstructured // as the server answered; nil where it refused
	Err    error                      // why it refused
}

// ApplyYAML applies manifests server-side and fails where the cluster refuses any of them.
func (c *Cluster) ApplyYAML(ctx context.Context, manifests ...string) error {
	var objects []*unstructured.Unstructured
	for _, text := range manifests {
		parsed, err := Parse([]byte(text))
		if err != nil {
			return err
		}
		objects = append(objects, parsed...)
	}
	outcomes, err := c.Apply(ctx, objects, ApplyOptions{})
	for _, o := range outcomes {
		if o.Err != nil {
			err = errors.Join(err, fmt.Errorf("%s %s/%s: %w", o.Object.GetKind(), o.Object.GetNamespace(), o.Object.GetName(), o.Err))
		}
	}
	return err
}

// Apply sends objects in the order that a cluster needs: namespaces, definitions of custom resources (waiting until they are served),
// everything else, and what may refuse or hide others (webhooks, admission policies, API services) last. The outcomes come in the order
// of sending. The error is about the whole, never a refusal of one object.
func (c *Cluster) Apply(ctx context.Context, objects []*unstructured.Unstructured, opts ApplyOptions) ([]Outcome, error) {
	if opts.Namespace == "" {
		opts.Namespace = "default"
	}
	waves := sortWaves(objects)
	if err := c.makeNamespace(ctx, opts.Namespace); err != nil {
		return nil, err
	}
	outcomes := c.sendAll(ctx, waves[0], opts)
	definitions := c.sendAll(ctx, waves[1], opts)
	for i, o := range definitions {
		if o.Err == nil {
			definitions[i].Err = c.waitServed(ctx, o.Live)
		}
	}
	outcomes = append(outcomes, definitions...)
	if err := c.readyNamespaces(ctx, waves[2], opts); err != nil {
		return outcomes, err
	}
	rest := c.sendAll(ctx, waves[2], opts)
	for i, o := range rest { // what was refused for want of an object that came after it
		if o.Err != nil && !apierrors.IsInvalid(o.Err) {
			rest[i] = c.send(ctx, o.Object, opts)
		}
	}
	outcomes = append(outcomes, rest...)
	if opts.BeforeLast != nil {
		if err := opts.BeforeLast(ctx); err != nil {
			return outcomes, err
		}
	}
	return append(outcomes, c.sendAll(ctx, waves[3], opts)...), ctx.Err()
}

// sortWaves parts objects by when they are sent. What makes pods comes after everything that shapes them (limits, accounts, classes).
func sortWaves(objects []*unstructured.Unstructured) [4][]*unstructured.Unstructured {
	var waves [4][]*unstructured.Unstructured
	var workloads []*unstructured.Unstructured
	for _, obj := range objects {
		w := wave(obj)
		if w == 2 && workload[obj.GetKind()] {
			workloads = append(workloads, obj.DeepCopy())
			continue
		}
		waves[w] = append(waves[w], obj.DeepCopy())
	}
	waves[2] = append(waves[2], workloads...)
	return waves
}

var workload = map[string]bool{
	"Pod": true, "ReplicaSet": true, "ReplicationController": true, "Deployment": true, "StatefulSet": true, "DaemonSet": true,
	"Job": true, "CronJob": true,
}

func wave(obj *unstructured.Unstructured) int {
	switch obj.GetKind() {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService", "ValidatingAdmissionPolicyBinding",
		"MutatingAdmissionPolicyBinding":
		return 3
	}
	return 2
}

func (c *Cluster) sendAll(ctx context.Context, objects []*unstructured.Unstructured, opts ApplyOptions) []Outcome {
	outcomes := make([]Outcome, 0, len(objects))
	for _, obj := range objects {
		outcomes = append(outcomes, c.send(ctx, obj, opts))
	}
	return outcomes
}

func (c *Cluster) send(ctx context.Context, obj *unstructured.Unstructured, opts ApplyOptions) Outcome {
	o := Outcome{Object: obj}
	resource, namespaced, err := c.api.resource(obj.GroupVersionKind())
	if err != nil {
		o.Err = err
		return o
	}
	var client dynamic.ResourceInterface = c.api.dynamic.Resource(resource)
	if namespaced {
		if obj.GetNamespace() == "" {
			obj.SetNamespace(opts.Namespace)
		}
		client = c.api.dynamic.Resource(resource).Namespace(obj.GetNamespace())
	} else {
		obj.SetNamespace("")
	}
	if obj.GetName() == "" || (opts.Create != nil && opts.Create(obj)) {
		o.Live, o.Err = client.Create(ctx, obj, metav1.CreateOptions{FieldManager: FieldManager})
		if !apierrors.IsAlreadyExists(o.Err) {
			return o
		}
	}
	o.Live, o.Err = client.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return o
}

func (c *Cluster) makeNamespace(ctx context.Context, name string) error {
	ns := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
	}}
	_, err := c.api.dynamic.Resource(namespaces).Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	return nil
}

var (
	namespaces          = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	definitionsResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	serviceAccounts     = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
)

// readyNamespaces waits until the namespaces that objects live in have their default service account, without which pods are refused.
// Where no controllers run it makes them.
func (c *Cluster) readyNamespaces(ctx context.Context, objects []*unstructured.Unstructured, opts ApplyOptions) error {
	names := []string{opts.Namespace}
	for _, obj := range objects {
		names = append(names, obj.GetNamespace())
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name == "" {
			continue
		}
		if opts.MakeNamespaces {
			_ = c.makeNamespace(ctx, name) // a name that is refused is refused for the objects too
		}
		if _, err := c.api.dynamic.Resource(namespaces).Get(ctx, name, metav1.GetOptions{}); err != nil {
			continue // the objects' refusals will say so
		}
		accounts := c.api.dynamic.Resource(serviceAccounts).Namespace(name)
		if c.opts.noControllers {
			account := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"},
			}}
			if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
			continue
		}
		err := waitReady(ctx, "the default service account of "+name, func(ctx context.Context) error {
			_, err := accounts.Get(ctx, "default", metav1.GetOptions{})
			return err
		}, c.servers...)
		if err != nil {
			return err
		}
	}
	return nil
}

// waitServed waits until every served version of a custom resource definition, as it is by now, is in discovery.
func (c *Cluster) waitServed(ctx context.Context, sent *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return waitReady(ctx, "custom resource definition "+sent.GetName(), func(ctx context.Context) error {
		crd, err := c.api.dynamic.Resource(definitionsResource).Get(ctx, sent.GetName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, v := range versions {
			version, _ := v.(map[string]any)
			name, _ := version["name"].(string)
			if served, _ := version["served"].(bool); !served {
				continue
			}
			if _, _, err := c.api.resource(schema.GroupVersionKind{Group: group, Version: name, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	}, c.servers...)
}

// apiClient finds resources of kinds, and remembers them.
type apiClient struct {
	dynamic   dynamic.Interface
	discovery discovery.DiscoveryInterface

	mu    sync.Mutex
	known map[schema.GroupVersionKind]metav1.APIResource
}

func newAPIClient(cfg *rest.Config) (*apiClient, error) {
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return &apiClient{dynamic: dyn, discovery: disco, known: map[schema.GroupVersionKind]metav1.APIResource{}}, nil
}

// resource is the resource that serves a kind, and whether it is namespaced.
func (a *apiClient) resource(gvk schema.GroupVersionKind) (schema.GroupVersionResource, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, found := a.known[gvk]
	if !found {
		list, err := a.discovery.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
		if err != nil {
			return schema.GroupVersionResource{}, false, fmt.Errorf("%s is not served: %w", gvk.GroupVersion(), err)
		}
		for _, entry := range list.APIResources {
			if !slices.Contains(entry.Verbs, "create") || slices.Contains([]rune(entry.Name), '/') {
				continue
			}
			a.known[gvk.GroupVersion().WithKind(entry.Kind)] = entry
		}
		if r, found = a.known[gvk]; !found {
			return schema.GroupVersionResource{}, false, fmt.Errorf("kind %s of %s is not served", gvk.Kind, gvk.GroupVersion())
		}
	}
	return gvk.GroupVersion().WithResource(r.Name), r.Namespaced, nil
}
