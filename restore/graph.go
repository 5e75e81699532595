package restore

import (
	"cmp"
	"slices"
)

// position is a place in the order of a restore. Everything that an item needs has a smaller position than the item;
// positions compare by band, then level, then stage.
type position struct {
	band  band
	level uint16
	stage stage
}

func (p position) compare(q position) int {
	if c := cmp.Compare(p.band, q.band); c != 0 {
		return c
	}
	if c := cmp.Compare(p.level, q.level); c != 0 {
		return c
	}
	return cmp.Compare(p.stage, q.stage)
}

// after gives the smallest position of the same stage that is not smaller than p and is behind q. An item leaves its place
// only where it must: where an owner, a namespace or a definition comes later than its stage, it moves to a later round
// (level) of the stages.
func (p position) after(q position) position {
	if p.compare(q) > 0 {
		return p
	}
	p.band, p.level = q.band, q.level
	if p.stage <= q.stage {
		p.level++
	}
	return p
}

// graph holds what the order is computed from.
type graph struct {
	items     []item
	resources []resource
	namespace map[uint32]int32 // index of the Namespace item of a namespace
	links     []ownerLink      // by child
	first     []int32          // links[first[i]:first[i+1]] are item i's
}

// newGraph indexes the links by child.
func newGraph(items []item, resources []resource, namespace map[uint32]int32, links []ownerLink) *graph {
	slices.SortStableFunc(links, func(a, b ownerLink) int { return cmp.Compare(a.child, b.child) })
	g := &graph{items: items, resources: resources, namespace: namespace, links: links, first: make([]int32, len(items)+1)}
	for _, l := range links {
		g.first[l.child+1]++
	}
	for i := range items {
		g.first[i+1] += g.first[i]
	}
	return g
}

func (g *graph) owners(i int32) []ownerLink { return g.links[g.first[i]:g.first[i+1]] }

func (g *graph) planned(i int32) bool { return i >= 0 && g.items[i].state == Pending }

// needs calls fn for each item that must exist before item i: its namespace, the definition of its kind, the API service that
// serves it, and its owners.
func (g *graph) needs(i int32, fn func(int32)) {
	it := &g.items[i]
	r := &g.resources[it.res]
	if r.Namespaced {
		if n, ok := g.namespace[it.ns]; ok && g.planned(n) {
			fn(n)
		}
	}
	if g.planned(r.crd) {
		fn(r.crd)
	}
	if g.planned(r.api) {
		fn(r.api)
	}
	for _, l := range g.owners(i) {
		if !l.cut && g.planned(l.owner) {
			fn(l.owner)
		}
	}
}

// cutCycles marks owner links that are part of a cycle and gives how many there were. Only owner links can close one: what a
// namespace or a definition needs is ownership alone.
func (g *graph) cutCycles() int {
	t := &tarjan{g: g, state: make(map[int32]*tarjanState)}
	for i := range g.items {
		if len(g.owners(int32(i))) > 0 && g.planned(int32(i)) {
			t.visit(int32(i))
		}
	}
	cut := 0
	for k := range g.links {
		l := &g.links[k]
		if l.owner < 0 {
			continue
		}
		a, b := t.state[l.child], t.state[l.owner]
		if l.child == l.owner || a != nil && b != nil && a.component == b.component {
			l.cut = true
			cut++
		}
	}
	return cut
}

// tarjan finds strongly connected components (Tarjan 1972) among the items that owners reach.
type tarjan struct {
	g     *graph
	state map[int32]*tarjanState
	stack []int32
	next  int32
}

type tarjanState struct {
	index, low, component int32
	onStack               bool
}

func (t *tarjan) visit(i int32) *tarjanState {
	if s := t.state[i]; s != nil {
		return s
	}
	s := &tarjanState{index: t.next, low: t.next, onStack: true}
	t.next++
	t.state[i] = s
	t.stack = append(t.stack, i)
	t.g.needs(i, func(n int32) {
		seen := t.state[n]
		switch {
		case seen == nil:
			s.low = min(s.low, t.visit(n).low)
		case seen.onStack:
			s.low = min(s.low, seen.index)
		}
	})
	if s.low == s.index {
		t.pop(i, s.index)
	}
	return s
}

// pop takes one component off the stack.
func (t *tarjan) pop(root, component int32) {
	for {
		last := t.stack[len(t.stack)-1]
		t.stack = t.stack[:len(t.stack)-1]
		s := t.state[last]
		s.onStack, s.component = false, component
		if last == root {
			return
		}
	}
}

// positions gives each planned item its place. Cycles must have been cut.
func (g *graph) positions() []position {
	pos := make([]position, len(g.items))
	done := make([]bool, len(g.items))
	var place func(i int32) position
	place = func(i int32) position {
		if done[i] {
			return pos[i]
		}
		s := g.resources[g.items[i].res].stage
		p := position{band: stages[s].band, stage: s}
		g.needs(i, func(n int32) { p = p.after(place(n)) })
		pos[i], done[i] = p, true
		return p
	}
	for i := range g.items {
		if g.planned(int32(i)) {
			place(int32(i))
		}
	}
	return pos
}

// buildSteps gathers items of equal position into steps, adds the steps that wait, and connects them.
func (g *graph) buildSteps() []Step {
	pos := g.positions()
	index := map[position]int{}
	var places []position
	add := func(p position) {
		if _, ok := index[p]; !ok {
			index[p] = 0
			places = append(places, p)
		}
	}
	for i := range g.items {
		if !g.planned(int32(i)) {
			continue
		}
		add(pos[i])
		for s, info := range stages {
			if info.wait && waitsFor(stage(s), pos[i].stage) {
				add(position{band: pos[i].band, level: pos[i].level, stage: stage(s)})
			}
		}
	}
	slices.SortFunc(places, position.compare)
	steps := make([]Step, len(places))
	for n, p := range places {
		index[p] = n
		steps[n] = Step{Index: n, position: p}
	}
	edges := make([]map[int]bool, len(steps))
	for n := range edges {
		edges[n] = map[int]bool{}
	}
	for i := range g.items {
		if !g.planned(int32(i)) {
			continue
		}
		n := index[pos[i]]
		g.items[i].step = int32(n)
		steps[n].items = append(steps[n].items, int32(i))
		g.needs(int32(i), func(m int32) { edges[n][index[pos[m]]] = true })
	}
	connect(steps, edges)
	return steps
}

// waitsFor says whether a waiting stage is for the sake of items of stage s: new APIs for those that define them, backends
// for those that point at them.
func waitsFor(wait, s stage) bool {
	switch wait {
	case stageEstablished:
		return s == stageCRDs
	case stageBackends:
		return s == stageAPIServices || s == stageWebhooks
	default:
		return false
	}
}

// stageClosure holds, for each stage, all the stages of its band that come before it.
var stageClosure = func() (c [stageCount]map[stage]bool) {
	for s := range stages {
		c[s] = map[stage]bool{}
		for _, n := range stages[s].needs {
			c[s][n] = true
			for m := range c[n] {
				c[s][m] = true
			}
		}
	}
	return c
}()

// connect adds the edges between stages and bands, and leaves those out that others imply.
func connect(steps []Step, edges []map[int]bool) {
	reach := make([]map[int]bool, len(steps))
	for n := range steps {
		p := steps[n].position
		for m := range n {
			q := steps[m].position
			if q.band < p.band || stageClosure[p.stage][q.stage] && q.level <= p.level {
				edges[n][m] = true
			}
		}
		all := make([]int, 0, len(edges[n]))
		for m := range edges[n] {
			all = append(all, m)
		}
		slices.SortFunc(all, func(a, b int) int { return cmp.Compare(b, a) })
		reach[n] = map[int]bool{}
		for _, m := range all {
			if reach[n][m] {
				continue
			}
			steps[n].Needs = append(steps[n].Needs, m)
			reach[n][m] = true
			for k := range reach[m] {
				reach[n][k] = true
			}
		}
		slices.Sort(steps[n].Needs)
	}
}
