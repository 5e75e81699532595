package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/plugins"
)

// Change is how an object differs between the two sides of a comparison.
type Change string

// The changes, from the first side to the second.
const (
	Added   Change = "Added"
	Removed Change = "Removed"
	Changed Change = "Changed"
)

// difference is one object that is not the same on both sides. Diff, in the unified format, is set on request and only for
// changed objects.
type difference struct {
	Change Change      `json:"change"`
	Ref    plugins.Ref `json:"ref"`
	Diff   string      `json:"diff,omitempty"`
}

// comparison is what "backup diff -o json" prints.
type comparison struct {
	From        string       `json:"from"`
	To          string       `json:"to"`
	Same        int          `json:"same"`
	Differences []difference `json:"differences"`
}

// comparer says what counts as a difference.
type comparer struct {
	// status compares the status too.
	status bool
	// secrets shows the values of Secrets in diffs; they are compared in any case.
	secrets bool
	// patch makes diffs.
	patch bool
}

// serverOwned are the fields of metadata that the API server writes: they differ between two moments and two clusters for the
// same object.
var serverOwned = []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"}

// reduce drops from an object what the server owns, the uids of owners among it.
func (c *comparer) reduce(object map[string]any) {
	if metadata, ok := object["metadata"].(map[string]any); ok {
		for _, field := range serverOwned {
			delete(metadata, field)
		}
		owners, _ := metadata["ownerReferences"].([]any)
		for _, owner := range owners {
			if reference, ok := owner.(map[string]any); ok {
				delete(reference, "uid")
			}
		}
	}
	if !c.status {
		delete(object, "status")
	}
}

// fingerprint is the hash of what counts in an object.
func (c *comparer) fingerprint(raw []byte) ([sha256.Size]byte, error) {
	object, err := decodeObject(raw)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	c.reduce(object)
	data, err := json.Marshal(object)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("compare an object: %w", err)
	}
	return sha256.Sum256(data), nil
}

// compare gives the difference between two states of one object; nil where there is none that counts.
func (c *comparer) compare(ref plugins.Ref, from, to []byte) (*difference, error) {
	var texts [2][]byte
	for i, raw := range [][]byte{from, to} {
		object, err := decodeObject(raw)
		if err != nil {
			return nil, err
		}
		c.reduce(object)
		if texts[i], err = yaml.Marshal(object); err != nil {
			return nil, fmt.Errorf("compare %s: %w", ref, err)
		}
	}
	if string(texts[0]) == string(texts[1]) {
		return nil, nil
	}
	d := &difference{Change: Changed, Ref: ref}
	if c.patch {
		d.Diff = c.unified(ref, from, to)
	}
	return d, nil
}

// unified is the difference as text, without the values of Secrets.
func (c *comparer) unified(ref plugins.Ref, from, to []byte) string {
	a, b := c.shown(from, to)
	text := string(diff.Diff("a "+ref.String(), a, "b "+ref.String(), b))
	if text == "" {
		return "(only values of the Secret differ)\n"
	}
	return text
}

// shown gives both states as a person may see them. Values of Secrets are masked so that it shows which of them differ.
func (c *comparer) shown(from, to []byte) (a, b []byte) {
	x, errX := decodeObject(from)
	y, errY := decodeObject(to)
	if errX != nil || errY != nil {
		return nil, nil
	}
	c.reduce(x)
	c.reduce(y)
	if !c.secrets {
		markChanged(x, y)
		maskSecret(x)
		maskSecret(y)
		unmarkChanged(y)
	}
	a, _ = yaml.Marshal(x)
	b, _ = yaml.Marshal(y)
	return a, b
}

// changedKey is a name that no key of a Secret can have; behind it are the keys whose values differ.
const changedKey = "\x00changed"

// markChanged notes on the second state which values of a Secret differ from the first.
func markChanged(x, y map[string]any) {
	if y["kind"] != "Secret" {
		return
	}
	before, _ := x["data"].(map[string]any)
	after, _ := y["data"].(map[string]any)
	var keys []string
	for key, value := range after {
		if old, ok := before[key]; ok && old != value {
			keys = append(keys, key)
		}
	}
	y[changedKey] = keys
}

// unmarkChanged makes the masks of differing values differ.
func unmarkChanged(y map[string]any) {
	keys, _ := y[changedKey].([]string)
	delete(y, changedKey)
	after, _ := y["data"].(map[string]any)
	for _, key := range keys {
		after[key] = masked + " (differs)"
	}
}
