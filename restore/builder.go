package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/restore/transform"
)

// builder makes one plan.
type builder struct {
	e    *Engine
	plan *Plan

	interner  interner
	index     map[schema.GroupVersionResource]uint16
	apis      map[schema.GroupResource]*archive.API
	links     []ownerLink
	selected  related
	sameMinor bool // source and target are of one Kubernetes minor version
}

func (e *Engine) begin(ctx context.Context, req Request) (*builder, error) {
	matcher, err := selection.Compile(req.Spec.Selection)
	if err != nil {
		return nil, err
	}
	pipeline, err := transform.Compile(transform.Options{NamespaceMapping: req.Spec.NamespaceMapping, Transforms: req.Spec.Transforms})
	if err != nil {
		return nil, err
	}
	b := newBuilder(&Plan{Request: req, Source: e.Source.Info(), matcher: matcher, pipeline: pipeline, reader: newReader(e.Source)}, e)
	for i := range b.plan.Source.APIs {
		a := &b.plan.Source.APIs[i]
		b.apis[schema.GroupResource{Group: a.Group, Resource: a.Resource}] = a
	}
	return b, b.askTarget(ctx)
}

func newBuilder(p *Plan, e *Engine) *builder {
	p.byUID, p.cycles, p.live = map[uid]int32{}, map[int32]bool{}, map[string]bool{}
	return &builder{
		e: e, plan: p, interner: newInterner(), index: map[schema.GroupVersionResource]uint16{},
		apis: map[schema.GroupResource]*archive.API{},
	}
}

// askTarget learns the target's identity, clock, APIs and namespaces.
func (b *builder) askTarget(ctx context.Context) error {
	resp, err := b.e.look().Do(ctx, kube.Request{Path: "/api/v1/namespaces/kube-system"})
	if err != nil {
		return fmt.Errorf("identify the target: %w", err)
	}
	head, err := rawjson.ReadHead(resp.Body)
	if err != nil {
		return fmt.Errorf("identify the target: %w", err)
	}
	if b.plan.started, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		b.plan.started = b.e.now().Truncate(time.Second)
	}
	if b.plan.discovery, err = b.e.look().Discover(ctx); err != nil {
		return fmt.Errorf("discover the target's APIs: %w", err)
	}
	b.plan.Target = v1alpha1.ClusterInfo{UID: head.UID, Name: b.e.TargetName, Version: b.plan.discovery.ServerVersion}
	b.sameMinor = minor(b.plan.Target.Version) == minor(b.plan.Source.Cluster.Version)
	_, err = b.e.look().List(ctx, kube.ListRequest{Path: "/api/v1/namespaces"}, func(raw []byte) error {
		h, err := rawjson.ReadHead(raw)
		b.plan.live[h.Name] = h.Deleting
		return err
	})
	if err != nil {
		return fmt.Errorf("list the target's namespaces: %w", err)
	}
	return nil
}

// minor cuts "v1.36.3-eks-1234" to "v1.36".
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return version
	}
	return parts[0] + "." + parts[1]
}

func (b *builder) build(ctx context.Context) error {
	if err := b.readRows(ctx); err != nil {
		return fmt.Errorf("read the index of %s: %w", b.plan.Source.Name, err)
	}
	if err := b.selectContents(ctx); err != nil {
		return err
	}
	b.compact()
	if err := b.arrange(ctx); err != nil {
		return err
	}
	b.remarkUnmatched()
	return nil
}

// arrange decides what is left out and in which order the rest is written.
func (b *builder) arrange(ctx context.Context) error {
	b.plan.namespaces = b.interner.list
	b.resolveTargets()
	b.dropDoubles()
	g := newGraph(b.plan.items, b.plan.resources, b.namespaceItems(), b.resolveLinks())
	if !b.plan.Request.Spec.IncludeControlled {
		g.controlled()
		if err := b.leaveCurrent(ctx, g); err != nil {
			return err
		}
	}
	b.mapNamespaces()
	if b.makeNamespaces() {
		g = newGraph(b.plan.items, b.plan.resources, b.namespaceItems(), b.links)
	}
	if g.cutCycles() > 0 {
		for _, l := range g.links {
			if l.cut {
				b.plan.cycles[l.child] = true
			}
		}
	}
	b.plan.Steps = g.buildSteps()
	b.links, b.selected = nil, related{}
	return nil
}

// readRows takes in every row that the selection may want for itself. Of which cluster-scoped resources only what others need is
// wanted, it notes for later.
func (b *builder) readRows(ctx context.Context) error {
	namespaces, literal := b.plan.matcher.LiteralNamespaces()
	match := func(c Chunk) bool {
		r := b.resourceOf(c.Group, c.Version, c.Resource)
		switch b.plan.matcher.Resource(r) {
		case selection.TakeNone:
			return false
		case selection.TakeRelated:
			b.selected.later(r)
			return false
		case selection.TakeMatching:
		}
		return !r.Namespaced || !literal || slices.ContainsFunc(namespaces, c.MayHold)
	}
	return b.e.Source.Rows(ctx, match, func(chunk int, row archive.Row) error {
		switch b.plan.matcher.Item(row.Ref, row.Labels) {
		case selection.In:
			return b.add(chunk, &row, false)
		case selection.Out:
			if row.Namespace == "" && b.plan.matcher.AlsoRelated() {
				return b.add(chunk, &row, true)
			}
		default:
		}
		return nil
	})
}

// resourceOf describes an archived resource as the selection wants it.
func (b *builder) resourceOf(group, version, name string) kube.Resource {
	r := kube.Resource{Group: group, Version: version, Resource: name}
	if a := b.apis[schema.GroupResource{Group: group, Resource: name}]; a != nil {
		r.Kind, r.Namespaced = a.Kind, a.Namespaced
	}
	return r
}

// maxItems bounds a plan; indexes of items are 32 bits wide.
const maxItems = 50_000_000

// add takes one row into the plan. A candidate is in it only if something selected needs it.
func (b *builder) add(chunk int, row *archive.Row, candidate bool) error {
	if len(b.plan.items) >= maxItems {
		return fmt.Errorf("more than %d objects are selected", maxItems)
	}
	res, err := b.resource(row)
	if err != nil {
		return err
	}
	i := int32(len(b.plan.items))
	it := item{name: strings.Clone(row.Name), uid: parseUID(row.UID), ns: b.interner.intern(row.Namespace), chunk: int32(chunk), step: -1, res: res}
	if row.Applied {
		it.flags |= flagApplied
	}
	if _, never := actions.NeverRestored(row.GroupResource()); never {
		it.state, it.reason = Skipped, NeverRestored
	} else if reason, compare := leaveOut(row); reason != "" {
		if compare && b.sameMinor {
			it.flags |= flagCompare
		} else {
			it.state = Skipped
		}
		it.reason = reason
	}
	if candidate && it.reason != "" {
		return nil // what needs it finds the target's own
	}
	b.plan.items = append(b.plan.items, it)
	for k := range row.Owners {
		o := &row.Owners[k]
		b.links = append(b.links, ownerLink{child: i, owner: -1, uid: parseUID(o.UID), kind: kindOfOwner(o), controller: o.Controller})
	}
	if candidate {
		b.selected.candidate(i, row)
	}
	return nil
}

// resource gives the number of the row's resource.
func (b *builder) resource(row *archive.Row) (uint16, error) {
	gvr := schema.GroupVersionResource{Group: row.Group, Version: row.Version, Resource: row.Resource}
	if n, ok := b.index[gvr]; ok {
		return n, nil
	}
	n := len(b.plan.resources)
	if n > 1<<16-1 {
		return 0, fmt.Errorf("more than %d resources", n)
	}
	b.index[gvr] = uint16(n)
	b.plan.resources = append(b.plan.resources, resource{
		Group: row.Group, Version: row.Version, Resource: row.Resource, Kind: row.Kind, Namespaced: row.Namespace != "",
		stage: stageFor(row.Group, row.Resource), crd: -1, api: -1,
	})
	return uint16(n), nil
}

// compact takes out what turned out not to be selected.
func (b *builder) compact() {
	if len(b.selected.out) == 0 {
		return
	}
	kept := make([]int32, len(b.plan.items))
	n := int32(0)
	for i := range b.plan.items {
		if b.selected.out[int32(i)] {
			kept[i] = -1
			continue
		}
		kept[i] = n
		b.plan.items[n] = b.plan.items[i]
		n++
	}
	b.plan.items = b.plan.items[:n]
	links := b.links[:0]
	for _, l := range b.links {
		if l.child = kept[l.child]; l.child >= 0 {
			links = append(links, l)
		}
	}
	b.links = links
	b.plan.reader.renumber(kept)
}

// resolveTargets finds how the target takes each resource, and which items of the plan define or serve it.
func (b *builder) resolveTargets() {
	definitions := map[string]int32{} // of CRDs and APIServices, by name
	for i := range b.plan.items {
		r := &b.plan.resources[b.plan.items[i].res]
		if r.stage == stageCRDs || r.stage == stageAPIServices {
			definitions[r.Resource+"/"+b.plan.items[i].name] = int32(i)
		}
	}
	for n := range b.plan.resources {
		r := &b.plan.resources[n]
		r.target = resolve(b.plan.discovery, r)
		if builtIn(r.Group) {
			continue
		}
		if i, ok := definitions["customresourcedefinitions/"+r.groupResource()]; ok {
			r.crd = i
		}
		if i, ok := definitions["apiservices/"+r.Version+"."+r.Group]; ok && b.plan.items[i].state == Pending {
			r.api = i
		}
		if (r.crd >= 0 || r.api >= 0) && r.target.state == targetNone && r.target.reason == NotServed {
			r.target = pending(r)
		}
	}
	for i := range b.plan.items {
		it := &b.plan.items[i]
		if t := &b.plan.resources[it.res].target; t.state == targetNone && it.state == Pending {
			it.state, it.reason = outcomeOf(t.reason), t.reason
			it.flags &^= flagCompare
		}
	}
}

// outcomeOf says how an object counts that is left out for a reason.
func outcomeOf(r Reason) Outcome {
	if r == NotServed || r == NameCollision {
		return Failed
	}
	return Skipped
}

// dropDoubles keeps one of the archived versions of each object: the one that needs the least to be taken by the target.
func (b *builder) dropDoubles() {
	for i := range b.plan.items {
		it := &b.plan.items[i]
		if it.uid == (uid{}) {
			continue
		}
		j, double := b.plan.byUID[it.uid]
		if !double || b.plan.items[j].name != it.name || b.plan.items[j].ns != it.ns {
			b.plan.byUID[it.uid] = int32(i)
			continue
		}
		loser := it
		if b.better(int32(i), j) {
			loser = &b.plan.items[j]
			b.plan.byUID[it.uid] = int32(i)
		}
		loser.state, loser.reason = Skipped, OtherVersion
	}
}

// better says whether item i is to be restored rather than item j, which is another archived version of the same object.
func (b *builder) better(i, j int32) bool {
	x, y := &b.plan.items[i], &b.plan.items[j]
	if (x.state == Pending) != (y.state == Pending) {
		return x.state == Pending
	}
	rx, ry := &b.plan.resources[x.res], &b.plan.resources[y.res]
	if rx.target.state != ry.target.state {
		return rx.target.state < ry.target.state
	}
	return b.archived(rx) && !b.archived(ry)
}

// archived says whether a resource's version is the one that the backup chose for it.
func (b *builder) archived(r *resource) bool {
	a := b.apis[schema.GroupResource{Group: r.Group, Resource: r.Resource}]
	return a != nil && a.Archived == r.Version
}

// resolveLinks points owner references at items.
func (b *builder) resolveLinks() []ownerLink {
	for k := range b.links {
		l := &b.links[k]
		if i, ok := b.plan.byUID[l.uid]; ok {
			l.owner = i
			b.plan.items[i].flags |= flagOwner
		}
	}
	return b.links
}

// namespaceItems finds the Namespace items.
func (b *builder) namespaceItems() map[uint32]int32 {
	out := map[uint32]int32{}
	for i := range b.plan.items {
		it := &b.plan.items[i]
		if b.plan.resources[it.res].stage == stageNamespaces && it.state == Pending {
			out[b.interner.intern(it.name)] = int32(i)
		}
	}
	b.plan.namespaces = b.interner.list
	return out
}

// mapNamespaces learns what the target calls each namespace, and marks objects of different namespaces that would meet there.
func (b *builder) mapNamespaces() {
	sources := map[string]int{}
	b.plan.mapped = make([]string, len(b.plan.namespaces))
	for n, ns := range b.plan.namespaces {
		if n == 0 {
			continue
		}
		b.plan.mapped[n] = b.plan.pipeline.Ref(plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: ns, Name: "x"}).Namespace
		sources[b.plan.mapped[n]]++
	}
	taken := map[string]bool{}
	for i := range b.plan.items {
		it := &b.plan.items[i]
		r := &b.plan.resources[it.res]
		if it.state != Pending {
			continue
		}
		ns := b.plan.mapped[it.ns]
		name := it.name
		if r.stage == stageNamespaces {
			ns = b.plan.mapped[b.interner.intern(it.name)]
			name = ns
		}
		if b.keepsOwn(it, r, ns); it.state != Pending {
			continue
		}
		if sources[ns] < 2 {
			continue
		}
		key := r.groupResource() + " " + ns + "/" + name
		if taken[key] {
			it.state, it.reason = outcomeOf(NameCollision), NameCollision
			if r.stage == stageNamespaces || r.stage == stageAccounts && it.name == "default" {
				it.state = Skipped
			}
		}
		taken[key] = true
	}
}

// makeNamespaces adds the namespaces that neither the source nor the target has. It says whether there were any.
func (b *builder) makeNamespaces() bool {
	have := map[string]bool{}
	needed := map[uint32]bool{}
	for i := range b.plan.items {
		it := &b.plan.items[i]
		switch r := &b.plan.resources[it.res]; {
		case it.state != Pending:
		case r.stage == stageNamespaces:
			have[b.plan.mapped[b.interner.intern(it.name)]] = true
		case it.ns != 0:
			needed[it.ns] = true
		}
	}
	made := false
	for _, ns := range slices.Sorted(maps.Keys(needed)) {
		name := b.plan.mapped[ns]
		if deleting, live := b.plan.live[name]; live && !deleting || have[name] {
			continue // one that is being deleted is waited for, and made again
		}
		have[name], made = true, true
		res, err := b.resource(&archive.Row{Ref: plugins.Ref{Version: "v1", Resource: "namespaces"}, Kind: "Namespace"})
		if err != nil {
			continue // only a plan of 65536 resources has no room for this one
		}
		r := &b.plan.resources[res]
		r.target = resolve(b.plan.discovery, r)
		b.plan.items = append(b.plan.items, item{name: b.plan.namespaces[ns], chunk: -1, step: -1, res: res, flags: flagMade, reason: NamespaceMade})
	}
	return made
}

// remarkUnmatched names patterns of the selection that no archived resource matches: most are misspelt.
func (b *builder) remarkUnmatched() {
	resources := make([]kube.Resource, 0, len(b.plan.Source.APIs))
	for _, a := range b.plan.Source.APIs {
		for _, v := range append([]string{a.Archived}, a.Versions...) {
			resources = append(resources, kube.Resource{Group: a.Group, Version: v, Resource: a.Resource, Kind: a.Kind, Namespaced: a.Namespaced})
		}
	}
	for _, u := range b.plan.matcher.Unmatched(resources) {
		b.plan.Remarks = append(b.plan.Remarks, plugins.Remark{Reason: string(UnusedRule),
			Message: fmt.Sprintf("%s: %q matches no resource of the backup", u.Field, u.Pattern)})
	}
}

// madeNamespace is the body of a namespace that the source does not hold.
func madeNamespace(name string) ([]byte, error) {
	return json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}})
}
