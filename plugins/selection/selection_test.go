package selection

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

var (
	deployments = kube.Resource{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Singular: "deployment", ShortNames: []string{"deploy"}, Namespaced: true}
	secrets     = kube.Resource{Version: "v1", Resource: "secrets", Kind: "Secret", Singular: "secret", Namespaced: true}
	pvcs        = kube.Resource{Version: "v1", Resource: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Namespaced: true}
	pvs         = kube.Resource{Version: "v1", Resource: "persistentvolumes", Kind: "PersistentVolume"}
	classes     = kube.Resource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses", Kind: "StorageClass"}
	namespaces  = kube.Resource{Version: "v1", Resource: "namespaces", Kind: "Namespace"}
	issuers     = kube.Resource{Group: "cert-manager.io", Version: "v1", Resource: "clusterissuers", Kind: "ClusterIssuer"}
)

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// TestResource follows what Velero's page on resource filtering says of each combination.
func TestResource(t *testing.T) {
	type takes map[*kube.Resource]Take
	for name, c := range map[string]struct {
		sel  v1alpha1.Selection
		want takes
	}{
		"nothing said: everything": {v1alpha1.Selection{},
			takes{&deployments: TakeMatching, &pvs: TakeMatching, &namespaces: TakeMatching, &issuers: TakeMatching}},
		"stars: everything": {v1alpha1.Selection{IncludedNamespaces: []string{"*"}, IncludedResources: []string{"*"}},
			takes{&deployments: TakeMatching, &pvs: TakeMatching, &namespaces: TakeMatching}},
		"one namespace: related cluster-scoped ones": {v1alpha1.Selection{IncludedNamespaces: []string{"shop"}},
			takes{&deployments: TakeMatching, &pvs: TakeRelated, &classes: TakeRelated, &namespaces: TakeMatching}},
		"one namespace left out: related ones too": {v1alpha1.Selection{ExcludedNamespaces: []string{"kube-system"}},
			takes{&deployments: TakeMatching, &pvs: TakeRelated, &namespaces: TakeMatching}},
		"one namespace and all cluster-scoped ones": {v1alpha1.Selection{IncludedNamespaces: []string{"shop"}, IncludeClusterResources: yes()},
			takes{&deployments: TakeMatching, &pvs: TakeMatching, &classes: TakeMatching, &namespaces: TakeMatching}},
		"no cluster-scoped ones": {v1alpha1.Selection{IncludeClusterResources: no()},
			takes{&deployments: TakeMatching, &pvs: TakeNone, &classes: TakeNone, &namespaces: TakeRelated}},
		"one resource": {v1alpha1.Selection{IncludedResources: []string{"deployments"}},
			takes{&deployments: TakeMatching, &secrets: TakeNone, &pvs: TakeRelated, &namespaces: TakeRelated}},
		"one resource and all cluster-scoped ones of those named": {v1alpha1.Selection{IncludedResources: []string{"deployments", "storageclasses"}, IncludeClusterResources: yes()},
			takes{&deployments: TakeMatching, &classes: TakeMatching, &pvs: TakeRelated, &namespaces: TakeRelated}},
		"one resource without cluster-scoped ones": {v1alpha1.Selection{IncludedResources: []string{"pvc"}, IncludeClusterResources: no()},
			takes{&pvcs: TakeMatching, &pvs: TakeNone, &namespaces: TakeRelated}},
		"resources left out": {v1alpha1.Selection{ExcludedResources: []string{"secrets", "pv"}},
			takes{&deployments: TakeMatching, &secrets: TakeNone, &pvs: TakeNone, &namespaces: TakeMatching}},
		"namespaces left out by name": {v1alpha1.Selection{IncludedNamespaces: []string{"shop"}, ExcludedResources: []string{"ns"}},
			takes{&deployments: TakeMatching, &namespaces: TakeNone}},
		"short name, kind, group, version, glob": {v1alpha1.Selection{IncludedResources: []string{"deploy", "Secret", "persistentvolumeclaims.v1", "*.storage.k8s.io", "cluster*.cert-manager.io"}},
			takes{&deployments: TakeMatching, &secrets: TakeMatching, &pvcs: TakeMatching, &classes: TakeMatching, &issuers: TakeMatching, &pvs: TakeRelated}},
		"group that is another's": {v1alpha1.Selection{IncludedResources: []string{"deployments.extensions"}},
			takes{&deployments: TakeNone}},
		"a label selector does not change what is looked at": {v1alpha1.Selection{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}},
			takes{&deployments: TakeMatching, &pvs: TakeMatching, &namespaces: TakeMatching}},
		"cluster-scoped named: those whole, the others where needed": {v1alpha1.Selection{IncludedClusterScopedResources: []string{"storageclasses"}},
			takes{&deployments: TakeMatching, &classes: TakeMatching, &pvs: TakeRelated, &namespaces: TakeRelated}},
		"all cluster-scoped": {v1alpha1.Selection{IncludedClusterScopedResources: []string{"*"}, IncludedNamespaceScopedResources: []string{"secrets"}},
			takes{&deployments: TakeNone, &secrets: TakeMatching, &pvs: TakeMatching, &namespaces: TakeMatching}},
		"namespace-scoped named: cluster-scoped where needed": {v1alpha1.Selection{IncludedNamespaceScopedResources: []string{"pvc"}},
			takes{&deployments: TakeNone, &pvcs: TakeMatching, &pvs: TakeRelated, &namespaces: TakeRelated}},
		"cluster-scoped left out by name, the rest whole": {v1alpha1.Selection{ExcludedClusterScopedResources: []string{"pv"}},
			takes{&deployments: TakeMatching, &pvs: TakeNone, &classes: TakeMatching, &namespaces: TakeMatching}},
		"all cluster-scoped left out": {v1alpha1.Selection{ExcludedClusterScopedResources: []string{"*"}},
			takes{&deployments: TakeMatching, &pvs: TakeNone, &namespaces: TakeRelated}},
		"all namespace-scoped left out": {v1alpha1.Selection{ExcludedNamespaceScopedResources: []string{"*"}, IncludedClusterScopedResources: []string{"*"}},
			takes{&deployments: TakeNone, &pvs: TakeMatching}},
		"scoped form within namespaces": {v1alpha1.Selection{IncludedNamespaces: []string{"shop"}, ExcludedNamespaceScopedResources: []string{"secrets"}},
			takes{&deployments: TakeMatching, &secrets: TakeNone, &pvs: TakeRelated, &namespaces: TakeMatching}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Compile(c.sel)
			if err != nil {
				t.Fatal(err)
			}
			for r, want := range c.want {
				if got := m.Resource(*r); got != want {
					t.Errorf("%s: %d, want %d", r.GroupResource(), got, want)
				}
			}
		})
	}
}

func TestItem(t *testing.T) {
	ref := func(ns, name string) plugins.Ref {
		return plugins.Ref{Version: "v1", Resource: "secrets", Namespace: ns, Name: name}
	}
	team := func(s string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"team": s}}
	}
	blue := map[string]string{"team": "blue"}
	for name, c := range map[string]struct {
		sel    v1alpha1.Selection
		ref    plugins.Ref
		labels map[string]string
		want   Verdict
	}{
		"all":                          {v1alpha1.Selection{}, ref("a", "x"), nil, In},
		"exclusion wins":               {v1alpha1.Selection{IncludedNamespaces: []string{"app-*"}, ExcludedNamespaces: []string{"app-old*"}}, ref("app-old-1", "x"), nil, Out},
		"glob":                         {v1alpha1.Selection{IncludedNamespaces: []string{"app-?", "[xy]"}}, ref("y", "x"), nil, In},
		"not included":                 {v1alpha1.Selection{IncludedNamespaces: []string{"a"}}, ref("b", "x"), nil, Out},
		"cluster-scoped has none":      {v1alpha1.Selection{IncludedNamespaces: []string{"a"}}, ref("", "x"), nil, In},
		"a namespace is its own":       {v1alpha1.Selection{IncludedNamespaces: []string{"a"}}, plugins.Ref{Version: "v1", Resource: "namespaces", Name: "b"}, nil, Out},
		"label":                        {v1alpha1.Selection{LabelSelector: team("blue")}, ref("a", "x"), blue, In},
		"other label":                  {v1alpha1.Selection{LabelSelector: team("red")}, ref("a", "x"), blue, Out},
		"or: second":                   {v1alpha1.Selection{OrLabelSelectors: []*metav1.LabelSelector{team("red"), team("blue")}}, ref("a", "x"), blue, In},
		"or: none":                     {v1alpha1.Selection{OrLabelSelectors: []*metav1.LabelSelector{team("red"), team("green")}}, ref("a", "x"), blue, Out},
		"or: one takes all":            {v1alpha1.Selection{OrLabelSelectors: []*metav1.LabelSelector{team("red"), {}}}, ref("a", "x"), nil, In},
		"empty selector takes all":     {v1alpha1.Selection{LabelSelector: &metav1.LabelSelector{}}, ref("a", "x"), nil, In},
		"name":                         {v1alpha1.Selection{FieldSelector: "metadata.name=x"}, ref("a", "x"), nil, In},
		"name and namespace":           {v1alpha1.Selection{FieldSelector: "metadata.name=x,metadata.namespace!=a"}, ref("a", "x"), nil, Out},
		"exclude label":                {v1alpha1.Selection{}, ref("a", "x"), map[string]string{v1alpha1.ExcludeLabel: "true"}, OutByLabel},
		"exclude label that says else": {v1alpha1.Selection{}, ref("a", "x"), map[string]string{v1alpha1.ExcludeLabel: "false"}, In},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Compile(c.sel)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Item(c.ref, c.labels); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		sel  v1alpha1.Selection
		want string // of the error
	}{
		"star and more":           {v1alpha1.Selection{IncludedNamespaces: []string{"*", "a"}}, `spec.includedNamespaces: holds "*" and more`},
		"everything left out":     {v1alpha1.Selection{ExcludedNamespaces: []string{"*"}}, `spec.excludedNamespaces: holds "*"`},
		"in and out":              {v1alpha1.Selection{IncludedNamespaces: []string{"a", "b"}, ExcludedNamespaces: []string{"c", "b"}}, `spec.excludedNamespaces[1]: "b" is in includedNamespaces too`},
		"empty":                   {v1alpha1.Selection{IncludedNamespaces: []string{"a", "b", ""}}, `spec.includedNamespaces[2]: is empty`},
		"upper case":              {v1alpha1.Selection{IncludedNamespaces: []string{"Shop"}}, `spec.includedNamespaces[0]: "Shop" is not a namespace`},
		"comma":                   {v1alpha1.Selection{IncludedResources: []string{"a,b"}}, `spec.includedResources[0]: "a,b" holds a comma`},
		"slash":                   {v1alpha1.Selection{ExcludedResources: []string{"apps/deployments"}}, `spec.excludedResources[0]: "apps/deployments" is not a resource`},
		"open bracket":            {v1alpha1.Selection{IncludedResources: []string{"[a"}}, `spec.includedResources[0]: "[a" has a "["`},
		"both forms":              {v1alpha1.Selection{IncludedResources: []string{"pods"}, IncludedClusterScopedResources: []string{"pv"}}, `spec.includedResources: cannot be combined`},
		"both forms, flag":        {v1alpha1.Selection{IncludeClusterResources: yes(), ExcludedNamespaceScopedResources: []string{"pods"}}, `spec.includeClusterResources: cannot be combined`},
		"both kinds of labels":    {v1alpha1.Selection{LabelSelector: &metav1.LabelSelector{}, OrLabelSelectors: []*metav1.LabelSelector{{}}}, `spec.orLabelSelectors: cannot be combined`},
		"null selector":           {v1alpha1.Selection{OrLabelSelectors: []*metav1.LabelSelector{{}, nil}}, `spec.orLabelSelectors[1]: is empty`},
		"bad operator":            {v1alpha1.Selection{LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}}}, `spec.labelSelector: "Is" is not a valid`},
		"bad label":               {v1alpha1.Selection{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}}, `spec.labelSelector:`},
		"unknown field":           {v1alpha1.Selection{FieldSelector: "spec.nodeName=x"}, `spec.fieldSelector: "spec.nodeName" is not a field that every object has`},
		"no field selector":       {v1alpha1.Selection{FieldSelector: "x"}, `spec.fieldSelector:`},
		"expression of no sense":  {v1alpha1.Selection{Expression: "object.kind =="}, `spec.expression: is not a CEL expression`},
		"expression of a number":  {v1alpha1.Selection{Expression: "1 + 1"}, `spec.expression: gives a int`},
		"expression over another": {v1alpha1.Selection{Expression: "pod.kind == 'x'"}, `spec.expression: is not a CEL expression`},
		"two errors":              {v1alpha1.Selection{IncludedNamespaces: []string{""}, FieldSelector: "x"}, "spec.fieldSelector"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.sel)
			var fe *FieldError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestObject(t *testing.T) {
	pod := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"b"}},"spec":{"replicas":3,"big":9007199254740993}}`)
	for expression, want := range map[string]bool{
		"object.kind == 'Pod'":                             true,
		"object.metadata.name.startsWith('y')":             false,
		"object.spec.replicas == 3":                        true,
		"object.spec.big == 9007199254740993":              true,
		"has(object.metadata.annotations)":                 false,
		"object.?metadata.?labels.?a.orValue('') == 'b'":   true,
		"object.kind != 'Secret' || object.type == 'none'": true,
	} {
		m, err := Compile(v1alpha1.Selection{Expression: expression})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Object(t.Context(), pod); err != nil || got != want {
			t.Errorf("%s: %v, %v", expression, got, err)
		}
	}
	for expression, want := range map[string]string{
		"object.data.x == 'y'": "spec.expression: no such key: data",
		"object.spec.replicas": "spec.expression: gave a int",
		"[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, [1,2,3,4,5,6,7,8,9,10].all(g, a+b+c+d+e+f+g > 0)))))))": "spec.expression: operation cancelled: actual cost limit exceeded",
	} {
		m, err := Compile(v1alpha1.Selection{Expression: expression})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Object(t.Context(), pod); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40s: error %v", expression, err)
		}
	}
}

func TestUnmatched(t *testing.T) {
	m, err := Compile(v1alpha1.Selection{IncludedResources: []string{"deploy", "deploymnets", "*.storage.k8s.io"}, ExcludedResources: []string{"widgets.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	got := m.Unmatched([]kube.Resource{deployments, classes})
	if len(got) != 2 || got[0] != (FieldPattern{"spec.includedResources[1]", "deploymnets"}) || got[1].Field != "spec.excludedResources[0]" {
		t.Errorf("%v", got)
	}
}

// TestGroup asks of a group that cannot be discovered whether anything of it is missing.
func TestGroup(t *testing.T) {
	type sel = v1alpha1.Selection
	for name, c := range map[string]struct {
		sel  sel
		want bool
	}{
		"everything":                          {sel{}, true},
		"another group":                       {sel{IncludedResources: []string{"deployments.apps"}}, false},
		"a name that another group has":       {sel{IncludedResources: []string{"deployments"}}, false},
		"a short name that another group has": {sel{IncludedResources: []string{"deploy"}}, false},
		"a name that none has":                {sel{IncludedResources: []string{"deployments", "nodemetrics"}}, true},
		"a glob that none has":                {sel{IncludedResources: []string{"node*"}}, true},
		"the group":                           {sel{IncludedResources: []string{"*.metrics.example.com"}}, true},
		"one of the group, in a version":      {sel{IncludedResources: []string{"x.v1.metrics.example.com"}}, true},
		"all but the group":                   {sel{ExcludedResources: []string{"*.metrics.example.com"}}, false},
		"all but one of the group":            {sel{ExcludedResources: []string{"x.metrics.example.com"}}, true},
		"a name, without the group":           {sel{IncludedResources: []string{"nodemetrics"}, ExcludedResources: []string{"*.metrics.example.com"}}, false},

		"namespaced: a name that none has":     {sel{IncludedNamespaceScopedResources: []string{"nodemetrics"}}, true},
		"namespaced: a name that another has":  {sel{IncludedNamespaceScopedResources: []string{"deploy"}}, false},
		"cluster-scoped: a name that none has": {sel{IncludedClusterScopedResources: []string{"nodemetrics"}, ExcludedNamespaceScopedResources: []string{"*"}}, true},
		"cluster-scoped: the group":            {sel{IncludedClusterScopedResources: []string{"*.metrics.example.com"}, IncludedNamespaceScopedResources: []string{"deploy"}}, true},
		"cluster-scoped: all":                  {sel{IncludedClusterScopedResources: []string{"*"}, IncludedNamespaceScopedResources: []string{"deploy"}}, true},
		"cluster-scoped: another":              {sel{IncludedClusterScopedResources: []string{"sc"}, IncludedNamespaceScopedResources: []string{"deploy"}}, false},
		"by scope: left out in one alone":      {sel{ExcludedNamespaceScopedResources: []string{"*.metrics.example.com"}, IncludedClusterScopedResources: []string{"*"}}, true},
		"by scope: left out in both":           {sel{ExcludedNamespaceScopedResources: []string{"*.metrics.example.com"}, ExcludedClusterScopedResources: []string{"*"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Compile(c.sel)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Group("metrics.example.com", []kube.Resource{deployments, classes}); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestLiteralNamespaces(t *testing.T) {
	for _, c := range []struct {
		in, out []string
		want    string
		ok      bool
	}{
		{nil, nil, "", false},
		{[]string{"*"}, nil, "", false},
		{[]string{"a", "b", "a"}, nil, "a b", true},
		{[]string{"a", "b"}, []string{"b*"}, "a", true},
		{[]string{"a", "b*"}, nil, "", false},
	} {
		m, err := Compile(v1alpha1.Selection{IncludedNamespaces: c.in, ExcludedNamespaces: c.out})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := m.LiteralNamespaces(); strings.Join(got, " ") != c.want || ok != c.ok {
			t.Errorf("%v: %v, %v", c.in, got, ok)
		}
	}
}
