package transform

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// betaStorageClass is the annotation that named the class before spec.storageClassName did, and still wins over it.
const betaStorageClass = "volume.beta.kubernetes.io/storage-class"

// quotaByClass ends the names of quotas that count one class: "gp2.storageclass.storage.k8s.io/requests.storage".
const quotaByClass = ".storageclass.storage.k8s.io/"

var storageClassRules = mappingRules{check: func(s string) string {
	if bad := validation.IsDNS1123Subdomain(s); len(bad) > 0 {
		return "is no name of a StorageClass: " + bad[0]
	}
	return ""
}}

// storageClasses renames the classes that claims, volumes, claim templates and quotas name. StorageClass objects keep their names.
func storageClasses(m *mapping) rule {
	class := m.value()
	named := []place{at("spec storageClassName"), at("metadata annotations " + betaStorageClass)}
	return rule{
		mapping: m,
		reads: func(r resource) bool {
			return hasPodSpecs(r) || r == resource{"", "persistentvolumes"} || r == resource{"", "persistentvolumeclaims"} || r == resource{"", "resourcequotas"}
		},
		names: func(key string) bool { return strings.Contains(strings.ToLower(key), "class") },
		apply: func(e *edits) {
			switch e.resource {
			case resource{"", "persistentvolumes"}:
				e.each(class, named...)
			case resource{"", "resourcequotas"}:
				e.edit(e.obj, at("spec hard"), inside(func(e *edits, hard map[string]any) { m.quotas(e, hard) }))
			}
			e.claims(func(e *edits, claim map[string]any) {
				for _, p := range named {
					e.edit(claim, p, class)
				}
			})
		},
	}
}

// quotas renames the keys that count one class. Where a quota for the new class is there too, it stays as it is and is remarked on:
// two limits cannot be made one without asking.
func (m *mapping) quotas(e *edits, hard map[string]any) {
	renamed := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(hard)) {
		class, rest, ok := strings.Cut(key, quotaByClass)
		if !ok {
			continue
		}
		to, ok := m.lookup(class)
		if !ok {
			continue
		}
		newKey := to + quotaByClass + rest
		_, stays := hard[newKey]
		_, taken := renamed[newKey]
		if taken || stays && m.exact[to] == nil {
			e.remark(reasonConflict, "spec.hard limits "+class+" and another class that is now "+to+" too; the limit of "+class+" is kept under its old name: add them up with a modifier")
			continue
		}
		renamed[newKey] = hard[key]
		delete(hard, key)
		e.changed = true
	}
	maps.Copy(hard, renamed)
}
