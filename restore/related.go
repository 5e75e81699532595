package restore

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/backup/archive"
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
}

func (r *related) candidate(i int32, row *archive.Row) {
	if r.out == nil {
		*r = related{out: map[int32]bool{}, byName: map[string]int32{}, byKind: map[string]int32{}, labels: map[int32]labels.Set{}}
	}
	r.out[i] = true
	r.byName[row.GroupResource()+"/"+row.Name] = i
	r.byKind[row.Kind+"."+row.Group+"/"+row.Name] = i
	if len(row.Labels) > 0 {
		r.labels[i] = row.Labels
	}
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
	if !b.plan.matcher.NeedsObject() && len(b.selected.out) == 0 {
		return nil
	}
	candidates := len(b.selected.out) > 0
	if b.selected.out == nil {
		b.selected.out = map[int32]bool{}
	}
	b.plan.namespaces = b.interner.list
	chosen := &chosen{namespaces: map[string]bool{}, accounts: map[string]bool{}}
	var wave []int32
	for i := range b.plan.items {
		if !b.selected.out[int32(i)] {
			wave = append(wave, int32(i))
		}
	}
	first := true
	for len(wave) > 0 {
		var next []int32
		err := b.plan.read(ctx, wave, func(i int32, raw []byte) error {
			if first {
				ok, err := b.plan.matcher.Object(ctx, raw)
				if err != nil {
					return fmt.Errorf("select %s: %w", b.plan.ref(i), err)
				}
				if !ok {
					b.selected.out[i] = true
					return nil
				}
			}
			if !candidates {
				return nil
			}
			chosen.add(b.plan.ref(i))
			found, err := b.needsOf(i, raw)
			next = append(next, found...)
			return err
		})
		if err != nil {
			return err
		}
		first = false
		if wave = next; len(wave) == 0 && candidates {
			if wave, err = b.pointingBack(ctx, chosen); err != nil {
				return err
			}
		}
	}
	return nil
}

// needsOf takes the candidates that one object needs.
func (b *builder) needsOf(i int32, raw []byte) ([]int32, error) {
	head, err := rawjson.ReadHead(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.plan.ref(i), err)
	}
	needs, err := selection.Needs(selection.Subject{Ref: b.plan.ref(i), Owners: head.Owners, Raw: raw})
	if err != nil {
		return nil, err
	}
	var found []int32
	for k := range needs {
		found = append(found, b.selected.take(&needs[k])...)
	}
	return found, nil
}

// pointingBack takes the candidates that point at what is selected.
func (b *builder) pointingBack(ctx context.Context, c *chosen) ([]int32, error) {
	var ask []int32
	for i := range b.selected.out {
		if !b.plan.matcher.NeedsObject() || b.isCandidate(i) {
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
