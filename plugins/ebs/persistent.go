package ebs

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// The CSI drivers whose volumes are EBS's, and the topology keys by which persistent volumes say where they can be used.
const (
	csiDriver      = "ebs.csi.aws.com"
	autoModeDriver = "ebs.csi.eks.amazonaws.com"

	driverZone = "topology.ebs.csi.aws.com/zone"
	betaRegion = "failure-domain.beta.kubernetes.io/region"
)

var zoneKeys = []string{corev1.LabelTopologyZone, driverZone, corev1.LabelFailureDomainBetaZone}

var volumeID = regexp.MustCompile(`^vol-[0-9a-f]{8,17}$`)

// Handle gives the volume's id, of the CSI driver's, EKS Auto Mode's and in-tree persistent volumes.
func (p *Provider) Handle(pv *corev1.PersistentVolume) (string, bool) { return Handle(pv) }

// Handle is Provider.Handle for who has no provider.
func Handle(pv *corev1.PersistentVolume) (string, bool) {
	switch source := pv.Spec.PersistentVolumeSource; {
	case source.CSI != nil && (source.CSI.Driver == csiDriver || source.CSI.Driver == autoModeDriver):
		return source.CSI.VolumeHandle, volumeID.MatchString(source.CSI.VolumeHandle)
	case source.AWSElasticBlockStore != nil:
		// vol-…, aws://eu-west-1a/vol-… or aws:///vol-…
		id := source.AWSElasticBlockStore.VolumeID
		if rest, ok := strings.CutPrefix(id, "aws://"); ok {
			id = rest[strings.LastIndexByte(rest, '/')+1:]
		}
		return id, volumeID.MatchString(id)
	}
	return "", false
}

// Rebind makes pv the persistent volume of v: handle, capacity, and zone in node affinity and labels. The error wraps plugins.ErrConfig where pv is no
// volume of EBS or v says not enough.
func (p *Provider) Rebind(pv *corev1.PersistentVolume, v plugins.Volume) error {
	if !volumeID.MatchString(v.Handle) || v.SizeBytes <= 0 || v.Zone == "" {
		return p.rebindError(pv, fmt.Sprintf("volume %q of %d bytes in zone %q is no whole volume of EBS", v.Handle, v.SizeBytes, v.Zone))
	}
	switch source := &pv.Spec.PersistentVolumeSource; {
	case source.CSI != nil && (source.CSI.Driver == csiDriver || source.CSI.Driver == autoModeDriver):
		source.CSI.VolumeHandle = v.Handle
	case source.AWSElasticBlockStore != nil:
		source.AWSElasticBlockStore.VolumeID = "aws://" + v.Zone + "/" + v.Handle
	default:
		return p.rebindError(pv, "it is no volume of EBS")
	}
	if pv.Spec.Capacity == nil {
		pv.Spec.Capacity = corev1.ResourceList{}
	}
	pv.Spec.Capacity[corev1.ResourceStorage] = *resource.NewQuantity(v.SizeBytes, resource.BinarySI)
	pin(pv, v.Zone)
	for _, key := range zoneKeys {
		if _, ok := pv.Labels[key]; ok {
			pv.Labels[key] = v.Zone
		}
	}
	for _, key := range []string{corev1.LabelTopologyRegion, betaRegion} {
		if _, ok := pv.Labels[key]; ok && v.Region != "" {
			pv.Labels[key] = v.Region
		}
	}
	return nil
}

func (p *Provider) rebindError(pv *corev1.PersistentVolume, detail string) error {
	return &plugins.VolumeError{Op: "rebind", Provider: Name, Object: "persistent volume " + pv.Name, Err: awsconf.AsClass(plugins.ErrConfig, errors.New(detail))}
}

// pin lets only nodes of the zone use the volume. Which label says so is as it was; a volume without any gets the standard one, which every
// node of EKS has.
func pin(pv *corev1.PersistentVolume, zone string) {
	if pv.Spec.NodeAffinity == nil {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{}
	}
	if pv.Spec.NodeAffinity.Required == nil {
		pv.Spec.NodeAffinity.Required = &corev1.NodeSelector{}
	}
	required := pv.Spec.NodeAffinity.Required
	if len(required.NodeSelectorTerms) == 0 {
		required.NodeSelectorTerms = []corev1.NodeSelectorTerm{{}}
	}
	for i := range required.NodeSelectorTerms {
		term := &required.NodeSelectorTerms[i]
		pinned := false
		// A region that is another one now would keep every node away; the zone says it all.
		term.MatchExpressions = slices.DeleteFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Key == betaRegion || e.Key == corev1.LabelTopologyRegion
		})
		for j := range term.MatchExpressions {
			if e := &term.MatchExpressions[j]; slices.Contains(zoneKeys, e.Key) {
				e.Operator, e.Values, pinned = corev1.NodeSelectorOpIn, []string{zone}, true
			}
		}
		if !pinned {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
				Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone},
			})
		}
	}
	// Terms that said "this zone or that one" say the same now.
	required.NodeSelectorTerms = compactTerms(required.NodeSelectorTerms)
}

func compactTerms(terms []corev1.NodeSelectorTerm) []corev1.NodeSelectorTerm {
	seen := map[string]bool{}
	return slices.DeleteFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		text := term.String()
		known := seen[text]
		seen[text] = true
		return known
	})
}
