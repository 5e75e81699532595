// Package install puts the server's objects into a cluster, keeps them up to date, and takes them away again.
package install

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/deploy/render"
	"kedge.dev/kedge/internal/kube"
)

// FieldManager owns the fields of what is applied.
const FieldManager = "kedge-install"

// Group is the API group of Kedge's kinds, and GroupVersion what their objects are made in.
const (
	Group        = "kedge.dev"
	GroupVersion = Group + "/v1alpha1"
)

// Errors that callers test for, with errors.Is.
var (
	// ErrForeign means that somebody else (Helm) has installed the server.
	ErrForeign = errors.New("it was installed by something else")
	// ErrNotInstalled means that there is no installation.
	ErrNotInstalled = errors.New("kedge is not installed there")
	// ErrInstalled means that there is one already.
	ErrInstalled = errors.New("kedge is installed there already")
	// ErrNotReady means that the server did not become ready in time.
	ErrNotReady = errors.New("the server is not ready")
	// ErrNoNamespace means that a namespace is not there which the installation does not make.
	ErrNoNamespace = errors.New("there is no namespace of that name")
)

// pollEvery is how often is looked at what is waited for.
const pollEvery = 500 * time.Millisecond

// definedWithin is how long an API server may take to serve kinds that were defined.
const definedWithin = time.Minute

// Installer works on one installation in one cluster.
type Installer struct {
	Client             *kube.Client
	Release, Namespace string
	// Changed is told of each object that was made, changed, left as it was or deleted.
	Changed func(Change)
	// Warned is told what the API server warns of.
	Warned func(text string)

	discovery *kube.Discovery
}

// Action is what was done to an object.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "changed"
	Unchanged Action = "unchanged"
	Deleted   Action = "deleted"
)

// Change is what was done to one object.
type Change struct {
	Action                Action
	Kind, Namespace, Name string
}

// Open looks at the cluster. Release names the installation within the namespace.
func Open(ctx context.Context, client *kube.Client, release, namespace string) (*Installer, error) {
	i := &Installer{Client: client, Release: release, Namespace: namespace, Changed: func(Change) {}, Warned: func(string) {}}
	return i, i.discover(ctx)
}

func (i *Installer) discover(ctx context.Context) (err error) {
	i.discovery, err = i.Client.Discover(ctx)
	return err
}

// APIVersions are the group versions that the cluster serves, with the kinds in them, and those of Kedge's kinds, which Apply defines before it uses them.
func (i *Installer) APIVersions() []string {
	versions := []string{GroupVersion}
	for _, r := range i.discovery.Resources {
		versions = append(versions, r.APIVersion(), r.APIVersion()+"/"+r.Kind)
	}
	slices.Sort(versions)
	return slices.Compact(versions)
}

// Apply makes or changes objects in their order (server-side apply), and waits after definitions of kinds until they are served.
func (i *Installer) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	var defined []string
	for n, o := range objects {
		if err := i.apply(ctx, o); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if o.GetKind() != definitionKind {
			continue
		}
		defined = append(defined, o.GetName())
		if n+1 == len(objects) || objects[n+1].GetKind() != definitionKind {
			if err := i.waitDefined(ctx, defined); err != nil {
				return err
			}
		}
	}
	return nil
}

const definitionKind = "CustomResourceDefinition"

func (i *Installer) apply(ctx context.Context, o *unstructured.Unstructured) error {
	resource, ok := i.resource(o.GetAPIVersion(), o.GetKind())
	if !ok {
		return fmt.Errorf("the cluster has no kind %s in %s; turn off the value that asks for it, or install what defines it", o.GetKind(), o.GetAPIVersion())
	}
	path := resource.Path(o.GetNamespace(), o.GetName())
	before, err := i.get(ctx, path)
	if err != nil {
		return err
	}
	body, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	response, err := i.Client.Do(ctx, kube.Request{
		Method: http.MethodPatch, Path: path, Body: body, ContentType: "application/apply-patch+yaml", Idempotent: true,
		Query: url.Values{"fieldManager": {FieldManager}, "force": {"true"}},
	})
	if err != nil {
		return err
	}
	for _, warning := range response.Header.Values("Warning") {
		i.Warned(warningText(warning))
	}
	after := &unstructured.Unstructured{}
	if err := after.UnmarshalJSON(response.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	change := Change{Action: Updated, Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
	switch {
	case before == nil:
		change.Action = Created
	case reflect.DeepEqual(own(before), own(after)):
		change.Action = Unchanged
	}
	i.Changed(change)
	return nil
}

// own is what an applier says of an object: without its status and the marks of each write, which change by themselves.
func own(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	unstructured.RemoveNestedField(o.Object, "status")
	unstructured.RemoveNestedField(o.Object, "metadata", "managedFields")
	unstructured.RemoveNestedField(o.Object, "metadata", "resourceVersion")
	// Old servers count a generation for each apply of a definition with rules that they do not know, and drop.
	unstructured.RemoveNestedField(o.Object, "metadata", "generation")
	return o.Object
}

// warningText takes the text out of a Warning header: 299 - "text".
func warningText(header string) string {
	for n, c := range header {
		if c == '"' {
			if text, err := strconv.QuotedPrefix(header[n:]); err == nil {
				text, _ = strconv.Unquote(text)
				return text
			}
			break
		}
	}
	return header
}

// get reads an object; nil where there is none.
func (i *Installer) get(ctx context.Context, path string) (*unstructured.Unstructured, error) {
	response, err := i.Client.Do(ctx, kube.Request{Path: path})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(response.Body); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return o, nil
}

func (i *Installer) resource(apiVersion, kind string) (kube.Resource, bool) {
	n := slices.IndexFunc(i.discovery.Resources, func(r kube.Resource) bool { return r.APIVersion() == apiVersion && r.Kind == kind })
	if n < 0 {
		return kube.Resource{}, false
	}
	return i.discovery.Resources[n], true
}

// waitDefined waits until definitions are established and their kinds are served.
func (i *Installer) waitDefined(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, definedWithin)
	defer cancel()
	for _, name := range names {
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + url.PathEscape(name)
		err := poll(ctx, func() (bool, error) {
			o, err := i.get(ctx, path)
			return o != nil && condition(o, "Established") == "True", err
		})
		if err != nil {
			return fmt.Errorf("wait for the kind of %s: %w", name, err)
		}
	}
	err := poll(ctx, func() (bool, error) {
		if err := i.discover(ctx); err != nil {
			return false, err
		}
		served := 0
		for _, r := range i.discovery.Resources {
			if slices.Contains(names, r.GroupResource()) {
				served++
			}
		}
		return served >= len(names), nil
	})
	if err != nil {
		return fmt.Errorf("wait until Kedge's kinds are served: %w", err)
	}
	return nil
}

// condition is the status of one of an object's conditions; empty where it has none of that type.
func condition(o *unstructured.Unstructured, kind string) string {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			status, _ := c["status"].(string)
			return status
		}
	}
	return ""
}

// poll asks again and again until the answer is yes, an error, or the end of ctx.
func poll(ctx context.Context, ask func() (bool, error)) error {
	timer := time.NewTicker(pollEvery)
	defer timer.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// deployment is where an installation's Deployment is.
func (i *Installer) deployment(name string) string {
	return "/apis/apps/v1/namespaces/" + url.PathEscape(i.Namespace) + "/deployments/" + url.PathEscape(name)
}

// CheckOwner refuses (ErrForeign) where something else has installed a server of this name in the namespace.
func (i *Installer) CheckOwner(ctx context.Context) error {
	o, err := i.get(ctx, i.deployment(i.Release))
	if err != nil || o == nil {
		return err
	}
	if by := o.GetLabels()[managedByLabel]; by != render.Service {
		return fmt.Errorf("look for an installation in namespace %s: %w: its label %s is %q", i.Namespace, ErrForeign, managedByLabel, cmp.Or(by, "not set"))
	}
	return nil
}

// CheckNamespaces refuses (ErrNoNamespace), before anything is changed, where a namespace is not there that objects need and do not make.
func (i *Installer) CheckNamespaces(ctx context.Context, objects []*unstructured.Unstructured) error {
	there := map[string]bool{"": true}
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			there[o.GetName()] = true
		}
	}
	for _, o := range objects {
		name := o.GetNamespace()
		if there[name] {
			continue
		}
		ns, err := i.get(ctx, "/api/v1/namespaces/"+url.PathEscape(name))
		switch {
		case apierrors.IsForbidden(err): // the apply will tell
		case err != nil:
			return fmt.Errorf("look for namespace %s: %w", name, err)
		case ns == nil:
			return fmt.Errorf("apply %s %s in %s: %w", o.GetKind(), o.GetName(), name, ErrNoNamespace)
		}
		there[name] = true
	}
	return nil
}

// The labels by which an installation's objects are found.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	instanceLabel  = "app.kubernetes.io/instance"
)
