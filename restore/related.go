package restore

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/selection"
)

// related finds the cluster-scoped objects that the selected ones need.
type related struct {
	out    map[int32]bool // items that are not selected (yet)
	byName map[string]int32
	byKind map[string]int32
	labels map[int32]labels.Set // of candidates that may be asked for by label
	// unread are the resources whose rows have not been read: only what is needed of them is.
	unread []*unreadResource
}

// unreadResource is one version of a resource of which only some rows are read.
type unreadResource struct {
	kube.Resource
	whole bool // all its rows are in by now
	asked map[string]bool
	wants []string // names that the next reading looks for
	all   bool     // it takes in all rows
}

// later notes a resource for when something needs it.
func (r *related) later(res kube.Resource) {
	for _, u := range r.unread {
		if u.Group == res.Group && u.Version == res.Version && u.Resource.Resource == res.Resource {
			return
		}
	}
	r.unread = append(r.unread, &unreadResource{Resource: res, asked: map[string]bool{}})
}

// want notes what a need may be met by.
func (r *related) want(n *selection.Need) {
	for _, u := range r.unread {
		if u.whole || u.Group != n.Group || n.Resource != "" && u.Resource.Resource != n.Resource || n.Resource == "" && u.Kind != n.Kind {
			continue
		}
		if n.Selector != nil {
			u.all = true
		} else if !u.asked[n.Name] {
			u.asked[n.Name] = true
			u.wants = append(u.wants, n.Name)
		}
	}
}

func (r *related) candidate(i int32, row *archive.Row) {
	if r.byName == nil {
		r.byName, r.byKind, r.labels = map[string]int32{}, map[string]int32{}, map[int32]labels.Set{}
	}
	r.refuse(i)
	r.byName[row.GroupResource()+"/"+row.Name] = i
	r.byKind[row.Kind+"."+row.Group+"/"+row.Name] = i
	if len(row.Labels) > 0 {
		r.labels[i] = row.Labels
	}
}

// refuse notes that an item is not selected.
func (r *related) refuse(i int32) {
	if r.out == nil {
		r.out = map[int32]bool{}
	}
	r.out[i] = true
}

// take marks the candidates that a need names as selected and gives those that are new.
func (r *related) take(n *selection.Need) []int32 {
	var found []int32
	switch {
	case n.Selector != nil:
		prefix := plugins.Ref{Group: n.Group, Resource: n.Resource}.GroupResource() + "/"
		for key, i := range r.byName {
			if r.out[i] && len(key) > len(prefix) && key[:len(prefix)] == prefix && n.Selector.Matches(r.labels[i]) {
				found = append(found, i)
			}
		}
		slices.Sort(found)
	case n.Resource != "":
		if i, ok := r.byName[plugins.Ref{Group: n.Group, Resource: n.Resource}.GroupResource()+"/"+n.Name]; ok && r.out[i] {
			found = append(found, i)
		}
	default:
		if i, ok := r.byKind[n.Kind+"."+n.Group+"/"+n.Name]; ok && r.out[i] {
			found = append(found, i)
		}
	}
	for _, i := range found {
		delete(r.out, i)
	}
	return found
}

// selectContents decides what rows alone could not: the expression of the selection, and which cluster-scoped objects the
// selected ones need. It reads objects only where one of both is asked for.
func (b *builder) selectContents(ctx context.Context) error {
	relates := len(b.selected.out) > 0 || len(b.selected.unread) > 0
	if !b.plan.matcher.NeedsObject() && !relates {
		return nil
	}
	b.plan.namespaces = b.interner.list
	chosen := &chosen{namespaces: map[string]bool{}, accounts: map[string]bool{}}
	wave, err := b.firstWave(ctx)
	for relates && len(wave) > 0 && err == nil {
		var needs []selection.Need
		err = b.plan.read(ctx, wave, func(i int32, raw []byte) error {
			chosen.add(b.plan.ref(i))
			more, err := b.needsOf(i, raw)
			needs = append(needs, more...)
			return err
		})
		if err == nil {
			wave, err = b.meet(ctx, needs)
		}
		if err == nil && len(wave) == 0 {
			wave, err = b.pointingBack(ctx, chosen)
		}
	}
	return err
}

// firstWave gives the objects that are selected for themselves, less those that the expression refuses.
func (b *builder) firstWave(ctx context.Context) ([]int32, error) {
	var all []int32
	for i := range b.plan.items {
		if !b.selected.out[int32(i)] && (b.plan.items[i].state == Pending || b.plan.matcher.NeedsObject()) {
			all = append(all, int32(i))
		}
	}
	if !b.plan.matcher.NeedsObject() {
		return all, nil
	}
	var kept []int32
	err := b.plan.read(ctx, all, func(i int32, raw []byte) error {
		ok, err := b.plan.matcher.Object(ctx, raw)
		switch {
		case err != nil:
			return fmt.Errorf("select %s: %w", b.plan.ref(i), err)
		case ok:
			kept = append(kept, i)
		default:
			b.selected.refuse(i)
		}
		return nil
	})
	return kept, err
}

// needsOf gives what one object needs.
func (b *builder) needsOf(i int32, raw []byte) ([]selection.Need, error) {
	head, err := rawjson.ReadHead(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.plan.ref(i), err)
	}
	return selection.Needs(selection.Subject{Ref: b.plan.ref(i), Owners: head.Owners, Raw: raw})
}

// meet takes the objects that needs name, and gives those that are new.
func (b *builder) meet(ctx context.Context, needs []selection.Need) ([]int32, error) {
	for k := range needs {
		b.selected.want(&needs[k])
	}
	if err := b.readWanted(ctx); err != nil {
		return nil, err
	}
	var found []int32
	for k := range needs {
		found = append(found, b.selected.take(&needs[k])...)
	}
	return found, nil
}

// readWanted reads the rows that are wanted of the resources that have not been read as a whole.
func (b *builder) readWanted(ctx context.Context) error {
	open := map[schema.GroupVersionResource]*unreadResource{}
	for _, u := range b.selected.unread {
		if u.all || len(u.wants) > 0 {
			open[schema.GroupVersionResource{Group: u.Group, Version: u.Version, Resource: u.Resource.Resource}] = u
		}
	}
	if len(open) == 0 {
		return nil
	}
	match := func(c Chunk) bool {
		u := open[schema.GroupVersionResource{Group: c.Group, Version: c.Version, Resource: c.Resource}]
		return u != nil && (u.all || slices.ContainsFunc(u.wants, c.MayHoldName))
	}
	err := b.e.Source.Rows(ctx, match, func(chunk int, row archive.Row) error {
		u := open[schema.GroupVersionResource{Group: row.Group, Version: row.Version, Resource: row.Resource}]
		if _, known := b.selected.byName[row.GroupResource()+"/"+row.Name]; known || !u.all && !slices.Contains(u.wants, row.Name) ||
			b.plan.matcher.Item(row.Ref, row.Labels) == selection.OutByLabel {
			return nil
		}
		return b.add(chunk, &row, true)
	})
	for _, u := range open {
		u.whole, u.all, u.wants = u.whole || u.all, false, nil
	}
	b.plan.namespaces = b.interner.list
	return err
}

// pointingBack takes the candidates that point at what is selected.
func (b *builder) pointingBack(ctx context.Context, c *chosen) ([]int32, error) {
	for _, u := range b.selected.unread {
		u.all = !u.whole && selection.PointsBack(u.GroupResource())
	}
	if err := b.readWanted(ctx); err != nil {
		return nil, err
	}
	var ask []int32
	for i := range b.selected.out {
		if b.isCandidate(i) {
			if r := &b.plan.resources[b.plan.items[i].res]; selection.PointsBack(r.groupResource()) {
				ask = append(ask, i)
			}
		}
	}
	slices.Sort(ask)
	var found []int32
	err := b.plan.read(ctx, ask, func(i int32, raw []byte) error {
		wanted, err := selection.Wanted(b.plan.ref(i), raw, c)
		if wanted {
			delete(b.selected.out, i)
			found = append(found, i)
		}
		return err
	})
	return found, err
}

// isCandidate tells a candidate from an object that the expression refused.
func (b *builder) isCandidate(i int32) bool {
	ref := b.plan.ref(i)
	j, ok := b.selected.byName[ref.GroupResource()+"/"+ref.Name]
	return ok && j == i
}

// chosen is what has been selected so far, for objects that point at it.
type chosen struct{ namespaces, accounts map[string]bool }

func (c *chosen) add(ref plugins.Ref) {
	if ref.Namespace != "" {
		c.namespaces[ref.Namespace] = true
	}
	if ref.Group == "" && ref.Resource == "serviceaccounts" {
		c.accounts[ref.Namespace+"/"+ref.Name] = true
	}
}

// Namespace says whether an object of the namespace was selected.
func (c *chosen) Namespace(name string) bool { return c.namespaces[name] }

// ServiceAccount says whether the service account was selected.
func (c *chosen) ServiceAccount(namespace, name string) bool { return c.accounts[namespace+"/"+name] }
