package transform

import (
	"slices"
	"strings"
)

// ebsProvisioners are those of classes whose parameter kmsKeyId is the ARN of a key: the CSI driver, EKS Auto Mode's, the in-tree one.
var ebsProvisioners = []string{"ebs.csi.aws.com", "ebs.csi.eks.amazonaws.com", "kubernetes.io/aws-ebs"}

var kmsKeyRules = mappingRules{prefixes: true, all: true, check: func(s string) string {
	if s != "" && !strings.HasPrefix(s, "arn:") && !strings.HasPrefix("arn:", s) {
		return "is no ARN: write arn:aws:kms:<region>:<account>:key/<id>"
	}
	return ""
}}

// kmsKeys maps the keys of StorageClasses. Those of volumes that a restore makes are KMSKey's.
func kmsKeys(m *mapping) rule {
	classes := resource{"storage.k8s.io", "storageclasses"}
	return rule{
		mapping: m,
		reads:   func(r resource) bool { return r == classes },
		apply: func(e *edits) {
			if e.resource == classes && slices.Contains(ebsProvisioners, text(e.obj, "provisioner")) {
				e.edit(e.obj, at("parameters kmsKeyId"), m.value())
			}
		},
	}
}

func (p *Pipeline) mapKeys(m *mapping) rule {
	p.keys = m
	return kmsKeys(m)
}

// KMSKey gives the key that takes the place of one that a volume was encrypted with; ok is false where it stays.
func (p *Pipeline) KMSKey(old string) (key string, ok bool) {
	if p.keys == nil {
		return "", false
	}
	return p.keys.lookup(old)
}
