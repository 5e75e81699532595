package kube

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"kedge.dev/kedge/internal/pbjson"
)

// acceptProtobuf asks for lists in protobuf; a server that has none of them for a resource (custom ones) sends JSON.
const (
	protobufType   = "application/vnd.kubernetes.protobuf"
	acceptProtobuf = protobufType + ", application/json"
)

// Protobuf gives how the objects of a built-in resource are read in protobuf; nil where they are read as JSON: custom resources, and
// the few built-in ones that package pbjson does not know.
func (r Resource) Protobuf() *pbjson.Kind {
	gv := schema.GroupVersion{Group: r.Group, Version: r.Version}
	t, known := scheme.Scheme.AllKnownTypes()[gv.WithKind(r.Kind)]
	if !known || t.Kind() != reflect.Struct {
		return nil
	}
	table, err := pbjson.Of(t)
	if err != nil {
		return nil
	}
	return &pbjson.Kind{Type: table, APIVersion: r.APIVersion(), Kind: r.Kind}
}
