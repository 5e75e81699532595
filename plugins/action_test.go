package plugins

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// recorder is an action that writes its name into the object.
type recorder struct {
	name    string
	matches []Match
	skip    bool
	err     error
	merges  string // the name of items that it merges
}

func (r *recorder) Name() string        { return r.name }
func (r *recorder) AppliesTo() []Match  { return r.matches }
func (r *recorder) Merges(ref Ref) bool { return r.merges != "" && ref.Name == r.merges }

func (r *recorder) Merge(context.Context, *Item, map[string]any) (bool, error) { return false, nil }

func (r *recorder) Apply(_ context.Context, item *Item) (Decision, error) {
	ran, _ := item.Object["ran"].(string)
	item.Object["ran"] = ran + r.name
	return Decision{Skip: r.skip, Reason: "Tried"}, r.err
}

func on(resources ...string) []Match { return []Match{{Resources: resources}} }

func TestChainOrder(t *testing.T) {
	chain, err := NewChain(
		&recorder{name: "a", matches: on("pods")},
		&recorder{name: "b", matches: on("*")},
		&recorder{name: "c", matches: append(on("pods"), on("pods", "*")...)}, // matches three times, runs once
		&recorder{name: "d", matches: on("services")},
		&recorder{name: "e", matches: on("*"), skip: true},
		&recorder{name: "f", matches: on("*")},
	)
	if err != nil {
		t.Fatal(err)
	}
	for resource, want := range map[string]string{"pods": "abce", "services": "bcde", "secrets": "bce"} {
		item := &Item{Ref: Ref{Version: "v1", Resource: resource}, Object: map[string]any{}}
		d, err := chain.Apply(t.Context(), item)
		if err != nil || !d.Skip || d.Reason != "Tried" || item.Object["ran"] != want {
			t.Errorf("%s: ran %v, %+v, %v; want %s", resource, item.Object["ran"], d, err, want)
		}
	}
}

func TestChainErrors(t *testing.T) {
	boom := errors.New("boom")
	chain, err := NewChain(&recorder{name: "Bad", matches: on("deployments.apps"), err: boom})
	if err != nil {
		t.Fatal(err)
	}
	item := &Item{Ref: Ref{Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Name: "cart"}, Object: map[string]any{}}
	_, err = chain.Apply(t.Context(), item)
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "Bad") || !strings.Contains(err.Error(), "deployments.apps shop/cart") {
		t.Errorf("got %v", err)
	}
	for _, a := range []*recorder{{matches: on("pods")}, {name: "x"}, {name: "x", matches: on()}, {name: "x", matches: on("")}} {
		if _, err := NewChain(a); err == nil {
			t.Errorf("%+v was taken", a)
		}
	}
}

func TestChainWants(t *testing.T) {
	chain, err := NewChain(
		&recorder{name: "a", matches: []Match{{Resources: []string{"services"}, Contains: []string{`"nodePort"`, `"clusterIP"`}}}},
		&recorder{name: "b", matches: []Match{{Resources: []string{"configmaps"}, Names: []string{"aws-auth"}}}, merges: "aws-auth"},
		&recorder{name: "c", matches: []Match{{Resources: []string{"*"}, Contains: []string{"magic"}}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		resource, name, raw string
		want                bool
	}{
		{"services", "s", `{"clusterIP":"x"}`, true},
		{"services", "s", `{}`, false},
		{"configmaps", "aws-auth", `{}`, true},
		{"configmaps", "other", `{}`, false},
		{"pods", "p", `{"a":"magic"}`, true},
		{"pods", "p", `{"clusterIP":"x"}`, false},
	} {
		ref := Ref{Version: "v1", Resource: tt.resource, Name: tt.name}
		if got := chain.Wants(ref, []byte(tt.raw)); got != tt.want {
			t.Errorf("%s %s: %v", ref, tt.raw, got)
		}
	}
	if chain.Merger(Ref{Resource: "configmaps", Name: "aws-auth"}) == nil || chain.Merger(Ref{Resource: "configmaps", Name: "other"}) != nil || chain.Merger(Ref{Resource: "pods"}) != nil {
		t.Error("mergers are found by reference")
	}
	var none *Chain
	if none, err = NewChain(); err != nil || none.Wants(Ref{Resource: "pods"}, nil) {
		t.Error("an empty chain wants nothing")
	}
}
