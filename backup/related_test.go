package backup

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/testbed"
)

const relatedManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: rel-shop, labels: {team: blue}}
---
apiVersion: v1
kind: Namespace
metadata: {name: rel-other}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: stores.rel.example.com}
spec:
  group: rel.example.com
  scope: Namespaced
  names: {plural: stores, singular: store, kind: Store}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: others.rel.example.com}
spec:
  group: rel.example.com
  scope: Namespaced
  names: {plural: others, singular: other, kind: Other}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: rel.example.com/v1
kind: Store
metadata: {name: main, namespace: rel-shop}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: rel-gp3}
provisioner: rel.csi.example.com
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: rel-unused}
provisioner: rel.csi.example.com
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: rel.csi.example.com}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: rel-pv}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: rel-gp3
  claimRef: {name: data, namespace: rel-shop}
  csi: {driver: rel.csi.example.com, volumeHandle: vol-1}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: rel-shop, labels: {keep: "yes"}}
spec: {accessModes: [ReadWriteOnce], volumeName: rel-pv, storageClassName: rel-gp3, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: rel-shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: rel-sum}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {rel-sum: "true"}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: rel-part, labels: {rel-sum: "true"}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: rel-unused}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: rel-cart}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: rel-sum}
subjects: [{kind: ServiceAccount, name: cart, namespace: rel-shop}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: rel-other}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: rel-unused}
subjects: [{kind: ServiceAccount, name: cart, namespace: rel-other}]
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: rel-high}
value: 5
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: rel-shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec: {priorityClassName: rel-high, containers: [{name: c, image: x}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: rel-alb}
spec: {controller: example.com/alb}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: cart, namespace: rel-shop}
spec: {ingressClassName: rel-alb, defaultBackend: {service: {name: cart, port: {number: 80}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: not-me, namespace: rel-shop, labels: {kedge.dev/exclude-from-backup: "true"}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: rel-hook}
webhooks:
- name: hook.rel.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], resources: [none], operations: [CREATE]}]
  clientConfig: {service: {name: cart, namespace: rel-shop}}
`

// relatedClusterScoped is what the objects of rel-shop need, by the table of relations, and what that needs in turn.
var relatedClusterScoped = []string{
	"clusterrolebindings.rbac.authorization.k8s.io/v1 rel-cart", "clusterroles.rbac.authorization.k8s.io/v1 rel-part", "clusterroles.rbac.authorization.k8s.io/v1 rel-sum",
	"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "customresourcedefinitions.apiextensions.k8s.io/v1 stores.rel.example.com",
	"ingressclasses.networking.k8s.io/v1 rel-alb", "namespaces/v1 rel-shop", "persistentvolumes/v1 rel-pv", "priorityclasses.scheduling.k8s.io/v1 rel-high",
	"storageclasses.storage.k8s.io/v1 rel-gp3", "validatingwebhookconfigurations.admissionregistration.k8s.io/v1 rel-hook",
}

func TestRelated(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, relatedManifests)
		client := newClient(t, c)
		no, yes := false, true
		blue := &metav1.LabelSelector{MatchLabels: map[string]string{"keep": "yes"}}
		for name, check := range map[string]struct {
			sel  v1alpha1.Selection
			want []string // cluster-scoped
		}{
			"a namespace":            {v1alpha1.Selection{IncludedNamespaces: []string{"rel-shop"}}, relatedClusterScoped},
			"a glob of namespaces":   {v1alpha1.Selection{IncludedNamespaces: []string{"rel-s*"}}, relatedClusterScoped},
			"without cluster-scoped": {v1alpha1.Selection{IncludedNamespaces: []string{"rel-shop"}, IncludeClusterResources: &no}, []string{"namespaces/v1 rel-shop"}},
			"claims alone": {v1alpha1.Selection{IncludedNamespaces: []string{"rel-shop"}, IncludedResources: []string{"pvc"}},
				[]string{"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "namespaces/v1 rel-shop", "persistentvolumes/v1 rel-pv", "storageclasses.storage.k8s.io/v1 rel-gp3", "validatingwebhookconfigurations.admissionregistration.k8s.io/v1 rel-hook"}},
			"by label in all namespaces": {v1alpha1.Selection{LabelSelector: blue},
				[]string{"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "namespaces/v1 rel-shop", "persistentvolumes/v1 rel-pv", "storageclasses.storage.k8s.io/v1 rel-gp3", "validatingwebhookconfigurations.admissionregistration.k8s.io/v1 rel-hook"}},
			"volumes left out": {v1alpha1.Selection{IncludedNamespaces: []string{"rel-shop"}, IncludedNamespaceScopedResources: []string{"pvc"}, ExcludedClusterScopedResources: []string{"pv", "*.admissionregistration.k8s.io"}},
				[]string{"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "namespaces/v1 rel-shop", "storageclasses.storage.k8s.io/v1 rel-gp3"}},
			"all classes": {v1alpha1.Selection{IncludedNamespaces: []string{"rel-other"}, IncludedClusterScopedResources: []string{"sc"}, IncludedNamespaceScopedResources: []string{"pods"}},
				[]string{"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "storageclasses.storage.k8s.io/v1 rel-gp3", "storageclasses.storage.k8s.io/v1 rel-unused"}},
			"all cluster-scoped": {v1alpha1.Selection{IncludedNamespaces: []string{"rel-other"}, IncludedResources: []string{"sc", "priorityclasses"}, IncludeClusterResources: &yes},
				[]string{"csidrivers.storage.k8s.io/v1 rel.csi.example.com", "priorityclasses.scheduling.k8s.io/v1 rel-high", "priorityclasses.scheduling.k8s.io/v1 system-cluster-critical", "priorityclasses.scheduling.k8s.io/v1 system-node-critical", "storageclasses.storage.k8s.io/v1 rel-gp3", "storageclasses.storage.k8s.io/v1 rel-unused"}},
		} {
			t.Run(name, func(t *testing.T) {
				s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: check.sel})
				var got []string
				for _, key := range s.keys() {
					if _, name, _ := strings.Cut(key, " "); !strings.Contains(name, "/") {
						got = append(got, key)
					}
				}
				if g, w := strings.Join(got, "\n"), strings.Join(check.want, "\n"); g != w {
					t.Errorf("got\n%s\nwant\n%s", g, w)
				}
				if report := r.report(); len(report.Errors)+len(report.Warnings) > 0 {
					t.Errorf("%+v", report)
				}
			})
		}
		s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"rel-shop"}, Expression: "object.kind != 'Ingress'"}})
		keys := strings.Join(s.keys(), "\n")
		if strings.Contains(keys, "not-me") || strings.Contains(keys, "ingress") || !strings.Contains(keys, "deployments.apps/v1 rel-shop/cart") {
			t.Errorf("read\n%s", keys)
		}
		if remarkOf(r.report().Skipped, "secrets", ReasonExcludedByLabel) == "" {
			t.Errorf("%+v", r.report())
		}
	})
}

// TestExcludedOnce: an object with the exclude label that two lists show is told of once.
func TestExcludedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: once, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: once, labels: {kedge.dev/exclude-from-backup: "true"}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: once, namespace: default}]
`)
		_, r := readInto(t, newClient(t, c), v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"serviceaccounts", "clusterrolebindings"}}})
		told := 0
		for _, m := range r.report().Skipped {
			if m.Ref.Name == "once" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("told %d times: %+v", told, r.report().Skipped)
		}
	})
}
