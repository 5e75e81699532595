// Package render makes Kubernetes objects of Kedge's Helm chart, where there is no Helm. It knows what that chart uses and nothing more; a
// test compares every object with what Helm's own library makes of it.
package render

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Service is what the label app.kubernetes.io/managed-by says of objects that come from here; Helm's says "Helm".
const Service = "kedge"

// Options say for which cluster a chart is rendered, and with what.
type Options struct {
	Release, Namespace string
	// Values are the user's, laid over the chart's own.
	Values map[string]any
	// APIVersions are the group versions that the cluster serves, and the kinds in them: "apps/v1", "apps/v1/Deployment".
	APIVersions []string
	// AppVersion goes before the chart's; it is the tag of the image where the values name none.
	AppVersion string
}

// Objects renders a chart (the folder that has Chart.yaml) and returns its objects in the order in which they are to be made. The errors
// name the value or the template.
func Objects(chart fs.FS, opts Options) ([]*unstructured.Unstructured, error) {
	values, err := Values(chart, opts.Values)
	if err != nil {
		return nil, err
	}
	about, err := readAbout(chart)
	if err != nil {
		return nil, err
	}
	about.AppVersion = cmp.Or(opts.AppVersion, about.AppVersion)
	set, names, err := parse(chart)
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"Values":       values,
		"Chart":        about,
		"Release":      release{opts.Release, opts.Namespace, Service},
		"Capabilities": capabilities{opts.APIVersions},
		"Files":        files{chart},
	}
	var objects []*unstructured.Unstructured
	for _, name := range names {
		var out bytes.Buffer
		if err := set.ExecuteTemplate(&out, name, data); err != nil {
			return nil, fmt.Errorf("render the chart: %w", templateError(err))
		}
		made, err := split(name, strings.ReplaceAll(out.String(), "<no value>", ""))
		if err != nil {
			return nil, err
		}
		objects = append(objects, made...)
	}
	sortObjects(objects)
	return objects, nil
}

// about is Chart.yaml, as far as templates read it.
type about struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	AppVersion string `json:"appVersion"`
}

func readAbout(chart fs.FS) (about, error) {
	var a about
	data, err := fs.ReadFile(chart, "Chart.yaml")
	if err == nil {
		err = yaml.Unmarshal(data, &a)
	}
	if err != nil {
		return a, fmt.Errorf("read the chart: Chart.yaml: %w", err)
	}
	return a, nil
}

// release and capabilities have the names that templates use.
type release struct{ Name, Namespace, Service string }

type capabilities struct{ APIVersions versions }

type versions []string

// Has says whether the cluster serves a group version, or a kind in one, as with Helm.
func (v versions) Has(version string) bool { return slices.Contains(v, version) }

// files are the chart's.
type files struct{ chart fs.FS }

// Get is the content of a file; empty where there is none, as with Helm.
func (f files) Get(name string) string {
	data, err := fs.ReadFile(f.chart, name)
	if err != nil {
		return ""
	}
	return string(data)
}

// Glob gives the content of each file whose name matches.
func (f files) Glob(pattern string) (map[string][]byte, error) {
	names, err := fs.Glob(f.chart, pattern)
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, name := range names {
		if found[name], err = fs.ReadFile(f.chart, name); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// parse reads the templates. Those that render objects are named in order; the others ("_…") define what they include.
func parse(chart fs.FS) (*template.Template, []string, error) {
	found, err := fs.Glob(chart, "templates/*")
	if err != nil {
		return nil, nil, fmt.Errorf("read the chart: %w", err)
	}
	set := template.New("").Option("missingkey=zero")
	set.Funcs(functions(set))
	var names []string
	for _, file := range found {
		if strings.HasSuffix(file, ".txt") {
			continue
		}
		text, err := fs.ReadFile(chart, file)
		if err == nil {
			_, err = set.New(file).Parse(string(text))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the chart: %w", err)
		}
		if !strings.HasPrefix(path.Base(file), "_") {
			names = append(names, file)
		}
	}
	return set, names, nil
}

// split reads the objects of a rendered template.
func split(name, text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		var content map[string]any
		data, err := yaml.YAMLToJSON([]byte(document))
		if err == nil {
			err = yaml.Unmarshal(data, &content)
		}
		if err != nil {
			return nil, fmt.Errorf("render the chart: %s is no YAML: %w", name, err)
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(data); err != nil {
			return nil, fmt.Errorf("render the chart: %s: %w", name, err)
		}
		if object.GetName() == "" {
			return nil, fmt.Errorf("render the chart: %s: a %s has no name", name, object.GetKind())
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// order is the order in which kinds are made: what others stand in or refer to comes first. Others come after these.
var order = []string{
	"Namespace", "PriorityClass", "PriorityLevelConfiguration", "FlowSchema", "CustomResourceDefinition", "ServiceAccount", "ClusterRole",
	"ClusterRoleBinding", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "Service", "Deployment",
}

func sortObjects(objects []*unstructured.Unstructured) {
	rank := func(o *unstructured.Unstructured) int {
		if i := slices.Index(order, o.GetKind()); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// YAML writes objects as documents.
func YAML(objects []*unstructured.Unstructured) ([]byte, error) {
	var out bytes.Buffer
	for _, o := range objects {
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("write %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	return out.Bytes(), nil
}

// VersionsOf are the group versions and kinds that the chart asks for, as a cluster of version 1.minor serves them: for objects that are printed
// where no cluster can be asked.
func VersionsOf(minor int) []string {
	versions := []string{"kedge.dev/v1alpha1"}
	for _, v := range []struct {
		version     string
		first, last int
	}{
		{"flowcontrol.apiserver.k8s.io/v1beta2", 23, 28},
		{"flowcontrol.apiserver.k8s.io/v1beta3", 26, 31},
		{"flowcontrol.apiserver.k8s.io/v1", 29, 1 << 30},
		{"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy", 30, 1 << 30},
	} {
		if minor >= v.first && minor <= v.last {
			versions = append(versions, v.version)
		}
	}
	return versions
}
