package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// checkName refuses names that could not be the name of a Kubernetes object (RFC 1123 subdomain) of at most 63 bytes.
func checkName(what, name string) error {
	if name == "" {
		return errors.New("it is empty")
	}
	if len(name) > validation.DNS1123LabelMaxLength {
		return fmt.Errorf("%s names are at most %d bytes long, this one is %d", what, validation.DNS1123LabelMaxLength, len(name))
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return fmt.Errorf("%q is not made of lower case letters, digits, '-' and '.', beginning and ending with a letter or digit", name)
	}
	return nil
}

// generatedName is "<base>-<time>", where base is what the kubeconfig calls the cluster, made fit for a name. The last part of
// an ARN or a path stands for it.
func generatedName(base string, now time.Time) string {
	base = base[strings.LastIndexAny(base, "/:@")+1:]
	base = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		}
		return '-'
	}, base)
	const stamp = "20060102-150405"
	base = strings.Trim(base[:min(len(base), validation.DNS1123LabelMaxLength-len(stamp)-1)], "-")
	if base == "" {
		base = "backup"
	}
	return base + "-" + now.UTC().Format(stamp)
}

// checkLabels refuses what the API server would refuse on an object.
func checkLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			return fmt.Errorf("%q is not a label's key: %s", key, firstWords(problems[0]))
		}
		if problems := validation.IsValidLabelValue(labels[key]); len(problems) > 0 {
			return fmt.Errorf("%q is not the value of a label: %s", labels[key], firstWords(problems[0]))
		}
	}
	return nil
}

// firstWords cuts the examples and regular expressions off a message of the API's validation.
func firstWords(problem string) string {
	problem, _, _ = strings.Cut(problem, " (e.g.")
	return problem
}
