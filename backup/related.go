package backup

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
)

const excludeLabel = v1alpha1.ExcludeLabel

// fewNames is how many objects are read one by one; for more the whole list costs less.
const fewNames = 32

// note remembers what a taken object needs and what may point at it.
func (r *reading) note(c *candidate) error {
	if !r.needs.on {
		return nil
	}
	if !c.target.res.Namespaced {
		if c.target.taken == nil {
			c.target.taken = map[string]bool{}
		}
		c.target.taken[c.ref.Name] = true
	}
	needs, err := selection.Needs(selection.Subject{Ref: c.ref, Owners: c.head.Owners, Raw: c.raw})
	if err != nil {
		return err
	}
	r.needs.add(c, needs)
	return nil
}

func (n *needed) add(c *candidate, needs []selection.Need) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.ref.Namespace != "" {
		n.spaces[c.ref.Namespace] = true
		if c.ref.Group == "" && c.ref.Resource == "serviceaccounts" {
			n.accounts[c.ref.Namespace+"/"+c.ref.Name] = true
		}
	}
	for _, need := range needs {
		gr := kube.Resource{Group: need.Group, Resource: need.Resource}.GroupResource()
		switch {
		case need.Kind != "":
			n.kinds[kindNeed{need.Group, need.Kind, need.Name}] = true
		case need.Selector != nil:
			n.selected[gr] = append(n.selected[gr], need)
		default:
			if n.names[gr] == nil {
				n.names[gr] = map[string]bool{}
			}
			n.names[gr][need.Name] = true
		}
	}
}

// Namespace and ServiceAccount make needed a selection.Selected.
func (n *needed) Namespace(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.spaces[name]
}

// ServiceAccount says whether the account was taken.
func (n *needed) ServiceAccount(namespace, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.accounts[namespace+"/"+name]
}

// wants is what is still to be looked for in one target.
type wants struct {
	target    *target
	names     []string
	selectors []selection.Need
}

// take empties what was collected and gives it by target.
func (r *reading) takeWants() []wants {
	n := &r.needs
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.kinds {
		for _, t := range r.targets {
			if t.res.Group == k.group && t.res.Kind == k.kind && !t.res.Namespaced {
				gr := t.res.GroupResource()
				if n.names[gr] == nil {
					n.names[gr] = map[string]bool{}
				}
				n.names[gr][k.name] = true
			}
		}
	}
	clear(n.kinds)
	var out []wants
	for _, t := range r.targets {
		if t.res.Namespaced {
			continue
		}
		w := wants{target: t, selectors: n.selected[t.res.GroupResource()]}
		for name := range n.names[t.res.GroupResource()] {
			if !t.taken[name] && !t.looked[name] && r.exists(t, name) {
				w.names = append(w.names, name)
			}
		}
		if len(w.names)+len(w.selectors) > 0 {
			slices.Sort(w.names)
			out = append(out, w)
		}
	}
	clear(n.names)
	clear(n.selected)
	return out
}

// exists knows of definitions that there are none for built-in resources.
func (r *reading) exists(t *target, name string) bool {
	if t.res.Group != definitionsGroup || t.res.Resource != definitionsResource || len(r.definitions) == 0 {
		return true
	}
	_, ok := r.definitions[name]
	return ok
}

// related reads the cluster-scoped objects that the selected ones need, what those need, and so on.
func (r *reading) related(ctx context.Context) error {
	if !r.needs.on {
		return nil
	}
	for _, t := range r.targets {
		t.alone = t.alone || t.revision > r.bracket.high
	}
	if err := r.pointingBack(ctx); err != nil {
		return err
	}
	for {
		round := r.takeWants()
		if len(round) == 0 {
			return nil
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(probeParallel)
		for _, w := range round {
			g.Go(func() error { return r.fetch(gctx, w) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

// pointingBack looks through the resources whose objects may point at selected ones.
func (r *reading) pointingBack(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(probeParallel)
	for _, t := range r.targets {
		if t.res.Namespaced || !selection.PointsBack(t.res.GroupResource()) {
			continue
		}
		g.Go(func() error {
			return r.fetchPart(ctx, t, kube.ListRequest{Path: t.res.Path("", ""), Limit: r.PageSize, MaxItem: maxItem}, func(c *candidate) (bool, error) {
				return selection.Wanted(c.ref, c.raw, &r.needs)
			})
		})
	}
	return g.Wait()
}

// fetch reads what is wanted of one target.
func (r *reading) fetch(ctx context.Context, w wants) error {
	t := w.target
	if t.looked == nil {
		t.looked = map[string]bool{}
	}
	wanted := map[string]bool{}
	for _, name := range w.names {
		wanted[name], t.looked[name] = true, true
	}
	whole := kube.ListRequest{Path: t.res.Path("", ""), Limit: r.PageSize, MaxItem: maxItem}
	if len(w.names) > fewNames || len(w.selectors) > 0 {
		return r.fetchPart(ctx, t, whole, func(c *candidate) (bool, error) {
			return wanted[c.ref.Name] || selectedBy(w.selectors, c), nil
		})
	}
	for _, name := range w.names {
		one := whole
		one.FieldSelector = "metadata.name=" + name
		err := r.fetchPart(ctx, t, one, func(c *candidate) (bool, error) { return c.ref.Name == name, nil })
		if err != nil || t.failed {
			return err
		}
	}
	return nil
}

func selectedBy(needs []selection.Need, c *candidate) bool {
	for _, n := range needs {
		if n.Selector.Matches(labelSet(c.head.Labels)) {
			return true
		}
	}
	return false
}

// labelSet is labels.Set without a copy.
type labelSet map[string]string

func (s labelSet) Has(key string) bool            { _, ok := s[key]; return ok }
func (s labelSet) Get(key string) string          { return s[key] }
func (s labelSet) Lookup(k string) (string, bool) { v, ok := s[k]; return v, ok }

// fetchPart reads one list of related objects; of those taken already nothing is taken again.
func (r *reading) fetchPart(ctx context.Context, t *target, req kube.ListRequest, choose func(*candidate) (bool, error)) error {
	if t.failed || t.empty {
		return nil
	}
	read := func() error {
		return r.readPart(ctx, t, req, func(c *candidate) (bool, error) {
			if t.taken[c.ref.Name] {
				return false, nil
			}
			take, err := choose(c)
			if err != nil || !take {
				return false, err
			}
			if c.head.Labels[excludeLabel] == "true" {
				c.skipped()
				return false, nil
			}
			return true, nil
		})
	}
	err := t.err
	if err == nil {
		err = read()
	}
	if t.expired(err) {
		t.again = true
		err = read() // what was taken is not taken again
	}
	if err == nil || endsReading(ctx, t, err) {
		return err
	}
	t.failed = true
	severity := SeverityError
	if no := r.req.Spec.IncludeClusterResources; no != nil && !*no {
		severity = SeverityWarning // Namespace objects alone come all the same
	}
	m := listFailure(t, "", err)
	m.Message = fmt.Sprintf("selected objects may need some of these: %s; or set includeClusterResources to false", m.Message)
	t.remarks.add(severity, m)
	return nil
}
