package transform

import "strings"

// dockerHub is the registry of references that name none, and library the folder of those that name no folder either.
const (
	dockerHub = "docker.io/"
	library   = "library/"
)

var imageRules = mappingRules{
	prefixes: true,
	all:      true,
	check: func(s string) string {
		if strings.ContainsAny(s, " \t\n\"") || strings.Contains(s, "://") {
			return "is no image reference: write registry/repository, without a scheme"
		}
		return ""
	},
	needle: func(from string) string {
		// "nginx" falls under a key for Docker Hub without holding it.
		if strings.HasPrefix(from, dockerHub) || strings.HasPrefix(dockerHub, from) {
			return "image"
		}
		return from
	},
}

// images maps the images of containers and of image volumes.
func images(m *mapping) rule {
	image := m.image()
	return rule{
		mapping: m,
		reads:   hasPodSpecs,
		names:   func(key string) bool { return strings.Contains(strings.ToLower(key), "image") },
		apply: func(e *edits) {
			e.podSpecs(func(e *edits, spec map[string]any) {
				for _, p := range containerPlaces {
					e.edit(spec, p, inside(func(e *edits, c map[string]any) { e.edit(c, place{"image"}, image) }))
				}
				e.edit(spec, at("volumes [] image reference"), image)
			})
		},
	}
}

// image maps a reference as it is written, else as it is meant: with Docker Hub's registry written out.
func (m *mapping) image() form {
	return func(e *edits, v any) any {
		s, ok := v.(string)
		if !ok || s == "" {
			return v
		}
		to, ok := m.lookup(s)
		if full := onDockerHub(s); !ok && full != "" {
			to, ok = m.lookup(full)
		}
		if !ok {
			return v
		}
		e.changed = true
		return to
	}
}

// onDockerHub writes out a reference that names no registry; "" where it names one. The first part is a registry if it looks like a
// host: it holds a dot or a port, or is "localhost".
func onDockerHub(s string) string {
	first, _, folder := strings.Cut(s, "/")
	switch {
	case !folder:
		return dockerHub + library + s
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return ""
	}
	return dockerHub + s
}
