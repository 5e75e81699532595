package transform

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// roleAnnotation names the IAM role of a service account (IAM roles for service accounts).
const roleAnnotation = "eks.amazonaws.com/role-arn"

var roleRules = mappingRules{prefixes: true, all: true, check: func(s string) string {
	if s != "" && !strings.HasPrefix(s, "arn:") && !strings.HasPrefix("arn:", s) {
		return "is no ARN: write arn:aws:iam::<account>:role/<name>"
	}
	return ""
}}

// roleARNs maps the roles of service accounts.
func roleARNs(m *mapping) rule {
	accounts := resource{"", "serviceaccounts"}
	return rule{
		mapping: m,
		reads:   func(r resource) bool { return r == accounts || hasPodSpecs(r) },
		names:   func(string) bool { return true },
		reports: hasPodSpecs,
		apply: func(e *edits) {
			if e.resource == accounts {
				e.edit(e.obj, place{"metadata", "annotations", roleAnnotation}, m.value())
			}
		},
	}
}

// annotated are the resources whose annotations configure load balancers.
var annotated = map[resource]bool{
	{"", "services"}: true, {"networking.k8s.io", "ingresses"}: true, {"extensions", "ingresses"}: true,
}

// networkFields has where kinds of AWS' controllers name groups, subnets, certificates and target groups.
var networkFields = map[resource][]place{
	{"elbv2.k8s.aws", "targetgroupbindings"}: {
		at("spec targetGroupARN"), at("spec vpcID"), at("spec networking ingress [] from [] securityGroup groupID"),
	},
	{"elbv2.k8s.aws", "ingressclassparams"}: {
		at("spec subnets ids []"), at("spec certificateArn []"), at("spec certificateARNs []"), at("spec wafv2AclArn"),
	},
	{"vpcresources.k8s.aws", "securitygrouppolicies"}: {at("spec securityGroups groupIds []")},
	{"crd.k8s.amazonaws.com", "eniconfigs"}:           {at("spec subnet"), at("spec securityGroups []")},
	{"karpenter.k8s.aws", "ec2nodeclasses"}:           {at("spec subnetSelectorTerms [] id"), at("spec securityGroupSelectorTerms [] id")},
	{"eks.amazonaws.com", "nodeclasses"}:              {at("spec subnetSelectorTerms [] id"), at("spec securityGroupSelectorTerms [] id")},
}

// balancerAnnotation says that an annotation configures a load balancer.
func balancerAnnotation(key string) bool {
	return strings.HasPrefix(key, "service.beta.kubernetes.io/aws-") || strings.HasPrefix(key, "alb.ingress.kubernetes.io/")
}

// balancers maps values in the annotations of Services and Ingresses and in the kinds of AWS' controllers.
type balancers struct {
	values *mapping
	quoted *strings.Replacer // for annotations that are JSON
}

func loadBalancerValues(m *mapping) rule {
	b := &balancers{values: m}
	var pairs []string
	for _, t := range slices.SortedFunc(maps.Values(m.exact), func(a, b *target) int { return cmp.Compare(a.from, b.from) }) {
		pairs = append(pairs, `"`+t.from+`"`, `"`+t.to+`"`)
	}
	b.quoted = strings.NewReplacer(pairs...)
	return rule{
		mapping: m,
		reads:   func(r resource) bool { return annotated[r] || networkFields[r] != nil || r.custom() },
		names:   func(string) bool { return true },
		apply: func(e *edits) {
			e.each(m.value(), networkFields[e.resource]...)
			if annotated[e.resource] {
				e.edit(e.obj, at("metadata annotations"), inside(b.annotations))
			}
		},
	}
}

func (b *balancers) annotations(e *edits, annotations map[string]any) {
	for key, v := range annotations {
		s, ok := v.(string)
		if !ok || !balancerAnnotation(key) {
			continue
		}
		if to := b.annotation(s); to != s {
			annotations[key] = to
			e.changed = true
		}
	}
}

// annotation maps one value: JSON, by its strings; else a list, by its elements, or by what follows their "=".
func (b *balancers) annotation(s string) string {
	if trimmed := strings.TrimSpace(s); strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		return b.json(s)
	}
	parts := strings.Split(s, ",")
	for i, part := range parts {
		value := strings.TrimSpace(part)
		if to, ok := b.values.lookup(value); ok {
			parts[i] = strings.Replace(part, value, to, 1)
		} else if key, value, ok := strings.Cut(value, "="); ok {
			if to, ok := b.values.lookup(value); ok {
				parts[i] = strings.Replace(part, key+"="+value, key+"="+to, 1)
			}
		}
	}
	return strings.Join(parts, ",")
}

func (b *balancers) json(s string) string {
	for _, t := range b.values.exact {
		if strings.Contains(s, `"`+t.from+`"`) {
			t.used.Store(true)
		}
	}
	return b.quoted.Replace(s)
}
