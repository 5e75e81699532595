package transform

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/plugins"
)

// swap renames two namespaces to each other, which goes wrong where a reference is mapped twice, and a third.
var swap = Options{NamespaceMapping: map[string]string{"shop": "store", "store": "shop", "ops": "platform", "same": "same"}}

func TestNamespacesOfItems(t *testing.T) {
	run(t, compile(t, swap), []example{
		{
			"a namespaced object moves", "configmaps",
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}, data: {x: shop}}`,
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: store}, data: {x: shop}}`, nil,
		},
		{
			"a Namespace is renamed with its label", "namespaces",
			`{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop, name: shop}}}`,
			`{apiVersion: v1, kind: Namespace, metadata: {name: store, labels: {kubernetes.io/metadata.name: store, name: shop}}}`, nil,
		},
		{
			"a Namespace without the label gets none", "namespaces",
			`{apiVersion: v1, kind: Namespace, metadata: {name: ops}}`, `{apiVersion: v1, kind: Namespace, metadata: {name: platform}}`, nil,
		},
		{"a mapping to itself is none", "configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: same}}`, "", nil},
		{"an object elsewhere stays", "configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: shop, namespace: web}}`, "", nil},
		{
			"a Helm release is remarked on once", "secrets",
			`{apiVersion: v1, kind: Secret, type: helm.sh/release.v1, metadata: {name: r, namespace: shop, labels: {status: deployed}}, data: {release: c2hvcA==}}`,
			`{apiVersion: v1, kind: Secret, type: helm.sh/release.v1, metadata: {name: r, namespace: store, labels: {status: deployed}}, data: {release: c2hvcA==}}`,
			[]string{"HelmReleaseKept"},
		},
	})
}

func TestReferencesInRBAC(t *testing.T) {
	run(t, compile(t, swap), []example{
		{
			"subjects", "clusterrolebindings.rbac.authorization.k8s.io",
			`{kind: ClusterRoleBinding, metadata: {name: b}, subjects: [
			  {kind: ServiceAccount, name: a, namespace: shop}, {kind: ServiceAccount, name: shop, namespace: web},
			  {kind: User, name: "system:serviceaccount:ops:a"}, {kind: User, name: shop}, {kind: Group, name: "system:serviceaccounts:store"},
			  {kind: Group, name: "system:serviceaccounts"}, {kind: User, name: "system:serviceaccount:web:shop"}, nonsense]}`,
			`{kind: ClusterRoleBinding, metadata: {name: b}, subjects: [
			  {kind: ServiceAccount, name: a, namespace: store}, {kind: ServiceAccount, name: shop, namespace: web},
			  {kind: User, name: "system:serviceaccount:platform:a"}, {kind: User, name: shop}, {kind: Group, name: "system:serviceaccounts:shop"},
			  {kind: Group, name: "system:serviceaccounts"}, {kind: User, name: "system:serviceaccount:web:shop"}, nonsense]}`, nil,
		},
		{
			"names of namespaces in rules", "clusterroles.rbac.authorization.k8s.io",
			`{kind: ClusterRole, metadata: {name: r}, rules: [{resources: [namespaces, namespaces/status], resourceNames: [shop, web]},
			  {resources: [namespaces, pods], resourceNames: [ops]}, {resources: [secrets], resourceNames: [shop]}]}`,
			`{kind: ClusterRole, metadata: {name: r}, rules: [{resources: [namespaces, namespaces/status], resourceNames: [store, web]},
			  {resources: [namespaces, pods], resourceNames: [ops]}, {resources: [secrets], resourceNames: [shop]}]}`,
			[]string{"rules[1].resourceNames holds ops"},
		},
		{
			"flow schemas", "flowschemas.flowcontrol.apiserver.k8s.io",
			`{kind: FlowSchema, metadata: {name: f}, spec: {rules: [{subjects: [{kind: ServiceAccount, serviceAccount: {name: "*", namespace: ops}},
			  {kind: User, user: {name: "system:serviceaccount:shop:a"}}, {kind: Group, group: {name: "system:serviceaccounts:ops"}}],
			  resourceRules: [{namespaces: [shop, "*"]}]}]}}`,
			`{kind: FlowSchema, metadata: {name: f}, spec: {rules: [{subjects: [{kind: ServiceAccount, serviceAccount: {name: "*", namespace: platform}},
			  {kind: User, user: {name: "system:serviceaccount:store:a"}}, {kind: Group, group: {name: "system:serviceaccounts:platform"}}],
			  resourceRules: [{namespaces: [store, "*"]}]}]}}`, nil,
		},
	})
}

func TestReferencesInSelectors(t *testing.T) {
	run(t, compile(t, Options{NamespaceMapping: map[string]string{"shop": "store", "till": "store"}}), []example{
		{
			"network policies", "networkpolicies.networking.k8s.io",
			`{kind: NetworkPolicy, metadata: {name: n, namespace: web}, spec: {ingress: [{from: [
			  {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop, team: shop}}, podSelector: {matchLabels: {app: shop}}},
			  {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [shop, till, web]}, {key: team, operator: In, values: [shop]}]}}]}]}}`,
			`{kind: NetworkPolicy, metadata: {name: n, namespace: web}, spec: {ingress: [{from: [
			  {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: store, team: shop}}, podSelector: {matchLabels: {app: shop}}},
			  {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [store, web]}, {key: team, operator: In, values: [shop]}]}}]}]}}`, nil,
		},
		{
			"Cilium's labels", "ciliumnetworkpolicies.cilium.io",
			`{kind: CiliumNetworkPolicy, metadata: {name: n, namespace: web}, spec: {ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": shop}}]}]}}`,
			`{kind: CiliumNetworkPolicy, metadata: {name: n, namespace: web}, spec: {ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": store}}]}]}}`, nil,
		},
		{
			"webhooks", "validatingwebhookconfigurations.admissionregistration.k8s.io",
			`{kind: ValidatingWebhookConfiguration, metadata: {name: w, annotations: {cert-manager.io/inject-ca-from: shop/cert}},
			  webhooks: [{clientConfig: {service: {namespace: shop, name: shop}}, namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [shop]}]},
			  matchConditions: [{name: x, expression: 'request.namespace != "till"'}]}]}`,
			`{kind: ValidatingWebhookConfiguration, metadata: {name: w, annotations: {cert-manager.io/inject-ca-from: store/cert}},
			  webhooks: [{clientConfig: {service: {namespace: store, name: shop}}, namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [store]}]},
			  matchConditions: [{name: x, expression: 'request.namespace != "till"'}]}]}`,
			[]string{`webhooks[0].matchConditions[0].expression holds "till"`},
		},
		{
			"pod affinity", "deployments.apps",
			`{kind: Deployment, metadata: {name: d, namespace: web}, spec: {template: {spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
			  {namespaces: [shop, till], namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: till}}}]},
			  podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{podAffinityTerm: {namespaces: [shop]}}]}}}}}}`,
			`{kind: Deployment, metadata: {name: d, namespace: web}, spec: {template: {spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
			  {namespaces: [store], namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: store}}}]},
			  podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{podAffinityTerm: {namespaces: [store]}}]}}}}}}`, nil,
		},
		{
			"service monitors", "servicemonitors.monitoring.coreos.com",
			`{kind: ServiceMonitor, metadata: {name: s, namespace: web}, spec: {namespaceSelector: {matchNames: [shop]}}}`,
			`{kind: ServiceMonitor, metadata: {name: s, namespace: web}, spec: {namespaceSelector: {matchNames: [store]}}}`, nil,
		},
		{
			"Istio's sources", "authorizationpolicies.security.istio.io",
			`{kind: AuthorizationPolicy, metadata: {name: a, namespace: web}, spec: {rules: [{from: [{source: {namespaces: [shop], principals: [cluster.local/ns/shop/sa/shop]}}]}]}}`,
			`{kind: AuthorizationPolicy, metadata: {name: a, namespace: web}, spec: {rules: [{from: [{source: {namespaces: [store], principals: [cluster.local/ns/store/sa/shop]}}]}]}}`, nil,
		},
		{
			"an external name", "services",
			`{kind: Service, metadata: {name: s, namespace: web}, spec: {externalName: cart.shop.svc.cluster.local}}`,
			`{kind: Service, metadata: {name: s, namespace: web}, spec: {externalName: cart.store.svc.cluster.local}}`, nil,
		},
		{
			"classes with Secrets", "storageclasses.storage.k8s.io",
			`{kind: StorageClass, metadata: {name: s}, parameters: {csi.storage.k8s.io/node-stage-secret-namespace: shop, csi.storage.k8s.io/node-stage-secret-name: shop, x-namespace: web}}`,
			`{kind: StorageClass, metadata: {name: s}, parameters: {csi.storage.k8s.io/node-stage-secret-namespace: store, csi.storage.k8s.io/node-stage-secret-name: shop, x-namespace: web}}`, nil,
		},
	})
}

// TestReferencesByName makes, for each field of the table that holds a name alone, an object with only it.
func TestReferencesByName(t *testing.T) {
	p := compile(t, swap)
	for res, refs := range references {
		for _, r := range refs {
			made := r.form(p.namespaces)(&edits{}, "shop")
			if made != "store" {
				continue // another form: it has its own examples
			}
			t.Run(fmt.Sprint(res, r.place), func(t *testing.T) {
				obj := build(r.place, "shop").(map[string]any)
				res, err := p.Apply(t.Context(), Subject{Ref: plugins.Ref{Group: res.group, Version: "v1", Resource: res.name, Name: "x"}}, obj)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(build(r.place, "store"), any(res.Object)); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

// build makes a document that holds the value at the place and nothing else.
func build(p place, value any) any {
	switch {
	case len(p) == 0:
		return value
	case p[0] == "[]":
		return []any{build(p[1:], value)}
	}
	return map[string]any{p[0]: build(p[1:], value)}
}

func TestKeptReferences(t *testing.T) {
	run(t, compile(t, swap), []example{
		{
			"DNS names in settings are reported by host alone", "configmaps",
			`{kind: ConfigMap, metadata: {name: c, namespace: web}, data: {
			  a.conf: "password=x url=http://cart.shop.svc.cluster.local:80/ other=http://cart.web.svc", b: "redis://:pw@redis.ops:6379/0", c: "cache.store:11211",
			  d: "not.a-shop", e: shop, f: "www.shop.example", g: "https://shop.example/ops"}}`, "",
			[]string{"data.b names redis.ops in", "data.c names cache.store in", `data["a.conf"] names cart.shop.svc in a namespace`},
		},
		{
			"env values", "deployments.apps",
			`{kind: Deployment, metadata: {name: d, namespace: web}, spec: {template: {spec: {containers: [{name: c, env: [{name: A, value: "http://cart.ops/x"}], args: ["--to=cart.ops.svc"]}]}}}}`, "",
			[]string{"containers[0].args[0] names cart.ops.svc", "containers[0].env[0].value names cart.ops in"},
		},
		{
			"GitOps specs are left alone", "applications.argoproj.io",
			`{kind: Application, metadata: {name: a, namespace: argocd}, spec: {destination: {namespace: shop, server: x}, source: {path: shop}}}`, "",
			[]string{"spec.destination.namespace names namespace shop, which is restored as store"},
		},
		{
			"lists of namespaces in unknown kinds", "policies.kyverno.io",
			`{kind: Policy, metadata: {name: a}, spec: {match: {any: [{resources: {namespaces: [web, ops]}}]}}}`, "",
			[]string{"spec.match.any[0].resources.namespaces[1] names namespace ops"},
		},
		{"Secrets are not read", "secrets", `{kind: Secret, metadata: {name: s, namespace: web}, stringData: {namespace: shop, url: "http://cart.shop.svc"}}`, "", nil},
		{
			"many are counted", "configmaps",
			`{kind: ConfigMap, metadata: {name: c, namespace: web}, data: {a: x.ops, b: x.ops, c: x.ops, d: x.ops, e: x.ops, f: x.ops, g: x.ops, h: x.ops, i: x.ops, j: x.ops}}`, "",
			[]string{"data.a", "data.b", "data.c", "data.d", "data.e", "data.f", "data.g", "data.h", "2 more fields"},
		},
	})
}

func TestKeptIsJudgedAfterModifiers(t *testing.T) {
	opts, err := Load(reader(`{modifiers: [{resources: [applications], jsonPatch: [{op: replace, path: /spec/destination/namespace, value: '"store"'}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	run(t, compile(t, Options{NamespaceMapping: swap.NamespaceMapping, Transforms: opts}), []example{{
		"a modifier settles it", "applications.argoproj.io",
		`{kind: Application, metadata: {name: a, namespace: argocd}, spec: {destination: {namespace: shop}}}`,
		`{kind: Application, metadata: {name: a, namespace: argocd}, spec: {destination: {namespace: store}}}`, nil,
	}})
}
