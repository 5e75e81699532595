//go:build unix

package main

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// This file says what an object must become where the target's version has no place for it as it is. It is written from the
// documentation of Kubernetes, apart from Kedge's own conversions, which it tests.

// expected is what must have arrived of an object, and in which way that is not what it was.
func (t *trial) expected(o, there *object) (want map[string]any, changed string) {
	want = normalise(t.from, o, t.manifests)
	if o.api.Version != there.api.Version {
		want["apiVersion"] = there.raw.GetAPIVersion()
	}
	spec, _ := want["spec"].(map[string]any)
	switch o.api.GroupResource().String() {
	case "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io":
		// v1beta3 and v1 call the field by another name than v1beta1 and v1beta2.
		limited, _ := spec["limited"].(map[string]any)
		renamed := there.api.Version == "v1" || there.api.Version == "v1beta3"
		if shares, old := limited["assuredConcurrencyShares"]; old && renamed {
			delete(limited, "assuredConcurrencyShares")
			limited["nominalConcurrencyShares"] = shares
		}
	case "storageclasses.storage.k8s.io":
		if want["provisioner"] == inTreeEBS && t.inTreeEBSLeft() {
			storageClassOfDriver(want)
			changed = "in-tree EBS storage class to the CSI driver's"
		}
	case "persistentvolumes":
		var changes []string
		if spec["awsElasticBlockStore"] != nil && t.inTreeEBSLeft() {
			volumeOfDriver(want, spec)
			changes = append(changes, "in-tree EBS volume to the CSI driver's")
		}
		if t.kept(spec, "persistentVolumeReclaimPolicy") {
			changes = append(changes, "volume of another cluster to one that is kept")
		}
		changed = strings.Join(changes, ", ")
	case "volumesnapshotcontents.snapshot.storage.k8s.io":
		if t.kept(spec, "deletionPolicy") {
			changed = "snapshot of another cluster to one that is kept"
		}
	}
	return want, changed
}

// kept is what becomes of a policy that deletes what lies in the storage when the object of the API goes: the other cluster has
// an object for the same, and loses its data.
func (t *trial) kept(spec map[string]any, field string) bool {
	policy, _ := spec[field].(string)
	if !t.otherCluster() || policy != "Delete" && policy != "Recycle" {
		return false
	}
	spec[field] = "Retain"
	return true
}

// otherCluster tells clusters apart as Kubernetes' own tools do: by the uid of kube-system.
func (t *trial) otherCluster() bool {
	system := keyOf(schema.GroupResource{Resource: "namespaces"}, "", "kube-system")
	from, to := t.from.objects[system], t.to.objects[system]
	return from != nil && to != nil && from.raw.GetUID() != to.raw.GetUID()
}

const (
	inTreeEBS = "kubernetes.io/aws-ebs"
	ebsDriver = "ebs.csi.aws.com"
	ebsZone   = "topology.ebs.csi.aws.com/zone"
)

// inTreeEBSLeft says that the target no longer has the EBS code that the source has: it left the tree in 1.27.
func (t *trial) inTreeEBSLeft() bool { return t.fromMinor < 27 && t.toMinor >= 27 }

// storageClassOfDriver follows the parameters of the driver's documentation.
func storageClassOfDriver(class map[string]any) {
	class["provisioner"] = ebsDriver
	parameters, _ := class["parameters"].(map[string]any)
	var zones []any
	for name, value := range parameters {
		text, _ := value.(string)
		switch strings.ToLower(name) {
		case "fstype":
			delete(parameters, name)
			parameters["csi.storage.k8s.io/fstype"] = text
		case "zone", "zones":
			delete(parameters, name)
			for zone := range strings.SplitSeq(text, ",") {
				zones = append(zones, strings.TrimSpace(zone))
			}
		case "iopspergb":
			parameters["allowautoiopspergbincrease"] = "true" // what the in-tree code did by itself
		}
	}
	if len(zones) > 0 {
		class["allowedTopologies"] = []any{map[string]any{"matchLabelExpressions": []any{map[string]any{"key": ebsZone, "values": zones}}}}
	}
}

// volumeOfDriver follows the translation of Kubernetes' CSI migration.
func volumeOfDriver(volume, spec map[string]any) {
	source, _ := spec["awsElasticBlockStore"].(map[string]any)
	id, _ := source["volumeID"].(string)
	if !strings.Contains(id, "vol-") {
		return // no volume of EBS; there is nothing to translate
	}
	csi := map[string]any{"driver": ebsDriver, "volumeHandle": id[strings.LastIndex(id, "/")+1:]}
	if fs, ok := source["fsType"]; ok {
		csi["fsType"] = fs
	}
	if readOnly, ok := source["readOnly"]; ok {
		csi["readOnly"] = readOnly
	}
	delete(spec, "awsElasticBlockStore")
	spec["csi"] = csi
	if _, found, _ := unstructured.NestedString(volume, "metadata", "annotations", "pv.kubernetes.io/provisioned-by"); found {
		_ = unstructured.SetNestedField(volume, ebsDriver, "metadata", "annotations", "pv.kubernetes.io/provisioned-by")
	}
	for _, label := range []string{"topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"} {
		zone, _, _ := unstructured.NestedString(volume, "metadata", "labels", label)
		if zone != "" && spec["nodeAffinity"] == nil {
			in := map[string]any{"key": ebsZone, "operator": "In", "values": []any{zone}}
			terms := []any{map[string]any{"matchExpressions": []any{in}}}
			spec["nodeAffinity"] = map[string]any{"required": map[string]any{"nodeSelectorTerms": terms}}
		}
	}
}
