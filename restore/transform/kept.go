package transform

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The reasons of remarks.
const (
	// reasonKept: a field holds an old value, and what it means there is for the user to say.
	reasonKept = "OldValueKept"
	// reasonDNS: a text holds the DNS name of a service in a renamed namespace.
	reasonDNS = "OldDNSNameKept"
	// reasonHelm: the packed record of a Helm release names the old namespace.
	reasonHelm = "HelmReleaseKept"
	// reasonConflict: two old values became one, and only one of what they had could be kept.
	reasonConflict = "MappedToSame"
)

// maxKept bounds the remarks on kept values of one object; what is more is counted.
const maxKept = 8

// kept is a field that holds an old value. It is remarked on if it still does when all rules have run.
type kept struct {
	at      trail
	value   string
	reason  string
	message string
}

// collect looks for old values in the fields that no table knows.
func (e *edits) collect(look func(e *edits, key, value string)) {
	for key, v := range e.obj {
		switch key {
		case "apiVersion", "kind", "status":
			continue
		case "data", "stringData":
			if e.resource == (resource{"", "secrets"}) {
				continue
			}
		case "metadata":
			e.collectBelow(key, object(object(e.obj, key), "annotations"), "annotations", look)
			continue
		}
		e.walk(step{key: key, index: -1}, key, v, look)
	}
}

// collectBelow looks at the annotations, but not at the copy of the whole object that kubectl keeps in one.
func (e *edits) collectBelow(parent string, m map[string]any, name string, look func(*edits, string, string)) {
	e.trail = append(e.trail, step{key: parent, index: -1}, step{key: name, index: -1})
	for key, v := range m {
		if key != "kubectl.kubernetes.io/last-applied-configuration" {
			e.walk(step{key: key, index: -1}, key, v, look)
		}
	}
	e.trail = e.trail[:len(e.trail)-2]
}

// walk calls look with every string and the key of the nearest object that holds it.
func (e *edits) walk(s step, key string, v any, look func(*edits, string, string)) {
	e.trail = append(e.trail, s)
	switch v := v.(type) {
	case string:
		look(e, key, v)
	case []any:
		for i, child := range v {
			e.walk(step{index: i}, key, child, look)
		}
	case map[string]any:
		for k, child := range v {
			e.walk(step{key: k, index: -1}, k, child, look)
		}
	}
	e.trail = e.trail[:len(e.trail)-1]
}

func (e *edits) keep(value, reason, format string, args ...any) {
	e.kept = append(e.kept, kept{at: slices.Clone(e.trail), value: value, reason: reason, message: fmt.Sprintf(format, args...)})
}

// remarkKept remarks on the fields that hold their old values still, in the order of their paths.
func (e *edits) remarkKept(obj map[string]any) {
	e.kept = slices.DeleteFunc(e.kept, func(k kept) bool { return k.at.find(obj) != k.value })
	slices.SortFunc(e.kept, func(a, b kept) int {
		return cmp.Or(cmp.Compare(a.at.String(), b.at.String()), cmp.Compare(a.message, b.message))
	})
	for i, k := range e.kept {
		if i == maxKept {
			e.remark(reasonKept, fmt.Sprintf("%d more fields hold old values", len(e.kept)-i))
			return
		}
		e.remark(k.reason, k.at.String()+" "+k.message)
	}
}

// keeps looks for values of the mapping in fields whose names suit it.
func (r rule) keeps(e *edits, key, value string) {
	if !r.names(key) {
		return
	}
	if t := r.mapping.find(value); t != nil && t.from != "" {
		e.keep(value, reasonKept, "holds %q, which %s maps; objects of this kind are changed by modifiers alone", value, t.field)
	}
}

var (
	// serviceHost is the name of a service as every resolver of a cluster knows it.
	serviceHost = regexp.MustCompile(`[a-z0-9-]+\.([a-z0-9-]+)\.svc\b`)
	// urlHost and wholeHost are its short form, where it cannot be anything else: in a URL, and as a whole value.
	urlHost   = regexp.MustCompile(`://(?:[^@/\s]*@)?([a-z0-9-]+\.([a-z0-9-]+))(?:[^a-z0-9.-]|$)`)
	wholeHost = regexp.MustCompile(`^([a-z0-9-]+\.([a-z0-9-]+))(?::[0-9]+)?$`)
)

// keeps looks for fields that name a namespace by their key, and for DNS names of services in any text.
func (n *namespaces) keeps(e *edits, key, value string) {
	if to := n.to(value); to != value {
		if k := strings.ToLower(key); strings.HasSuffix(k, "namespace") || strings.HasSuffix(k, "namespaces") {
			e.keep(value, reasonKept, "names namespace %s, which is restored as %s; what it means in this kind is not known: change it with a modifier", value, to)
		}
		return
	}
	if !strings.Contains(value, ".") {
		n.keepsQuoted(e, key, value)
		return
	}
	var hosts []string
	for _, match := range serviceHost.FindAllStringSubmatch(value, -1) {
		hosts = n.oldHost(hosts, match[0], match[1])
	}
	for _, match := range urlHost.FindAllStringSubmatch(value, -1) {
		hosts = n.oldHost(hosts, match[1], match[2])
	}
	if match := wholeHost.FindStringSubmatch(value); match != nil {
		hosts = n.oldHost(hosts, match[1], match[2])
	}
	if len(hosts) > 0 {
		e.keep(value, reasonDNS, "names %s in a namespace that is restored under another name: change it where it comes from, or with a modifier", strings.Join(hosts, ", "))
		return
	}
	n.keepsQuoted(e, key, value)
}

// oldHost adds a host of a renamed namespace to a short list.
func (n *namespaces) oldHost(hosts []string, host, namespace string) []string {
	if n.to(namespace) == namespace || slices.Contains(hosts, host) {
		return hosts
	}
	if len(hosts) == 3 {
		return append(hosts, "…")
	}
	if len(hosts) > 3 {
		return hosts
	}
	return append(hosts, host)
}

var quotedName = regexp.MustCompile(`["']([a-z0-9-]+)["']`)

// keepsQuoted looks for names of namespaces in expressions: request.namespace != "shop".
func (n *namespaces) keepsQuoted(e *edits, key, value string) {
	if key != "expression" || !strings.Contains(value, "amespace") {
		return
	}
	for _, match := range quotedName.FindAllStringSubmatch(value, -1) {
		if to := n.to(match[1]); to != match[1] {
			e.keep(value, reasonKept, "holds %s, which may be the namespace that is restored as %s: change it with a modifier", match[0], to)
			return
		}
	}
}
