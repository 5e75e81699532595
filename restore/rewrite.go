package restore

import (
	"encoding/json"
	"fmt"

	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
)

// rewriting says how an archived object becomes the body of a create, without decoding more than its metadata.
type rewriting struct {
	// ref and kind are what the object must say of itself: names in an archive are not to be believed twice.
	ref  plugins.Ref
	kind string
	// dropStatus leaves the status out, where it is a subresource.
	dropStatus bool
	// relink gives the new value of metadata.ownerReferences; nil leaves the field out.
	relink func(raw []byte) ([]byte, error)
}

// rewritten is the result, and what was found on the way. Its slices are parts of the archived object but for body.
type rewritten struct {
	body     []byte
	managed  []byte // metadata.managedFields
	status   []byte
	deleting bool
}

// serverMetadata are the fields of metadata that the server owns.
var serverMetadata = func() map[string]bool {
	m := map[string]bool{}
	for _, f := range actions.ServerMetadata {
		m[f] = true
	}
	return m
}()

// rewrite appends the object to dst as it is sent: all that a user can write, byte for byte, and nothing that the server owns.
func (rw *rewriting) rewrite(dst, raw []byte) (rewritten, error) {
	out := rewritten{body: append(dst, '{')}
	var apiVersion, kind string
	seenMeta := false
	err := rawjson.Members(raw, func(key string, value []byte) (err error) {
		switch key {
		case "apiVersion":
			apiVersion, err = rawjson.Text(value)
		case "kind":
			kind, err = rawjson.Text(value)
		case "metadata":
			seenMeta = true
			out.body = append(out.body, `"metadata":`...)
			if err = rw.metadata(&out, value); err == nil {
				out.body = append(out.body, ',')
			}
			return err
		case "status":
			if out.status = value; rw.dropStatus {
				return nil
			}
		}
		if err == nil {
			out.body = appendMember(out.body, key, value)
		}
		return err
	})
	if err != nil {
		return out, err
	}
	if apiVersion != rw.ref.APIVersion() || kind != rw.kind || !seenMeta {
		return out, fmt.Errorf("it is %q %q, not the %s %s that the index names", apiVersion, kind, rw.ref.APIVersion(), rw.kind)
	}
	out.body[len(out.body)-1] = '}' // over the last comma
	return out, nil
}

// appendMember appends "key":value and a comma.
func appendMember(dst []byte, key string, value []byte) []byte {
	plain := true
	for i := range len(key) {
		if c := key[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
		}
	}
	if plain {
		dst = append(append(append(dst, '"'), key...), '"')
	} else {
		quoted, err := json.Marshal(key)
		if err != nil { // a string always has a JSON form
			quoted = []byte(`""`)
		}
		dst = append(dst, quoted...)
	}
	dst = append(dst, ':')
	dst = append(dst, value...)
	return append(dst, ',')
}

func (rw *rewriting) metadata(out *rewritten, raw []byte) error {
	out.body = append(out.body, '{')
	empty := len(out.body)
	var name, namespace string
	err := rawjson.Members(raw, func(key string, value []byte) (err error) {
		switch key {
		case "name":
			name, err = rawjson.Text(value)
		case "namespace":
			namespace, err = rawjson.Text(value)
		case "managedFields":
			out.managed = value
		case "deletionTimestamp":
			out.deleting = string(value) != "null"
		case "ownerReferences":
			if rw.relink != nil {
				value, err = rw.relink(value)
			}
		case "finalizers":
			value, err = keptFinalizers(value)
		}
		if err == nil && value != nil && !serverMetadata[key] {
			out.body = appendMember(out.body, key, value)
		}
		return err
	})
	if err != nil {
		return err
	}
	if name != rw.ref.Name || namespace != rw.ref.Namespace {
		return fmt.Errorf("it names itself %q in namespace %q, not as the index does", name, namespace)
	}
	if len(out.body) > empty {
		out.body[len(out.body)-1] = '}'
	} else {
		out.body = append(out.body, '}')
	}
	return nil
}

// keptFinalizers leaves out those that a controller of the target puts back itself, and those that say how to delete.
func keptFinalizers(raw []byte) ([]byte, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	kept := []byte{'['}
	err := rawjson.Elements(raw, func(value []byte) error {
		name, err := rawjson.Text(value)
		if err == nil && !actions.DropFinalizer(name) {
			kept = append(append(kept, value...), ',')
		}
		return err
	})
	if err != nil || len(kept) == 1 {
		return nil, err
	}
	kept[len(kept)-1] = ']'
	return kept, nil
}
