package selection

import (
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

// Need names cluster-scoped objects that a selected object needs in order to work. Exactly one of Resource and Kind is set, and
// one of Name and Selector. That there is no such object is no error.
type Need struct {
	Group    string
	Resource string
	Kind     string // where the reference names a kind: the resource that has it, if that is cluster-scoped
	Name     string
	Selector labels.Selector
}

// Subject is an object whose needs are asked for.
type Subject struct {
	Ref    plugins.Ref
	Owners []rawjson.Owner
	Raw    []byte
}

// Selected tells what has been selected so far, to those that point at it.
type Selected interface {
	// Namespace says whether an object of the namespace was selected.
	Namespace(name string) bool
	// ServiceAccount says whether the service account was selected.
	ServiceAccount(namespace, name string) bool
}

// Needs gives what one object needs: its Namespace, its CustomResourceDefinition (which does not exist for a built-in resource),
// its cluster-scoped owners, and what the table below finds in it.
func Needs(s Subject) ([]Need, error) {
	n := needs{}
	if s.Ref.Namespace != "" {
		n.add("", "namespaces", s.Ref.Namespace)
	}
	if strings.Contains(s.Ref.Group, ".") {
		n.add("apiextensions.k8s.io", "customresourcedefinitions", s.Ref.GroupResource())
	}
	for _, o := range s.Owners {
		if group, _, err := plugins.SplitAPIVersion(o.APIVersion); err == nil && (group != "" || o.Kind != "Node") {
			n.addKind(group, o.Kind, o.Name)
		}
	}
	relation := forward[s.Ref.GroupResource()]
	if relation == nil {
		return n.list, nil
	}
	var d document
	if err := json.Unmarshal(s.Raw, &d.root); err != nil {
		return nil, fmt.Errorf("read what %s needs: %w", s.Ref, err)
	}
	relation(d, &n)
	return n.list, nil
}

// forward has, for each resource whose objects name cluster-scoped ones, where they do.
var forward = map[string]func(document, *needs){
	"persistentvolumeclaims": claim,
	"persistentvolumes": func(d document, n *needs) {
		n.add("storage.k8s.io", "storageclasses", d.str("spec", "storageClassName"))
		n.add("storage.k8s.io", "volumeattributesclasses", d.str("spec", "volumeAttributesClassName"))
		n.add("storage.k8s.io", "csidrivers", d.str("spec", "csi", "driver"))
	},
	"storageclasses.storage.k8s.io": func(d document, n *needs) {
		n.add("storage.k8s.io", "csidrivers", d.str("provisioner"))
	},
	"volumeattributesclasses.storage.k8s.io": func(d document, n *needs) {
		n.add("storage.k8s.io", "csidrivers", d.str("driverName"))
	},
	"volumesnapshots.snapshot.storage.k8s.io": func(d document, n *needs) {
		n.add(snapshotGroup, "volumesnapshotclasses", d.str("spec", "volumeSnapshotClassName"))
		n.add(snapshotGroup, "volumesnapshotcontents", d.str("spec", "source", "volumeSnapshotContentName"))
		n.add(snapshotGroup, "volumesnapshotcontents", d.str("status", "boundVolumeSnapshotContentName"))
	},
	"volumesnapshotcontents.snapshot.storage.k8s.io": func(d document, n *needs) {
		n.add(snapshotGroup, "volumesnapshotclasses", d.str("spec", "volumeSnapshotClassName"))
		n.add("storage.k8s.io", "csidrivers", d.str("spec", "driver"))
	},
	"volumesnapshotclasses.snapshot.storage.k8s.io": func(d document, n *needs) {
		n.add("storage.k8s.io", "csidrivers", d.str("driver"))
	},
	"pods":                        func(d document, n *needs) { podSpec(d.at("spec"), n) },
	"podtemplates":                func(d document, n *needs) { podSpec(d.at("template", "spec"), n) },
	"replicationcontrollers":      workload,
	"deployments.apps":            workload,
	"replicasets.apps":            workload,
	"daemonsets.apps":             workload,
	"jobs.batch":                  workload,
	"cronjobs.batch":              func(d document, n *needs) { workload(d.at("spec", "jobTemplate"), n) },
	"statefulsets.apps":           statefulSet,
	"ingresses.networking.k8s.io": ingress,
	"ingresses.extensions":        ingress,
	"ingressclasses.networking.k8s.io": func(d document, n *needs) {
		if scope := d.str("spec", "parameters", "scope"); scope == "" || scope == "Cluster" {
			n.addKind(d.str("spec", "parameters", "apiGroup"), d.str("spec", "parameters", "kind"), d.str("spec", "parameters", "name"))
		}
	},
	"gateways.gateway.networking.k8s.io": func(d document, n *needs) {
		n.add("gateway.networking.k8s.io", "gatewayclasses", d.str("spec", "gatewayClassName"))
	},
	"gatewayclasses.gateway.networking.k8s.io": func(d document, n *needs) {
		if d.str("spec", "parametersRef", "namespace") == "" {
			n.addKind(d.str("spec", "parametersRef", "group"), d.str("spec", "parametersRef", "kind"), d.str("spec", "parametersRef", "name"))
		}
	},
	"rolebindings.rbac.authorization.k8s.io":        roleRef,
	"clusterrolebindings.rbac.authorization.k8s.io": roleRef,
	"clusterroles.rbac.authorization.k8s.io":        aggregation,
	"resourceclaims.resource.k8s.io":                func(d document, n *needs) { deviceClasses(d.at("spec", "devices"), n) },
	"resourceclaimtemplates.resource.k8s.io":        func(d document, n *needs) { deviceClasses(d.at("spec", "spec", "devices"), n) },
	"certificates.cert-manager.io": func(d document, n *needs) {
		if d.str("spec", "issuerRef", "kind") == "ClusterIssuer" {
			n.addKind(d.strOr("cert-manager.io", "spec", "issuerRef", "group"), "ClusterIssuer", d.str("spec", "issuerRef", "name"))
		}
	},
	"externalsecrets.external-secrets.io": func(d document, n *needs) {
		if d.str("spec", "secretStoreRef", "kind") == "ClusterSecretStore" {
			n.addKind("external-secrets.io", "ClusterSecretStore", d.str("spec", "secretStoreRef", "name"))
		}
	},
}

const (
	snapshotGroup = "snapshot.storage.k8s.io"
	rbacGroup     = "rbac.authorization.k8s.io"
)

func claim(d document, n *needs) {
	n.add("", "persistentvolumes", d.str("spec", "volumeName"))
	claimSpec(d.at("spec"), n)
	if class := d.str("metadata", "annotations", "volume.beta.kubernetes.io/storage-class"); class != "" {
		n.add("storage.k8s.io", "storageclasses", class)
	}
}

func claimSpec(spec document, n *needs) {
	n.add("storage.k8s.io", "storageclasses", spec.str("storageClassName"))
	n.add("storage.k8s.io", "volumeattributesclasses", spec.str("volumeAttributesClassName"))
}

func workload(d document, n *needs) { podSpec(d.at("spec", "template", "spec"), n) }

func podSpec(spec document, n *needs) {
	n.add("scheduling.k8s.io", "priorityclasses", spec.str("priorityClassName"))
	n.add("node.k8s.io", "runtimeclasses", spec.str("runtimeClassName"))
	for _, v := range spec.list("volumes") {
		claimSpec(v.at("ephemeral", "volumeClaimTemplate", "spec"), n)
		n.add("storage.k8s.io", "csidrivers", v.str("csi", "driver"))
	}
}

func statefulSet(d document, n *needs) {
	workload(d, n)
	for _, t := range d.list("spec", "volumeClaimTemplates") {
		claimSpec(t.at("spec"), n)
	}
}

func ingress(d document, n *needs) {
	n.add("networking.k8s.io", "ingressclasses", d.str("spec", "ingressClassName"))
	n.add("networking.k8s.io", "ingressclasses", d.str("metadata", "annotations", "kubernetes.io/ingress.class"))
	n.addKind("cert-manager.io", "ClusterIssuer", d.str("metadata", "annotations", "cert-manager.io/cluster-issuer"))
}

func roleRef(d document, n *needs) {
	if d.str("roleRef", "kind") == "ClusterRole" {
		n.add(rbacGroup, "clusterroles", d.str("roleRef", "name"))
	}
}

// aggregation finds the roles that an aggregated role is made of.
func aggregation(d document, n *needs) {
	for _, s := range d.list("aggregationRule", "clusterRoleSelectors") {
		text, err := json.Marshal(s.root)
		if err != nil {
			continue
		}
		var ls metav1.LabelSelector
		if json.Unmarshal(text, &ls) != nil {
			continue
		}
		if sel, err := metav1.LabelSelectorAsSelector(&ls); err == nil && !sel.Empty() {
			n.list = append(n.list, Need{Group: rbacGroup, Resource: "clusterroles", Selector: sel})
		}
	}
}

func deviceClasses(devices document, n *needs) {
	for _, r := range devices.list("requests") {
		n.add("resource.k8s.io", "deviceclasses", r.str("deviceClassName"))
		n.add("resource.k8s.io", "deviceclasses", r.str("exactly", "deviceClassName"))
		for _, alternative := range r.list("firstAvailable") {
			n.add("resource.k8s.io", "deviceclasses", alternative.str("deviceClassName"))
		}
	}
}

// reverse has the cluster-scoped resources whose objects point at selected ones, and how.
var reverse = map[string]func(document, Selected) bool{
	"clusterrolebindings.rbac.authorization.k8s.io":                bindsSelected,
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":   servesWebhook,
	"validatingwebhookconfigurations.admissionregistration.k8s.io": servesWebhook,
	"apiservices.apiregistration.k8s.io": func(d document, s Selected) bool {
		ns := d.str("spec", "service", "namespace")
		return ns != "" && s.Namespace(ns)
	},
}

// PointsBack says whether objects of the resource ("apiservices.apiregistration.k8s.io") may be wanted because of what they point at.
func PointsBack(groupResource string) bool { return reverse[groupResource] != nil }

// Wanted says whether a cluster-scoped object takes part because it points at what was selected: a binding of a selected service
// account, a webhook or API service whose backend is in a selected namespace.
func Wanted(ref plugins.Ref, raw []byte, selected Selected) (bool, error) {
	relation := reverse[ref.GroupResource()]
	if relation == nil {
		return false, nil
	}
	var d document
	if err := json.Unmarshal(raw, &d.root); err != nil {
		return false, fmt.Errorf("read what %s points at: %w", ref, err)
	}
	return relation(d, selected), nil
}

func bindsSelected(d document, s Selected) bool {
	for _, subject := range d.list("subjects") {
		name := subject.str("name")
		switch subject.str("kind") {
		case "ServiceAccount":
			if s.ServiceAccount(subject.str("namespace"), name) {
				return true
			}
		case "Group":
			if ns, found := strings.CutPrefix(name, "system:serviceaccounts:"); found && s.Namespace(ns) {
				return true
			}
		case "User":
			account, found := strings.CutPrefix(name, "system:serviceaccount:")
			if ns, sa, ok := strings.Cut(account, ":"); found && ok && s.ServiceAccount(ns, sa) {
				return true
			}
		}
	}
	return false
}

func servesWebhook(d document, s Selected) bool {
	for _, w := range d.list("webhooks") {
		if ns := w.str("clientConfig", "service", "namespace"); ns != "" && s.Namespace(ns) {
			return true
		}
	}
	return false
}

// needs collects without empty names.
type needs struct{ list []Need }

func (n *needs) add(group, resource, name string) {
	if name != "" {
		n.list = append(n.list, Need{Group: group, Resource: resource, Name: name})
	}
}

func (n *needs) addKind(group, kind, name string) {
	if name != "" && kind != "" {
		n.list = append(n.list, Need{Group: group, Kind: kind, Name: name})
	}
}

// document is a JSON value that forgives what is not there or not of the expected type.
type document struct{ root any }

func (d document) at(keys ...string) document {
	v := d.root
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return document{}
		}
		v = m[k]
	}
	return document{v}
}

func (d document) str(keys ...string) string {
	s, _ := d.at(keys...).root.(string)
	return s
}

func (d document) strOr(other string, keys ...string) string {
	if s := d.str(keys...); s != "" {
		return s
	}
	return other
}

func (d document) list(keys ...string) []document {
	elems, _ := d.at(keys...).root.([]any)
	out := make([]document, len(elems))
	for i, e := range elems {
		out[i] = document{e}
	}
	return out
}
