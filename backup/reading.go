package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
)

// reading is one attempt to read everything at one revision.
type reading struct {
	*pass
	sink    sink // set by run
	remarks *remarks
	cluster v1alpha1.ClusterInfo

	discovery       *kube.Discovery
	definitions     map[string]definition // CustomResourceDefinitions by name
	storageVersions map[string]string     // of custom resources, by "resource.group"
	definitionsErr  error                 // why both are empty
	anchor          anchor
	revision        string // the pinned one: the anchor's first
	bracket         *bracket
	targets         []*target
	literal         []string // the included namespaces where each is written out and they are few; sorted as their objects are

	needs  needed
	claims claims
	hooked atomic.Bool // a pod's annotations may have hooks
}

// anchor is the list whose revision is read before and after all others.
type anchor struct {
	path     string
	revision string // the first reading
}

// fewNamespaces is how many namespaces are listed one by one; for more a list of all of them costs less.
const fewNamespaces = 10

func newReading(p *pass) *reading {
	r := &reading{pass: p, remarks: &remarks{}, definitions: map[string]definition{}, storageVersions: map[string]string{}}
	if names, ok := p.matcher.LiteralNamespaces(); ok && len(names) <= fewNamespaces {
		slices.SortFunc(names, func(a, b string) int { return compareKeys(a+"/", b+"/") })
		r.literal = names
	}
	r.needs.init(p.matcher.AlsoRelated())
	return r
}

func compareKeys(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// definition is what a CustomResourceDefinition says of versions.
type definition struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Plural string `json:"plural"`
		} `json:"names"`
		Versions []struct {
			Name    string `json:"name"`
			Served  bool   `json:"served"`
			Storage bool   `json:"storage"`
		} `json:"versions"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

func (d *definition) established() bool {
	for _, c := range d.Status.Conditions {
		if c.Type == "Established" {
			return c.Status == "True"
		}
	}
	return false
}

func (d *definition) storage() string {
	for _, v := range d.Spec.Versions {
		if v.Storage {
			return v.Name
		}
	}
	return ""
}

// servedBy says whether the server offers a version of the definition, or need not.
func (d *definition) servedBy(disc *kube.Discovery) bool {
	wanted := false
	for _, v := range d.Spec.Versions {
		if v.Served {
			wanted = true
			if _, ok := disc.Find(d.Spec.Group, v.Name, d.Spec.Names.Plural); ok {
				return true
			}
		}
	}
	return !wanted && d.storage() == ""
}

// discover learns what the cluster serves and which versions it stores, and chooses what is read. The list of definitions is also
// the first reading of the anchor: its revision is the one that is pinned.
func (r *reading) discover(ctx context.Context) error {
	if err := r.discoverOnce(ctx); err != nil {
		return err
	}
	if r.missing() != nil {
		// A definition that is younger than the discovery: look again.
		if err := r.discoverOnce(ctx); err != nil {
			return err
		}
	}
	for _, name := range r.missing() {
		d := r.definitions[name]
		if !d.established() {
			r.remarks.note("CustomResourceDefinition %s is not established: there are no objects of it to read", name)
			continue
		}
		r.remarks.add(SeverityError, archive.Remark{
			Resource: name, Reason: ReasonNotServed,
			Message: "the server offers no version of this definition, so its objects cannot be read: set one version to served: true",
		})
	}
	r.failedGroups()
	r.unmatched()
	r.chooseTargets()
	if !slices.ContainsFunc(r.targets, func(t *target) bool { return t.take == selection.TakeMatching }) {
		return fmt.Errorf("%w: the selection names no resource that this cluster has%s", ErrNothingRead, r.misspelt())
	}
	return nil
}

// misspelt quotes the words of the selection that stand for nothing.
func (r *reading) misspelt() string {
	var words []string
	for _, p := range r.matcher.Unmatched(r.discovery.Resources) {
		words = append(words, fmt.Sprintf("%s: %q", p.Field, p.Pattern))
	}
	text := ""
	if len(words) > 0 {
		text = " (" + strings.Join(words, ", ") + ")"
	}
	if away := r.away(); len(away) > 0 {
		text += "; what is in " + strings.Join(away, ", ") + " is not known, as nobody answers for it"
	}
	return text
}

// away gives the group versions that do not answer and may have something that was asked for, sorted.
func (r *reading) away() []string {
	var out []string
	for gv := range r.discovery.Failed {
		group, _ := splitGroupVersion(gv)
		if !virtualGroups[group] && r.matcher.Group(group, r.discovery.Resources) {
			out = append(out, gv)
		}
	}
	slices.Sort(out)
	return out
}

func (r *reading) discoverOnce(ctx context.Context) error {
	clear(r.definitions)
	clear(r.storageVersions)
	g, gctx := errgroup.WithContext(ctx)
	look := r.Look
	if look == nil {
		look = r.Kube
	}
	g.Go(func() (err error) {
		r.discovery, err = look.Discover(gctx)
		return err
	})
	g.Go(func() (err error) {
		r.cluster.UID, err = look.ClusterUID(gctx)
		return err
	})
	g.Go(func() error { return r.readDefinitions(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	r.cluster.Name, r.cluster.Version = r.req.ClusterName, r.discovery.ServerVersion
	return nil
}

const (
	definitionsGroup    = "apiextensions.k8s.io"
	definitionsResource = "customresourcedefinitions"
)

func (r *reading) readDefinitions(ctx context.Context) error {
	res := kube.Resource{Group: definitionsGroup, Version: "v1", Resource: definitionsResource}
	meta, err := r.Kube.List(ctx, kube.ListRequest{Path: res.Path("", ""), Limit: r.PageSize}, func(raw []byte) error {
		var d definition
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("read a CustomResourceDefinition: %w", err)
		}
		r.definitions[d.Metadata.Name] = d
		r.storageVersions[d.Spec.Names.Plural+"."+d.Spec.Group] = d.storage()
		return nil
	})
	switch {
	case err == nil:
		r.anchor = anchor{path: res.Path("", ""), revision: meta.ResourceVersion}
		return nil
	case lost(ctx, err): // the revision that is about to be pinned
		return err
	}
	r.anchor = anchor{}
	r.definitionsErr = err
	return nil
}

// missing gives the definitions in the selection that discovery does not know, sorted.
func (r *reading) missing() []string {
	var out []string
	for name, d := range r.definitions {
		scope := kube.Resource{Group: d.Spec.Group, Version: d.storage(), Resource: d.Spec.Names.Plural, Namespaced: true}
		if !d.servedBy(r.discovery) && r.matcher.Resource(scope) != selection.TakeNone {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// failedGroups remarks on the group versions whose resources could not be learned.
func (r *reading) failedGroups() {
	for gv, err := range r.discovery.Failed {
		group, version := splitGroupVersion(gv)
		if !r.matcher.Group(group, r.discovery.Resources) {
			continue
		}
		if virtualGroups[group] {
			r.remarks.note("%s does not answer; nothing of it would be archived, as its objects are computed", gv)
			continue
		}
		m := listFailure(&target{res: kube.Resource{Group: group, Version: version, Resource: "*"}}, "", err)
		if m.Reason == ReasonListFailed {
			m.Reason = ReasonUnavailable
			m.Message += ": repair the service behind the API, or delete APIService " + version + "." + group + " if it is a left-over"
		}
		for _, p := range r.matcher.Unmatched(r.discovery.Resources) {
			if p.MayBeIn(group) {
				m.Message += fmt.Sprintf("; %s: %q may be one of its resources", p.Field, p.Pattern)
			}
		}
		r.remarks.add(SeverityError, m)
	}
}

func splitGroupVersion(gv string) (group, version string) {
	for i := range len(gv) {
		if gv[i] == '/' {
			return gv[:i], gv[i+1:]
		}
	}
	return "", gv
}

// report is what the reading has to say.
func (r *reading) report() archive.Report { return r.remarks.report() }

// finish closes what is still open and decides whether there is a result at all.
func (r *reading) finish(ctx context.Context) error {
	asked, failed, items := 0, 0, 0
	for _, t := range r.targets {
		if err := r.closeSection(ctx, t); err != nil {
			return err
		}
		items += t.items
		if t.take == selection.TakeMatching {
			asked++
			if t.failed {
				failed++
			}
		}
	}
	if items == 0 && asked > 0 && failed == asked {
		report := r.report()
		return fmt.Errorf("%w: %s: %s", ErrNothingRead, report.Errors[0].Resource, report.Errors[0].Message)
	}
	return nil
}

// closeSection ends a target's section, if it has one.
func (r *reading) closeSection(ctx context.Context, t *target) error {
	if t.section == nil {
		return nil
	}
	s := t.section
	t.section = nil
	err := s.Close(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, archive.ErrDuplicate):
		s.Abort()
		t.items, t.failed = 0, true
		t.remarks.add(SeverityError, onResource(t, "", ReasonListFailed, "the server gave an object twice in one list: %v", err))
		return nil
	}
	return fmt.Errorf("%w: %s: %w", errSink, t.name(), err)
}

// abort drops every section, for a new reading.
func (r *reading) abort() {
	for _, t := range r.targets {
		if t.opened != nil {
			t.opened.Abort()
		}
	}
}

// needed collects what selected objects need.
type needed struct {
	mu       sync.Mutex
	on       bool
	names    map[string]map[string]bool // by "resource.group", then name
	kinds    map[kindNeed]bool
	selected map[string][]selection.Need // by "resource.group"
	spaces   map[string]bool
	accounts map[string]bool // "namespace/name"
}

type kindNeed struct{ group, kind, name string }

func (n *needed) init(on bool) {
	*n = needed{on: on, names: map[string]map[string]bool{}, kinds: map[kindNeed]bool{}, selected: map[string][]selection.Need{}, spaces: map[string]bool{}, accounts: map[string]bool{}}
}
