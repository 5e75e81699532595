package selection

import (
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

func TestNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		group, resource, namespace, object string
		owners                             []rawjson.Owner
		want                               string
	}{
		"claim": {"", "persistentvolumeclaims", "shop", `{"spec":{"volumeName":"pv-1","storageClassName":"gp3"}}`, nil,
			"namespaces shop, persistentvolumes pv-1, storageclasses.storage.k8s.io gp3"},
		"volume":        {"", "persistentvolumes", "", `{"spec":{"storageClassName":"gp3","csi":{"driver":"ebs.csi.aws.com"}}}`, nil, "storageclasses.storage.k8s.io gp3, csidrivers.storage.k8s.io ebs.csi.aws.com"},
		"storage class": {"storage.k8s.io", "storageclasses", "", `{"provisioner":"ebs.csi.aws.com"}`, nil, "customresourcedefinitions.apiextensions.k8s.io storageclasses.storage.k8s.io, csidrivers.storage.k8s.io ebs.csi.aws.com"},
		"pod":           {"", "pods", "a", `{"spec":{"priorityClassName":"high","runtimeClassName":"gvisor","volumes":[{"csi":{"driver":"x"}},{"ephemeral":{"volumeClaimTemplate":{"spec":{"storageClassName":"s"}}}}]}}`, nil, "namespaces a, priorityclasses.scheduling.k8s.io high, runtimeclasses.node.k8s.io gvisor, csidrivers.storage.k8s.io x, storageclasses.storage.k8s.io s"},
		"deployment":    {"apps", "deployments", "a", `{"spec":{"template":{"spec":{"priorityClassName":"high"}}}}`, nil, "namespaces a, priorityclasses.scheduling.k8s.io high"},
		"cron job":      {"batch", "cronjobs", "a", `{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"priorityClassName":"high"}}}}}}`, nil, "namespaces a, priorityclasses.scheduling.k8s.io high"},
		"stateful set":  {"apps", "statefulsets", "a", `{"spec":{"volumeClaimTemplates":[{"spec":{"storageClassName":"gp2"}}]}}`, nil, "namespaces a, storageclasses.storage.k8s.io gp2"},
		"ingress":       {"networking.k8s.io", "ingresses", "a", `{"metadata":{"annotations":{"kubernetes.io/ingress.class":"alb"}},"spec":{"ingressClassName":"nginx"}}`, nil, "namespaces a, customresourcedefinitions.apiextensions.k8s.io ingresses.networking.k8s.io, ingressclasses.networking.k8s.io nginx, ingressclasses.networking.k8s.io alb"},
		"ingress class": {"networking.k8s.io", "ingressclasses", "", `{"spec":{"parameters":{"apiGroup":"elbv2.k8s.aws","kind":"IngressClassParams","name":"p"}}}`, nil, "customresourcedefinitions.apiextensions.k8s.io ingressclasses.networking.k8s.io, kind IngressClassParams.elbv2.k8s.aws p"},
		"role binding":  {"rbac.authorization.k8s.io", "rolebindings", "a", `{"roleRef":{"kind":"ClusterRole","name":"view"}}`, nil, "namespaces a, customresourcedefinitions.apiextensions.k8s.io rolebindings.rbac.authorization.k8s.io, clusterroles.rbac.authorization.k8s.io view"},
		"own role":      {"rbac.authorization.k8s.io", "rolebindings", "a", `{"roleRef":{"kind":"Role","name":"view"}}`, nil, "namespaces a, customresourcedefinitions.apiextensions.k8s.io rolebindings.rbac.authorization.k8s.io"},
		"aggregated":    {"rbac.authorization.k8s.io", "clusterroles", "", `{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"to":"view"}},{}]}}`, nil, "customresourcedefinitions.apiextensions.k8s.io clusterroles.rbac.authorization.k8s.io, clusterroles.rbac.authorization.k8s.io to=view"},
		"snapshot":      {"snapshot.storage.k8s.io", "volumesnapshots", "a", `{"spec":{"volumeSnapshotClassName":"c"},"status":{"boundVolumeSnapshotContentName":"vsc"}}`, nil, "namespaces a, customresourcedefinitions.apiextensions.k8s.io volumesnapshots.snapshot.storage.k8s.io, volumesnapshotclasses.snapshot.storage.k8s.io c, volumesnapshotcontents.snapshot.storage.k8s.io vsc"},
		"custom":        {"shop.example.com", "stores", "a", `{}`, []rawjson.Owner{{APIVersion: "fleet.example.com/v1", Kind: "Fleet", Name: "f"}, {APIVersion: "v1", Kind: "Node", Name: "n"}}, "namespaces a, customresourcedefinitions.apiextensions.k8s.io stores.shop.example.com, kind Fleet.fleet.example.com f"},
		"odd shapes":    {"", "pods", "a", `{"spec":{"volumes":{"x":1},"priorityClassName":7}}`, nil, "namespaces a"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Needs(Subject{Ref: plugins.Ref{Group: c.group, Version: "v1", Resource: c.resource, Namespace: c.namespace, Name: "x"}, Owners: c.owners, Raw: []byte(c.object)})
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, n := range got {
				word := plugins.Ref{Group: n.Group, Resource: n.Resource}.GroupResource()
				if n.Kind != "" {
					word = "kind " + n.Kind + "." + n.Group
				}
				if n.Selector != nil {
					n.Name = n.Selector.String()
				}
				words = append(words, word+" "+n.Name)
			}
			if s := strings.Join(words, ", "); s != c.want {
				t.Errorf("needs %s\nwant  %s", s, c.want)
			}
		})
	}
}

type chosen []string

func (c chosen) Namespace(name string) bool          { return slices.Contains(c, name) }
func (c chosen) ServiceAccount(ns, name string) bool { return slices.Contains(c, ns+"/"+name) }

func TestWanted(t *testing.T) {
	const rbac, hooks = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
	for name, c := range map[string]struct {
		group, resource, object string
		want                    bool
	}{
		"binding of a selected account": {rbac, "clusterrolebindings", `{"subjects":[{"kind":"User","name":"x"},{"kind":"ServiceAccount","namespace":"a","name":"sa"}]}`, true},
		"binding of another account":    {rbac, "clusterrolebindings", `{"subjects":[{"kind":"ServiceAccount","namespace":"a","name":"other"}]}`, false},
		"binding of all accounts":       {rbac, "clusterrolebindings", `{"subjects":[{"kind":"Group","name":"system:serviceaccounts:a"}]}`, true},
		"binding by user name":          {rbac, "clusterrolebindings", `{"subjects":[{"kind":"User","name":"system:serviceaccount:a:sa"}]}`, true},
		"webhook":                       {hooks, "validatingwebhookconfigurations", `{"webhooks":[{"clientConfig":{"url":"https://x"}},{"clientConfig":{"service":{"namespace":"a"}}}]}`, true},
		"webhook elsewhere":             {hooks, "mutatingwebhookconfigurations", `{"webhooks":[{"clientConfig":{"service":{"namespace":"b"}}}]}`, false},
		"API service":                   {"apiregistration.k8s.io", "apiservices", `{"spec":{"service":{"namespace":"a"}}}`, true},
		"API service of the server":     {"apiregistration.k8s.io", "apiservices", `{"spec":{}}`, false},
		"another resource":              {"", "persistentvolumes", `{}`, false},
	} {
		got, err := Wanted(plugins.Ref{Group: c.group, Version: "v1", Resource: c.resource, Name: "x"}, []byte(c.object), chosen{"a", "a/sa"})
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if !PointsBack("apiservices.apiregistration.k8s.io") || PointsBack("pods") {
		t.Error("PointsBack")
	}
}
