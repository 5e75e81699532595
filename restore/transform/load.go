package transform

import (
	"errors"
	"fmt"
	"io"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
)

// maxDocument bounds a document of transforms, in bytes.
const maxDocument = 1 << 20

// Load reads transforms from a YAML or JSON document of at most 1 MiB. It refuses fields that it does not know and keys that
// are given twice, naming their path; Compile checks what the fields say. An empty document gives empty transforms.
func Load(r io.Reader) (*v1alpha1.Transforms, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read transforms: %w", err)
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("read transforms: the document is larger than %d bytes: split the restore, or select with globs instead of lists", maxDocument)
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("read transforms: %w", err)
	}
	out := &v1alpha1.Transforms{}
	strict, err := kjson.UnmarshalStrict(asJSON, out)
	if err != nil {
		return nil, fmt.Errorf("read transforms: %w (numbers, lists and objects in jsonPatch values are written as JSON text: value: \"3\")", err)
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("read transforms: %w", errors.Join(strict...))
	}
	return out, nil
}
