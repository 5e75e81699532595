package install

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/deploy/render"
)

// valuesName is the Secret that remembers the user's values, so that an upgrade need not be told them again.
func valuesName(release string) string { return release + "-install" }

const (
	valuesKey  = "values.yaml"
	versionKey = "version"
)

func secretPath(namespace, name string) string {
	return "/api/v1/namespaces/" + url.PathEscape(namespace) + "/secrets/" + url.PathEscape(name)
}

// Saved gives the user's values of the installation, and the version that was installed. The error is ErrNotInstalled where there is none.
func (i *Installer) Saved(ctx context.Context) (values map[string]any, version string, err error) {
	o, err := i.get(ctx, secretPath(i.Namespace, valuesName(i.Release)))
	if err != nil {
		return nil, "", fmt.Errorf("read the installation's values: %w", err)
	}
	if o == nil || o.GetLabels()[managedByLabel] != render.Service {
		return nil, "", fmt.Errorf("look for an installation in namespace %s: %w", i.Namespace, ErrNotInstalled)
	}
	field := func(key string) ([]byte, error) {
		text, _, _ := unstructured.NestedString(o.Object, "data", key)
		return base64.StdEncoding.DecodeString(text)
	}
	data, err := field(valuesKey)
	if err == nil {
		err = yaml.Unmarshal(data, &values)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the installation's values: Secret %s: %w", valuesName(i.Release), err)
	}
	stamp, err := field(versionKey)
	return values, string(stamp), err
}

// Save remembers the user's values and the version that was installed.
func (i *Installer) Save(ctx context.Context, values map[string]any, version string) error {
	data, err := yaml.Marshal(values)
	if err != nil {
		return fmt.Errorf("write the installation's values: %w", err)
	}
	encode := func(data []byte) any { return base64.StdEncoding.EncodeToString(data) }
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret",
		"metadata": map[string]any{
			"name": valuesName(i.Release), "namespace": i.Namespace,
			"labels": map[string]any{managedByLabel: render.Service, instanceLabel: i.Release, "app.kubernetes.io/name": "kedge"},
		},
		"type": Group + "/install",
		"data": map[string]any{valuesKey: encode(data), versionKey: encode([]byte(version))},
	}}
	if err := i.apply(ctx, o); err != nil {
		return fmt.Errorf("write the installation's values: %w", err)
	}
	return nil
}
