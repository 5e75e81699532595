package transform

import (
	"regexp"
	"slices"
	"strings"
)

// zoneLabels are the labels whose values are zones: the well-known one, its predecessor, those of the EBS driver, of EKS for the ids
// of zones. regionLabels are the same of regions.
var (
	zoneLabels = []string{
		"topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone", "topology.ebs.csi.aws.com/zone", "topology.k8s.aws/zone-id",
	}
	regionLabels = []string{"topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"}
)

// zoneRequirements has where resources that are no pods keep requirements of the form {key, values}.
var zoneRequirements = map[resource][]place{
	{"", "persistentvolumes"}:            {at("spec nodeAffinity required nodeSelectorTerms [] matchExpressions []")},
	{"storage.k8s.io", "storageclasses"}: {at("allowedTopologies [] matchLabelExpressions []")},
	{"karpenter.sh", "nodepools"}:        {at("spec template spec requirements []")},
	{"karpenter.sh", "provisioners"}:     {at("spec requirements []")},
}

var zonePattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

var zoneRules = mappingRules{check: func(s string) string {
	if !zonePattern.MatchString(s) {
		return "is no zone: write its name (eu-west-1a) or its id (euw1-az1)"
	}
	return ""
}}

// awsZone is the name of a zone of a region: the region and a letter.
var awsZone = regexp.MustCompile(`^([a-z]{2,}(?:-[a-z]+)+-\d+)[a-z]$`)

// zoneMap maps zones, and the regions that they imply.
type zoneMap struct {
	zones   *mapping
	regions map[string]string
}

// impliedRegions gives the new region of each old one whose mapped zones all go to one.
func impliedRegions(m *mapping) map[string]string {
	out, mixed := map[string]string{}, map[string]bool{}
	for from, t := range m.exact {
		a, b := awsZone.FindStringSubmatch(from), awsZone.FindStringSubmatch(t.to)
		if a == nil {
			continue
		}
		if b == nil || out[a[1]] != "" && out[a[1]] != b[1] {
			mixed[a[1]] = true
			continue
		}
		out[a[1]] = b[1]
	}
	for from, to := range out {
		if mixed[from] || from == to {
			delete(out, from)
		}
	}
	return out
}

// zones maps zones wherever a scheduler or a provisioner reads them.
func zones(m *mapping) rule {
	z := &zoneMap{zones: m, regions: impliedRegions(m)}
	for from := range z.regions {
		m.needles = append(m.needles, []byte(`"`+from+`"`))
	}
	return rule{
		mapping: m,
		reads: func(r resource) bool {
			return hasPodSpecs(r) || zoneRequirements[r] != nil
		},
		names: func(string) bool { return true },
		apply: z.apply,
	}
}

func (z *zoneMap) apply(e *edits) {
	require := inside(z.requirement)
	e.each(require, zoneRequirements[e.resource]...)
	volumeID := form(z.volumeID)
	switch e.resource {
	case resource{"", "persistentvolumes"}:
		e.edit(e.obj, at("metadata labels"), inside(z.labels))
		e.edit(e.obj, at("spec awsElasticBlockStore volumeID"), volumeID)
	case resource{"storage.k8s.io", "storageclasses"}:
		e.edit(e.obj, at("parameters zone"), z.zones.value())
		e.edit(e.obj, at("parameters zones"), z.list)
	}
	e.podSpecs(func(e *edits, spec map[string]any) {
		e.edit(spec, place{"nodeSelector"}, inside(z.labels))
		for _, p := range nodeTerms {
			e.edit(spec, p, require)
		}
		e.edit(spec, at("volumes [] awsElasticBlockStore volumeID"), volumeID)
	})
}

// new gives what a value under a label becomes.
func (z *zoneMap) new(label, value string) (string, bool) {
	if slices.Contains(zoneLabels, label) {
		return z.zones.lookup(value)
	}
	if slices.Contains(regionLabels, label) {
		to, ok := z.regions[value]
		return to, ok
	}
	return "", false
}

// labels maps the values of zone labels.
func (z *zoneMap) labels(e *edits, labels map[string]any) {
	for _, known := range [][]string{zoneLabels, regionLabels} {
		for _, label := range known {
			if to, ok := z.new(label, text(labels, label)); ok {
				labels[label] = to
				e.changed = true
			}
		}
	}
}

// requirement maps the values of {key, operator, values}.
func (z *zoneMap) requirement(e *edits, req map[string]any) {
	key := text(req, "key")
	values, ok := req["values"].([]any)
	if !ok {
		return
	}
	touched := false
	for i, v := range values {
		s, ok := v.(string)
		if !ok {
			continue
		}
		if to, ok := z.new(key, s); ok {
			values[i], touched = to, true
		}
	}
	if touched {
		req["values"] = unique(values)
		e.changed = true
	}
}

// volumeID maps the zone in "aws://us-east-1a/vol-0123".
func (z *zoneMap) volumeID(e *edits, v any) any {
	s, _ := v.(string)
	rest, ok := strings.CutPrefix(s, "aws://")
	if !ok {
		return v
	}
	zone, volume, ok := strings.Cut(rest, "/")
	if !ok {
		return v
	}
	to, ok := z.zones.lookup(zone)
	if !ok {
		return v
	}
	e.changed = true
	return "aws://" + to + "/" + volume
}

// list maps "us-east-1a, us-east-1b".
func (z *zoneMap) list(e *edits, v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	parts, touched := strings.Split(s, ","), false
	for i, part := range parts {
		if to, ok := z.zones.lookup(strings.TrimSpace(part)); ok {
			parts[i], touched = strings.Replace(part, strings.TrimSpace(part), to, 1), true
		}
	}
	if !touched {
		return v
	}
	e.changed = true
	return strings.Join(parts, ",")
}
