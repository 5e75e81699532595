package restore

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Difference is one place where an archived object and the target's differ. Values of Secrets are hidden.
type Difference struct {
	// Path is written as kubectl does: "spec.template.spec.containers[0].image".
	Path string `json:"path"`
	// Before is the target's value, nil where it has none; After is the archived one.
	Before any `json:"before,omitempty"`
	After  any `json:"after,omitempty"`
}

// hidden stands for the values of Secrets.
const hidden = "(hidden)"

// differences compares what would be sent with what the target has. What the target has beyond it (defaults, what controllers
// wrote) is no difference, but for the data of ConfigMaps and Secrets, which are the user's alone.
func (p *prepared) differences(live *liveObject) ([]Difference, error) {
	var want map[string]any
	if err := utiljson.Unmarshal(p.body, &want); err != nil {
		return nil, err
	}
	delete(want, "status")
	if _, aggregated := want["aggregationRule"]; aggregated {
		delete(want, "rules") // a controller collects them
	}
	c := comparison{secret: p.to.Group == "" && p.to.Resource == "secrets"}
	c.data = c.secret || p.to.Group == "" && p.to.Resource == "configmaps"
	c.maps("", want, live.obj, false)
	return c.diff, nil
}

// comparison collects differences.
type comparison struct {
	diff   []Difference
	secret bool // values are hidden
	data   bool // data is compared both ways
}

func (c *comparison) values(path string, want, have any) {
	switch w := want.(type) {
	case map[string]any:
		if h, ok := have.(map[string]any); ok {
			c.maps(path, w, h, c.data && (path == "data" || path == "binaryData"))
			return
		}
		if len(w) == 0 && have == nil {
			return
		}
	case []any:
		if h, ok := have.([]any); ok && len(h) == len(w) {
			for i := range w {
				c.values(path+"["+strconv.Itoa(i)+"]", w[i], h[i])
			}
			return
		}
		if len(w) == 0 && have == nil {
			return
		}
	case nil:
		if have == nil {
			return
		}
	}
	if !sameScalar(want, have) {
		c.add(path, have, want)
	}
}

func (c *comparison) maps(path string, want, have map[string]any, both bool) {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		at := join(path, k)
		if at == "metadata.finalizers" {
			c.finalizers(want[k], have[k])
			continue
		}
		c.values(at, want[k], have[k])
	}
	if !both {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[k]; !ok {
			c.add(join(path, k), have[k], nil)
		}
	}
}

// finalizers only have to be there; controllers add their own.
func (c *comparison) finalizers(want, have any) {
	w, _ := want.([]any)
	h, _ := have.([]any)
	for _, f := range w {
		if !slices.Contains(h, f) {
			c.add("metadata.finalizers", have, want)
			return
		}
	}
}

func (c *comparison) add(path string, before, after any) {
	if c.secret && (strings.HasPrefix(path, "data") || strings.HasPrefix(path, "stringData")) {
		before, after = hide(before), hide(after)
	}
	c.diff = append(c.diff, Difference{Path: path, Before: before, After: after})
}

func hide(v any) any {
	if v == nil {
		return nil
	}
	return hidden
}

// join writes a path; a key that is no plain word stands in brackets.
func join(path, key string) string {
	if strings.ContainsAny(key, "./[] ") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func sameScalar(a, b any) bool {
	switch x := a.(type) {
	case map[string]any, []any:
		return false
	case int64:
		if f, ok := b.(float64); ok {
			return float64(x) == f
		}
	case float64:
		if n, ok := b.(int64); ok {
			return x == float64(n)
		}
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}

// exact is the body of a PUT over the live object: what would be created, with the live resourceVersion, and with what the
// server chose for good when it made the live one.
func (p *prepared) exact(live *liveObject) ([]byte, error) {
	var obj map[string]any
	if err := utiljson.Unmarshal(p.body, &obj); err != nil {
		return nil, err
	}
	meta, ok := obj["metadata"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("it has no metadata")
	}
	meta["resourceVersion"] = live.version
	for _, path := range chosenByServer[p.to.GroupResource()] {
		keep(obj, live.obj, path)
	}
	return json.Marshal(obj)
}

// chosenByServer are fields that the server sets once and never lets change; a restore leaves them out.
var chosenByServer = map[string][][]string{
	"services":               {{"spec", "clusterIP"}, {"spec", "clusterIPs"}, {"spec", "healthCheckNodePort"}, {"spec", "ipFamilies"}, {"spec", "ipFamilyPolicy"}},
	"persistentvolumeclaims": {{"spec", "volumeName"}},
	"jobs.batch": {
		{"spec", "selector"},
		{"spec", "template", "metadata", "labels", "controller-uid"}, {"spec", "template", "metadata", "labels", "batch.kubernetes.io/controller-uid"},
		{"spec", "template", "metadata", "labels", "job-name"}, {"spec", "template", "metadata", "labels", "batch.kubernetes.io/job-name"},
	},
	"pods":              {{"spec", "nodeName"}},
	"persistentvolumes": {{"spec", "claimRef"}, {"spec", "claimRef", "uid"}, {"spec", "claimRef", "resourceVersion"}},
}

// keep copies a field from live where obj lacks it.
func keep(obj, live map[string]any, path []string) {
	for _, k := range path[:len(path)-1] {
		next, ok := obj[k].(map[string]any)
		from, found := live[k].(map[string]any)
		if !found {
			return
		}
		if !ok {
			if _, taken := obj[k]; taken {
				return
			}
			next = map[string]any{}
			obj[k] = next
		}
		obj, live = next, from
	}
	last := path[len(path)-1]
	if v, ok := live[last]; ok {
		if _, has := obj[last]; !has {
			obj[last] = v
		}
	}
}
