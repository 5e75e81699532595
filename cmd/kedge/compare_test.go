package main

import (
	"strings"
	"testing"

	"kedge.dev/kedge/plugins"
)

func TestCompare(t *testing.T) {
	ref := plugins.Ref{Version: "v1", Resource: "secrets", Namespace: "a", Name: "b"}
	for name, c := range map[string]struct {
		from, to string
		status   bool
		same     bool
		want     []string
		never    []string
	}{
		"server-owned fields": {
			from: `{"kind":"Pod","metadata":{"name":"b","uid":"1","resourceVersion":"1","generation":1,"creationTimestamp":"x","managedFields":[],"ownerReferences":[{"name":"o","uid":"1"}]},"status":{"phase":"A"}}`,
			to:   `{"kind":"Pod","metadata":{"name":"b","uid":"2","resourceVersion":"2","generation":2,"creationTimestamp":"y","ownerReferences":[{"name":"o","uid":"2"}]}}`,
			same: true,
		},
		"status on request": {from: `{"kind":"Pod","status":{"phase":"A"}}`, to: `{"kind":"Pod","status":{"phase":"B"}}`, status: true, want: []string{"-  phase: A", "+  phase: B"}},
		"another owner": {
			from: `{"metadata":{"ownerReferences":[{"name":"o","uid":"1"}]}}`, to: `{"metadata":{"ownerReferences":[{"name":"p","uid":"1"}]}}`,
			want: []string{"-  - name: o", "+  - name: p"},
		},
		"order of keys": {from: `{"a":1,"b":2}`, to: `{"b":2,"a":1}`, same: true},
		"secret values": {
			from: `{"kind":"Secret","data":{"k":"b25l","same":"eA=="}}`, to: `{"kind":"Secret","data":{"k":"dHdv","same":"eA=="}}`,
			want: []string{"-  k: '***'", "+  k: '*** (differs)'"}, never: []string{"b25l", "dHdv", "same: '*** (differs)'"},
		},
		"secret in the applied annotation": {
			from: `{"kind":"Secret","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"b25l"}}}`,
			to:   `{"kind":"Secret","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"dHdv"}}}`,
			want: []string{"only values of the Secret differ"}, never: []string{"b25l", "dHdv"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := (&comparer{status: c.status, patch: true}).compare(ref, []byte(c.from), []byte(c.to))
			if err != nil {
				t.Fatal(err)
			}
			if c.same != (found == nil) {
				t.Fatalf("same = %v, want %v", found == nil, c.same)
			}
			for _, want := range c.want {
				if !strings.Contains(found.Diff, want) {
					t.Errorf("diff lacks %q:\n%s", want, found.Diff)
				}
			}
			for _, never := range c.never {
				if strings.Contains(found.Diff, never) {
					t.Errorf("diff shows %q:\n%s", never, found.Diff)
				}
			}
		})
	}
}

func TestGeneratedName(t *testing.T) {
	now := testApp().env.Now()
	stamp := now.UTC().Format("20060102-150405")
	for base, want := range map[string]string{
		"arn:aws:eks:eu-west-1:111122223333:cluster/Prod": "prod-" + stamp, "kind-dev": "kind-dev-" + stamp, "user@Cluster_1": "cluster-1-" + stamp, "": "backup-" + stamp,
		"///": "backup-" + stamp, strings.Repeat("x", 300): strings.Repeat("x", 47) + "-" + stamp,
	} {
		if got := generatedName(base, now); got != want || checkName("backup", got) != nil {
			t.Errorf("generatedName(%q) = %q (%v), want %q", base, got, checkName("backup", got), want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]string{"30d": "720h0m0s", "2w": "336h0m0s", "90m": "1h30m0s", "0": "0s", "1h30m": "1h30m0s"} {
		if got, err := parseDuration(text); err != nil || got.String() != want {
			t.Errorf("parseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "99999999d", "5", "1y", "-5h"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %s, want an error", text, got)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("apiVersion: cli.kedge.dev/v1alpha1\nkind: Config\nlocal: true\nlocations: [{metadata: {name: a}, spec: {file: {path: /x}}}]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("config.yaml", data)
		if err != nil {
			return
		}
		for _, l := range c.Locations {
			if checkName("location", l.Name) != nil {
				t.Errorf("location %q got in", l.Name)
			}
		}
	})
}
