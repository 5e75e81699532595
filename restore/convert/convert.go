// Package convert changes objects of Kubernetes' built-in kinds from one API version to another, as the API server itself
// would, so that what an old cluster stored can be created in a cluster that no longer serves that version.
//
// Objects are decoded JSON as k8s.io/apimachinery/pkg/util/json gives it: map[string]any, []any, string, bool, nil, int64
// and float64. Everything here is a pure function of the object; nothing looks at a cluster.
//
// The rules are those of the Kubernetes API reference and of the "Deprecated API Migration Guide"; where an old version
// had another default than its successor, the old default is written out, so that the object keeps its meaning.
package convert

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/internal/tree"
)

// ErrNoSuccessor means that no version that this table knows can hold the object. The error is a *NoSuccessorError.
var ErrNoSuccessor = errors.New("no API version succeeds it")

// ErrUnknown means that the table does not know the kind, or not in the version asked for: a custom resource, or a kind
// that never changed.
var ErrUnknown = errors.New("no conversion is known")

// NoSuccessorError says why an object cannot be converted, and what its owner can do instead.
type NoSuccessorError struct {
	GVK schema.GroupVersionKind
	// Reason is one or two sentences for people.
	Reason string
}

// Error names the kind and the reason.
func (e *NoSuccessorError) Error() string {
	return fmt.Sprintf("convert %s %s: %v: %s", e.GVK.GroupVersion(), e.GVK.Kind, ErrNoSuccessor, e.Reason)
}

// Is makes errors.Is(err, ErrNoSuccessor) true.
func (e *NoSuccessorError) Is(target error) bool { return target == ErrNoSuccessor }

// Convert changes obj in place to the version to. The kind and the resource's plural name never change. It returns a
// warning for everything that was lost or now means something else; where there is none, the object means what it meant.
// The annotation kubectl.kubernetes.io/last-applied-configuration is left as it is: it records what a user wrote.
//
// The error wraps ErrNoSuccessor or ErrUnknown; obj must not be used then. Converting to the version that obj has changes
// nothing.
func Convert(obj map[string]any, to schema.GroupVersion) (warnings []string, err error) {
	gvk, err := kindOf(obj)
	if err != nil {
		return nil, err
	}
	if gvk.GroupVersion() == to {
		return nil, nil
	}
	if reason, gone := NoSuccessor(gvk); gone {
		return nil, &NoSuccessorError{GVK: gvk, Reason: reason}
	}
	f, ok := families[gvk]
	if !ok {
		return nil, fmt.Errorf("convert %s %s: %w", gvk.GroupVersion(), gvk.Kind, ErrUnknown)
	}
	from, target := f.find(gvk.GroupVersion()), f.find(to)
	if target == nil || target.down == nil {
		return nil, fmt.Errorf("convert %s %s to %s: %w", gvk.GroupVersion(), gvk.Kind, to, ErrUnknown)
	}
	c := &conversion{obj: obj, from: gvk, to: to}
	from.up(c)
	if c.refused == "" {
		target.down(c)
	}
	if c.refused != "" {
		return nil, &NoSuccessorError{GVK: gvk, Reason: c.refused}
	}
	obj["apiVersion"] = to.String()
	return c.warnings, nil
}

// Successors are the versions that an object of this kind can be converted to, the best first: newest stable, then
// older and less stable ones, for a cluster that is itself old. It is empty where there are none (see NoSuccessor) and
// where the kind is not known.
func Successors(gvk schema.GroupVersionKind) []schema.GroupVersionKind {
	if _, gone := NoSuccessor(gvk); gone {
		return nil
	}
	f, ok := families[gvk]
	if !ok {
		return nil
	}
	var out []schema.GroupVersionKind
	for _, v := range f.versions {
		if v.down != nil && v.gv != gvk.GroupVersion() {
			out = append(out, v.gv.WithKind(gvk.Kind))
		}
	}
	return out
}

// NoSuccessor says whether a kind, in this version, is known to have no successor, and why: what took over its work.
func NoSuccessor(gvk schema.GroupVersionKind) (reason string, gone bool) {
	if reason, gone = removedVersions[gvk]; gone {
		return reason, true
	}
	reason, gone = removedKinds[gvk.GroupKind()]
	return reason, gone
}

func kindOf(obj map[string]any) (schema.GroupVersionKind, error) {
	kind, apiVersion := tree.Text(obj, "kind"), tree.Text(obj, "apiVersion")
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil || kind == "" || gv.Version == "" {
		return schema.GroupVersionKind{}, fmt.Errorf("convert an object with apiVersion %q and kind %q: %w", apiVersion, kind, ErrUnknown)
	}
	return gv.WithKind(kind), nil
}

// conversion is one object on its way between two versions.
type conversion struct {
	obj      map[string]any
	from     schema.GroupVersionKind
	to       schema.GroupVersion
	warnings []string
	refused  string
}

func (c *conversion) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// refuse ends the conversion: no version can hold this very object.
func (c *conversion) refuse(format string, args ...any) {
	c.refused = fmt.Sprintf(format, args...)
}

// spec is the object's spec, or an empty map that is not part of the object.
func (c *conversion) spec() map[string]any { return tree.Map(c.obj, "spec") }
