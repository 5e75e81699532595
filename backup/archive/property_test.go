package archive_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// drawSample draws a few sections with any names and contents that Kubernetes could hold.
func drawSample(rt *rapid.T) *sample {
	s := &sample{}
	taken := map[archive.SectionOptions]bool{}
	for i := range rapid.IntRange(0, 4).Draw(rt, "sections") {
		opts := archive.SectionOptions{
			Group:    rapid.SampledFrom([]string{"", "apps", "example.com"}).Draw(rt, "group"),
			Version:  rapid.SampledFrom([]string{"v1", "v1beta1"}).Draw(rt, "version"),
			Resource: rapid.StringMatching(`[a-z]{1,12}`).Draw(rt, "resource"),
		}
		if taken[opts] {
			continue
		}
		taken[opts] = true
		section := sampleSection{opts: opts}
		namespaced := rapid.Bool().Draw(rt, "namespaced")
		seen := map[string]bool{}
		for range rapid.IntRange(0, 40).Draw(rt, fmt.Sprint("items", i)) {
			ref := plugins.Ref{Group: opts.Group, Version: opts.Version, Resource: opts.Resource, Name: drawName(rt)}
			if namespaced {
				ref.Namespace = rapid.StringMatching(`[a-z]([-a-z0-9]{0,8}[a-z0-9])?`).Draw(rt, "namespace")
			}
			key := archive.Key(ref.Namespace, ref.Name)
			if seen[key] {
				continue
			}
			seen[key] = true
			row := archive.Row{Ref: ref, Kind: rapid.String().Draw(rt, "kind"), UID: rapid.String().Draw(rt, "uid"), Applied: rapid.Bool().Draw(rt, "applied")}
			if n := rapid.IntRange(0, 3).Draw(rt, "labels"); n > 0 {
				row.Labels = rapid.MapOfN(rapid.String(), rapid.String(), n, n).Draw(rt, "label")
			}
			section.items = append(section.items, sampleItem{row, drawContent(rt, ref)})
		}
		s.sections = append(s.sections, section)
	}
	return s
}

func drawName(rt *rapid.T) string {
	name := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?`),
		rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{240,249}[a-z0-9])?`),
		rapid.StringN(1, 80, 400),
	).Draw(rt, "name")
	name = strings.NewReplacer("/", "", "\x00", "").Replace(name)
	if name == "" || name == "." || name == ".." {
		return "name"
	}
	return name
}

func drawContent(rt *rapid.T, ref plugins.Ref) []byte {
	size := rapid.IntRange(0, 300).Draw(rt, "size")
	if rapid.IntRange(0, 30).Draw(rt, "large") == 30 {
		size *= 10 << 10
	}
	raw := fmt.Appendf(nil, `{"metadata":{"name":%s,"namespace":%q},"filler":"`, quoted(ref.Name), ref.Namespace)
	for i := 0; len(raw) < size; i++ {
		raw = fmt.Appendf(raw, "%d,", i)
	}
	return append(raw, `"}`...)
}

// TestRoundTripAny writes and reads whatever can be drawn.
func TestRoundTripAny(t *testing.T) {
	l, keys := location(t, newMemory())
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		name := fmt.Sprint("b-", n)
		s := drawSample(rt)
		write(t, l, writeOptions(t, name, name), s)
		got, err := readEverything(t.Context(), open(t, l, keys, name))
		if err != nil {
			rt.Fatal(err)
		}
		checkSame(t, s.items(), got)
		if t.Failed() {
			rt.FailNow()
		}
	})
}
