package convert

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// family is one kind in all its versions, the best first. The first is the hub: every conversion goes up to it and from
// it down, so that a version needs two functions and not one for each other version.
type family struct {
	kind     string
	versions []version
}

// version is one of a family. down is nil where Kedge does not convert to it: clusters so old are not restored into.
type version struct {
	gv       schema.GroupVersion
	up, down func(*conversion)
}

func (f *family) find(gv schema.GroupVersion) *version {
	for i := range f.versions {
		if f.versions[i].gv == gv {
			return &f.versions[i]
		}
	}
	return nil
}

// same is the conversion between versions of one shape with the same defaults.
func same(*conversion) {}

// alike are versions of the hub's shape and defaults.
func alike(apiVersions ...string) []version {
	out := make([]version, 0, len(apiVersions))
	for _, v := range apiVersions {
		out = append(out, version{gv: parse(v), up: same, down: same})
	}
	return out
}

// with is a version of its own shape; down may be nil.
func with(apiVersion string, up, down func(*conversion)) []version {
	return []version{{gv: parse(apiVersion), up: up, down: down}}
}

func parse(apiVersion string) schema.GroupVersion {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		panic(err) // the table below is wrong; every test sees it
	}
	return gv
}

// families finds a kind's family by each of its versions.
var families = index(table())

func index(all []family) map[schema.GroupVersionKind]*family {
	out := map[schema.GroupVersionKind]*family{}
	for i := range all {
		f := &all[i]
		for _, v := range f.versions {
			out[v.gv.WithKind(f.kind)] = f
		}
	}
	return out
}

// kind writes a family down.
func kind(name string, versions ...[]version) family {
	f := family{kind: name}
	for _, v := range versions {
		f.versions = append(f.versions, v...)
	}
	return f
}

func table() []family {
	var all []family
	for _, part := range [][]family{
		workloads(), networking(), policies(), autoscaling(), admission(), access(), storage(), flowControl(), devices(), system(),
	} {
		all = append(all, part...)
	}
	return all
}

// workloads are the kinds of apps and batch.
func workloads() []family {
	return []family{
		kind("Deployment", alike("apps/v1", "apps/v1beta2"),
			with("apps/v1beta1", deploymentFromAppsBeta1, same), with("extensions/v1beta1", deploymentFromExtensions, nil)),
		kind("DaemonSet", alike("apps/v1", "apps/v1beta2"), with("extensions/v1beta1", daemonSetFromExtensions, nil)),
		kind("ReplicaSet", alike("apps/v1", "apps/v1beta2"), with("extensions/v1beta1", replicaSetFromExtensions, nil)),
		kind("StatefulSet", alike("apps/v1", "apps/v1beta2"), with("apps/v1beta1", statefulSetFromAppsBeta1, same)),
		kind("ControllerRevision", alike("apps/v1", "apps/v1beta2", "apps/v1beta1")),
		kind("CronJob", alike("batch/v1", "batch/v1beta1", "batch/v2alpha1")),
	}
}

// networking are the kinds of networking.k8s.io and discovery.k8s.io.
func networking() []family {
	return []family{
		kind("Ingress", alike("networking.k8s.io/v1"), with("networking.k8s.io/v1beta1", ingressUp, ingressDown),
			with("extensions/v1beta1", ingressUp, ingressDown)),
		kind("IngressClass", alike("networking.k8s.io/v1", "networking.k8s.io/v1beta1")),
		kind("NetworkPolicy", alike("networking.k8s.io/v1", "extensions/v1beta1")),
		kind("IPAddress", alike("networking.k8s.io/v1", "networking.k8s.io/v1beta1"),
			with("networking.k8s.io/v1alpha1", ipAddressFromAlpha, same)),
		kind("ServiceCIDR", alike("networking.k8s.io/v1", "networking.k8s.io/v1beta1"),
			with("networking.k8s.io/v1alpha1", serviceCIDRFromAlpha, same)),
		kind("EndpointSlice", alike("discovery.k8s.io/v1"), with("discovery.k8s.io/v1beta1", endpointSliceUp, endpointSliceDown)),
	}
}

func policies() []family {
	return []family{
		kind("PodDisruptionBudget", alike("policy/v1"), with("policy/v1beta1", budgetUp, budgetDown)),
		kind("PriorityClass", alike("scheduling.k8s.io/v1", "scheduling.k8s.io/v1beta1", "scheduling.k8s.io/v1alpha1")),
		kind("RuntimeClass", alike("node.k8s.io/v1", "node.k8s.io/v1beta1"),
			with("node.k8s.io/v1alpha1", runtimeClassUp, runtimeClassDown)),
	}
}

func autoscaling() []family {
	return []family{
		kind("HorizontalPodAutoscaler", alike("autoscaling/v2"), with("autoscaling/v1", autoscalerFromV1, autoscalerToV1),
			with("autoscaling/v2beta2", autoscalerFromBeta2, autoscalerToBeta2),
			with("autoscaling/v2beta1", autoscalerFromBeta1, autoscalerToBeta1)),
	}
}

// admission are webhooks, admission policies and custom resource definitions.
func admission() []family {
	const group = "admissionregistration.k8s.io/"
	return []family{
		kind("ValidatingWebhookConfiguration", alike(group+"v1"), with(group+"v1beta1", webhooksUp, same)),
		kind("MutatingWebhookConfiguration", alike(group+"v1"), with(group+"v1beta1", webhooksUp, same)),
		kind("ValidatingAdmissionPolicy", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("ValidatingAdmissionPolicyBinding", alike(group+"v1", group+"v1beta1"), with(group+"v1alpha1", policyBindingFromAlpha, same)),
		kind("MutatingAdmissionPolicy", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("MutatingAdmissionPolicyBinding", alike(group+"v1", group+"v1beta1"), with(group+"v1alpha1", denyWithoutParameters, same)),
		kind("CustomResourceDefinition", alike("apiextensions.k8s.io/v1"), with("apiextensions.k8s.io/v1beta1", definitionUp, nil)),
		kind("APIService", alike("apiregistration.k8s.io/v1", "apiregistration.k8s.io/v1beta1")),
	}
}

func access() []family {
	const group = "rbac.authorization.k8s.io/"
	return []family{
		kind("Role", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("ClusterRole", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("RoleBinding", alike(group+"v1", group+"v1beta1"), with(group+"v1alpha1", bindingUp, bindingDown)),
		kind("ClusterRoleBinding", alike(group+"v1", group+"v1beta1"), with(group+"v1alpha1", bindingUp, bindingDown)),
		kind("CertificateSigningRequest", alike("certificates.k8s.io/v1"), with("certificates.k8s.io/v1beta1", signingRequestUp, same)),
		kind("ClusterTrustBundle", alike("certificates.k8s.io/v1beta1", "certificates.k8s.io/v1alpha1")),
	}
}

func storage() []family {
	const group = "storage.k8s.io/"
	return []family{
		kind("StorageClass", alike(group+"v1", group+"v1beta1")),
		kind("CSIDriver", alike(group+"v1", group+"v1beta1")),
		kind("CSINode", alike(group+"v1", group+"v1beta1")),
		kind("VolumeAttachment", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("CSIStorageCapacity", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("VolumeAttributesClass", alike(group+"v1", group+"v1beta1", group+"v1alpha1")),
		kind("VolumeSnapshot", alike("snapshot.storage.k8s.io/v1", "snapshot.storage.k8s.io/v1beta1")),
		kind("VolumeSnapshotClass", alike("snapshot.storage.k8s.io/v1", "snapshot.storage.k8s.io/v1beta1")),
		kind("VolumeSnapshotContent", alike("snapshot.storage.k8s.io/v1", "snapshot.storage.k8s.io/v1beta1")),
	}
}

func flowControl() []family {
	const group = "flowcontrol.apiserver.k8s.io/"
	return []family{
		kind("FlowSchema", alike(group+"v1", group+"v1beta3", group+"v1beta2", group+"v1beta1", group+"v1alpha1")),
		kind("PriorityLevelConfiguration", alike(group+"v1"), with(group+"v1beta3", levelFromBeta3, levelToBeta3),
			with(group+"v1beta2", levelUp, levelDown), with(group+"v1beta1", levelUp, levelDown), with(group+"v1alpha1", levelUp, levelDown)),
	}
}

// devices are the kinds of dynamic resource allocation.
func devices() []family {
	const group = "resource.k8s.io/"
	return []family{
		kind("DeviceClass", alike(group+"v1", group+"v1beta2", group+"v1beta1"), with(group+"v1alpha3", deviceClassFromAlpha, nil)),
		kind("ResourceClaim", alike(group+"v1", group+"v1beta2"), with(group+"v1beta1", claimUp, claimDown), with(group+"v1alpha3", claimFromAlpha, nil)),
		kind("ResourceClaimTemplate", alike(group+"v1", group+"v1beta2"), with(group+"v1beta1", claimTemplateUp, claimTemplateDown),
			with(group+"v1alpha3", claimTemplateFromAlpha, nil)),
		kind("ResourceSlice", alike(group+"v1", group+"v1beta2"), with(group+"v1beta1", sliceUp, sliceDown)),
		kind("DeviceTaintRule", alike(group+"v1beta2"), with(group+"v1alpha3", taintRuleFromAlpha, same)),
	}
}

// system are kinds that the cluster keeps for itself; a restore leaves most of them out, a reader may still ask for them.
func system() []family {
	return []family{
		kind("Lease", alike("coordination.k8s.io/v1", "coordination.k8s.io/v1beta1")),
		kind("Event", alike("events.k8s.io/v1", "events.k8s.io/v1beta1")),
	}
}
