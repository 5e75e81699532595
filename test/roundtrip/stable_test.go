//go:build unix

package main

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const ownMap = "{apiVersion: v1, kind: ConfigMap, metadata: {name: own, namespace: default, uid: a}, data: {k: v}}"

// A server that is used again must hold what it held when it was new, and nothing else.
func TestForeignObjects(t *testing.T) {
	const leftover = "{apiVersion: v1, kind: ConfigMap, metadata: {name: left, namespace: default, uid: b}}"
	for _, c := range []struct {
		name, now string
		left      []key
		whole     bool
	}{
		{"as new", nothing + "\n---\n" + ownMap, nil, true},
		{"one more", nothing + "\n---\n" + ownMap + "\n---\n" + leftover, []key{"configmaps default/left"}, true},
		{"one gone", nothing, nil, false},
		{"one changed", nothing + "\n---\n" + "{apiVersion: v1, kind: ConfigMap, metadata: {name: own, namespace: default, uid: a}, data: {k: w}}", nil, false},
		{"one made again", nothing + "\n---\n" + "{apiVersion: v1, kind: ConfigMap, metadata: {name: own, namespace: default, uid: c}, data: {k: v}}",
			[]key{"configmaps default/own"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &server{before: world(t, nothing+"\n---\n"+ownMap)}
			left, whole := s.foreign(world(t, c.now))
			if len(left) != len(c.left) || firstKey(left) != firstKeyOf(c.left) || whole != c.whole {
				t.Errorf("left %v (%d), whole %v; want %v, %v", firstKey(left), len(left), whole, c.left, c.whole)
			}
		})
	}
}

func firstKeyOf(keys []key) key {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

// A definition that is on its way out is still served.
func TestAPIsLeft(t *testing.T) {
	before, now := world(t, nothing).apis, world(t, nothing).apis
	if !sameAPIs(before, now) {
		t.Error("the same APIs differ")
	}
	now[schema.GroupResource{Group: "left.example.com", Resource: "tents"}] = &api{Versions: []string{"v1"}}
	if sameAPIs(before, now) {
		t.Error("an API that is left was not seen")
	}
}
