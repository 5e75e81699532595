package backup

import (
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/test/testbed"
)

// oldServer serves some objects under two groups, as servers did.
func oldServer() *kube.Discovery {
	verbs := []string{"create", "get", "list"}
	return &kube.Discovery{Resources: []kube.Resource{
		{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true, Verbs: verbs, Preferred: true},
		{Group: "events.k8s.io", Version: "v1", Resource: "events", Kind: "Event", Namespaced: true, Verbs: verbs, Preferred: true},
		{Group: "extensions", Version: "v1beta1", Resource: "ingresses", Kind: "Ingress", Namespaced: true, Verbs: verbs, Preferred: true},
		{Group: "extensions", Version: "v1beta1", Resource: "podsecuritypolicies", Kind: "PodSecurityPolicy", Verbs: verbs, Preferred: true},
		{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses", Kind: "Ingress", Namespaced: true, Verbs: verbs, Preferred: true},
		{Group: "policy", Version: "v1beta1", Resource: "podsecuritypolicies", Kind: "PodSecurityPolicy", Verbs: verbs, Preferred: true},
	}}
}

// TestServedTwice asks for objects by either of their names.
func TestServedTwice(t *testing.T) {
	const psp, ingresses, events = "podsecuritypolicies.policy", "ingresses.networking.k8s.io", "events"
	for name, c := range map[string]struct {
		sel  v1alpha1.Selection
		want []string // targets whose objects are taken
		note string
	}{
		"all":               {v1alpha1.Selection{}, []string{events, ingresses, psp}, "events.events.k8s.io are archived as events, which are the same objects"},
		"the second name":   {v1alpha1.Selection{IncludedResources: []string{"events.events.k8s.io", "ingresses.extensions"}}, []string{events, ingresses}, "ingresses.extensions are archived as " + ingresses},
		"both names":        {v1alpha1.Selection{IncludedResources: []string{"ingresses.extensions", ingresses}}, []string{ingresses}, "ingresses.extensions are archived as " + ingresses},
		"the first name":    {v1alpha1.Selection{IncludedResources: []string{ingresses}}, []string{ingresses}, ""},
		"neither":           {v1alpha1.Selection{ExcludedResources: []string{"ingresses", "psp"}}, []string{events}, ""},
		"cluster-scoped":    {v1alpha1.Selection{IncludedResources: []string{"podsecuritypolicies.extensions"}}, []string{psp}, "podsecuritypolicies.extensions are archived as " + psp},
		"by scope":          {v1alpha1.Selection{IncludedNamespaceScopedResources: []string{"events.events.k8s.io"}}, []string{events}, ""},
		"an exclusion wins": {v1alpha1.Selection{ExcludedResources: []string{ingresses}}, []string{events, psp}, "ingresses.extensions are not archived: they are the same objects as " + ingresses},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := (&Engine{}).prepare(Request{Spec: v1alpha1.BackupSpec{Selection: c.sel}})
			if err != nil {
				t.Fatal(err)
			}
			r := newReading(p)
			r.discovery = oldServer()
			r.chooseTargets()
			var got []string
			for _, target := range r.targets {
				if target.take == selection.TakeMatching {
					got = append(got, target.name())
				}
			}
			if notes := strings.Join(r.report().Notes, "\n"); !slices.Equal(got, c.want) || !strings.Contains(notes, c.note) {
				t.Errorf("takes %v, notes:\n%s", got, notes)
			}
		})
	}
}

// TestSecondName backs up events by the name that they are not archived under.
func TestSecondName(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, "apiVersion: v1\nkind: Event\nmetadata: {name: twice, namespace: default}\ninvolvedObject: {namespace: default}")
		s, r := readInto(t, newClient(t, c), v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"events.events.k8s.io"}}})
		if s.items()["events/v1 default/twice"] == nil {
			t.Errorf("%v, %+v", s.keys(), r.report())
		}
	})
}
