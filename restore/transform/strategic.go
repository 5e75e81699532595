package transform

import (
	_ "embed" // the table of how lists are merged
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// strategicTable is made from client-go's scheme by TestStrategicTable, which also tells when it is out of date. A table of what
// matters spares programs the scheme itself, a third of their size.
//
//go:embed strategic.json
var strategicTable []byte

// shapes say how Kubernetes' own kinds are merged.
type shapes struct {
	// Kinds has by apiVersion and kind the name of the shape.
	Kinds map[string]map[string]string `json:"kinds"`
	// Shapes has by name the fields that are merged in a way of their own, or hold such fields.
	Shapes map[string]map[string]shapeField `json:"shapes"`
}

// shapeField is one field: the shape of its value or of its elements, and the patchStrategy and patchMergeKey of its API.
type shapeField struct {
	Shape      string   `json:"shape,omitempty"`
	Strategies []string `json:"strategies,omitempty"`
	MergeKey   string   `json:"mergeKey,omitempty"`
}

var loadShapes = sync.OnceValues(func() (*shapes, error) {
	out := &shapes{}
	if err := json.Unmarshal(strategicTable, out); err != nil {
		return nil, fmt.Errorf("read the table of strategic merges: %w", err)
	}
	return out, nil
})

// merging is one shape as strategicpatch asks for it. Fields without a way of their own are merged as maps, and replaced as lists.
type merging struct {
	all  *shapes
	name string
}

// Name is what errors of strategicpatch call the shape.
func (m merging) Name() string { return m.name }

// LookupPatchMetadataForStruct gives how the object in a field is merged.
func (m merging) LookupPatchMetadataForStruct(key string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	f := m.all.Shapes[m.name][key]
	var meta strategicpatch.PatchMeta
	meta.SetPatchStrategies(f.Strategies)
	meta.SetPatchMergeKey(f.MergeKey)
	return merging{m.all, f.Shape}, meta, nil
}

// LookupPatchMetadataForSlice gives how the list in a field, and its elements, are merged.
func (m merging) LookupPatchMetadataForSlice(key string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	return m.LookupPatchMetadataForStruct(key)
}

// mergingOf finds the shape of a kind; ok says that it is one of Kubernetes' own.
func mergingOf(apiVersion, kind string) (shape merging, ok bool, err error) {
	all, err := loadShapes()
	if err != nil {
		return merging{}, false, err
	}
	name, ok := all.Kinds[apiVersion][kind]
	return merging{all, name}, ok, nil
}
