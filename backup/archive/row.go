package archive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"kedge.dev/kedge/plugins"
)

// Row is what the index knows of one archived object: enough to plan a restore without reading the object.
type Row struct {
	plugins.Ref
	Kind string `json:"kind"`
	UID  string `json:"uid,omitempty"`
	// SHA256 is the hash of the object's JSON as archived, in lower-case hex. The writer computes it.
	SHA256 string `json:"sha256"`
	// Size is the length of that JSON in bytes. The writer computes it.
	Size   int64             `json:"size"`
	Labels map[string]string `json:"labels,omitempty"`
	Owners []Owner           `json:"owners,omitempty"`
	// Applied says that a server-side apply manager owns fields of the object (managedFields has operation Apply).
	Applied bool `json:"applied,omitempty"`
}

// Owner is one entry of metadata.ownerReferences.
type Owner struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	Name               string `json:"name"`
	UID                string `json:"uid"`
	Controller         bool   `json:"controller,omitempty"`
	BlockOwnerDeletion *bool  `json:"blockOwnerDeletion,omitempty"`
}

// Key is what items of one resource are sorted by: "namespace/name", or "name" for a cluster-scoped object. The order
// is that of the key's bytes, which is also etcd's: "a-b/x" comes before "a/x".
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Key is the row's key.
func (r *Row) Key() string { return Key(r.Namespace, r.Name) }

func appendKey(dst []byte, namespace, name string) []byte {
	if namespace != "" {
		dst = append(dst, namespace...)
		dst = append(dst, '/')
	}
	return append(dst, name...)
}

// appendRow appends the row's line of the index, with its line feed. Its bytes depend on nothing but the row.
func appendRow(dst []byte, r *Row) []byte {
	dst = append(dst, '{')
	if r.Group != "" {
		dst = append(appendString(append(dst, `"group":`...), r.Group), ',')
	}
	dst = appendString(append(dst, `"version":`...), r.Version)
	dst = appendString(append(dst, `,"resource":`...), r.Resource)
	dst = appendField(dst, `,"namespace":`, r.Namespace)
	dst = appendString(append(dst, `,"name":`...), r.Name)
	dst = appendString(append(dst, `,"kind":`...), r.Kind)
	dst = appendField(dst, `,"uid":`, r.UID)
	dst = appendString(append(dst, `,"sha256":`...), r.SHA256)
	dst = strconv.AppendInt(append(dst, `,"size":`...), r.Size, 10)
	if len(r.Labels) > 0 {
		dst = appendLabels(append(dst, `,"labels":`...), r.Labels)
	}
	if len(r.Owners) > 0 {
		dst = appendOwners(append(dst, `,"owners":`...), r.Owners)
	}
	if r.Applied {
		dst = append(dst, `,"applied":true`...)
	}
	return append(dst, '}', '\n')
}

func appendField(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	return appendString(append(dst, key...), value)
}

func appendLabels(dst []byte, labels map[string]string) []byte {
	var space [16]string
	keys := slices.AppendSeq(space[:0], maps.Keys(labels))
	slices.Sort(keys)
	for i, k := range keys {
		dst = append(dst, "{,"[min(i, 1)])
		dst = append(appendString(dst, k), ':')
		dst = appendString(dst, labels[k])
	}
	return append(dst, '}')
}

func appendOwners(dst []byte, owners []Owner) []byte {
	for i, o := range owners {
		dst = append(dst, "[,"[min(i, 1)])
		dst = appendString(append(dst, `{"apiVersion":`...), o.APIVersion)
		dst = appendString(append(dst, `,"kind":`...), o.Kind)
		dst = appendString(append(dst, `,"name":`...), o.Name)
		dst = appendString(append(dst, `,"uid":`...), o.UID)
		if o.Controller {
			dst = append(dst, `,"controller":true`...)
		}
		if o.BlockOwnerDeletion != nil {
			dst = strconv.AppendBool(append(dst, `,"blockOwnerDeletion":`...), *o.BlockOwnerDeletion)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendString appends s as a JSON string. Nearly every string here is plain ASCII, which needs no escapes.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				return append(dst, `""`...)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// parseRow reads one line of the index, without its line feed.
func parseRow(line []byte, strict bool) (Row, error) {
	var row Row
	if len(line) > maxRow {
		return row, fmt.Errorf("row of %d bytes", len(line))
	}
	if err := decodeJSON(line, &row, strict); err != nil {
		return row, err
	}
	switch {
	case row.Name == "" || row.Resource == "" || row.Version == "":
		return row, fmt.Errorf("row without name, resource or version")
	case !isHex(row.SHA256, 64):
		return row, fmt.Errorf("row of %s has no sha256", row.Ref)
	case row.Size < 0 || row.Size > MaxItem:
		return row, fmt.Errorf("row of %s has size %d", row.Ref, row.Size)
	}
	return row, nil
}

// parseRows walks the lines of one shard and calls fn for each row. Every row must belong to the frame, in strictly
// rising order of keys, and there must be as many as the frame says.
func parseRows(f *Frame, shard []byte, strict bool, fn func(Row) error) error {
	last, n := "", 0
	for len(shard) > 0 {
		if n == f.Items {
			return fmt.Errorf("it goes on after its %d rows", n)
		}
		line, rest, found := bytes.Cut(shard, []byte{'\n'})
		if !found {
			return fmt.Errorf("last row has no end")
		}
		shard = rest
		row, err := parseRow(line, strict)
		if err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		if err := f.checkMember(row.Ref, last, n == 0); err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		last = row.Key()
		n++
		if err := fn(row); err != nil {
			return &callbackError{err}
		}
	}
	return f.checkEnd(last, n)
}

// callbackError marks what a caller's function returned, so that it is not taken for damage.
type callbackError struct{ err error }

func (e *callbackError) Error() string { return e.err.Error() }
func (e *callbackError) Unwrap() error { return e.err }
