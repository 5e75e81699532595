package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/plugins/hooks"
)

// run is one execution of a plan.
type run struct {
	e       *Engine
	plan    *Plan
	manager string
	query   url.Values // of creates
	prep    preparer
	merger  *plugins.Chain
	resumed bool
	started time.Time // by our clock
	since   time.Time // by the target's clock, when the restore first began

	jobs    chan job
	pace    *pace
	reading *semaphore.Weighted // chunks being read
	buffers sync.Pool

	// mu guards the changing fields of plan.items, and what follows.
	mu      sync.Mutex
	entries map[int32][]Entry
	counts  v1alpha1.RestoreCounts
	waits   map[string]*wait // which objects that come now join, by refusal.wait
	parked  map[int32]*parkedItem

	hooks       *hooks.RestoreSet
	hooked      atomic.Bool           // an object that was read may have hooks in annotations
	ranIn       map[string]HookRecord // by uid of pod
	hooksFailed int
	hookRemarks []plugins.Remark

	targets    sync.Map // uint16 -> *target, where what is served changed during the run
	liveOwners sync.Map // path -> uid
	selectors  map[string]bool
	volumes    map[string]bool   // of the target, by refKey
	holders    map[string]string // the claims that volumes of the target are for, by the volumes' names
	claims     map[string]bool   // of the restore, by their "namespace/name" in the target; see bringsClaim
	claimsOnce sync.Once
	filling    *filling         // nil where no volume gets data
	namespace  map[string]int32 // Namespace items, by their name in the target
}

// job is one object on its way to a worker.
type job struct {
	index int32
	raw   *[]byte
	done  func()
}

// Run carries the plan out. Where the engine has a journal that holds an earlier run of the same restore, it goes on from there.
// The report says what became of every object; it is given whenever the run began, also beside an error. Cancelling ctx stops the
// run within seconds; that is no error, the report's phase says it. An error means that the run could not go on: the target or
// the backup cannot be read, the journal cannot be written.
func (e *Engine) Run(ctx context.Context, p *Plan) (*Report, error) {
	x, err := e.newRun(p)
	if err != nil {
		return nil, err
	}
	if err := x.open(ctx); err != nil {
		return nil, err
	}
	err = x.check(ctx)
	if err == nil {
		err = x.execute(ctx)
	}
	if err == nil {
		err = x.runHooks(ctx)
	}
	cancelled := ctx.Err() != nil
	if cancelled {
		err = nil
	}
	return x.close(context.WithoutCancel(ctx), cancelled, err)
}

func (e *Engine) newRun(p *Plan) (*run, error) {
	x := &run{
		e: e, plan: p, manager: fieldManager(p.Request.Name), started: e.now(), since: p.started,
		jobs: make(chan job), pace: newPace(e.concurrency()), reading: semaphore.NewWeighted(4), buffers: sync.Pool{New: func() any { return new([]byte) }},
		entries: map[int32][]Entry{}, waits: map[string]*wait{}, parked: map[int32]*parkedItem{}, selectors: map[string]bool{}, volumes: map[string]bool{}, holders: map[string]string{}, namespace: map[string]int32{},
		ranIn: map[string]HookRecord{},
	}
	var err error
	if x.hooks, err = hooks.CompileRestore(p.Request.Spec.Hooks); err != nil {
		return nil, err
	}
	x.query = url.Values{"fieldManager": {x.manager}}
	for i := range p.items {
		it := &p.items[i]
		if p.resources[it.res].stage == stageNamespaces && it.step >= 0 {
			x.namespace[p.pipeline.Ref(p.ref(int32(i))).Name] = int32(i)
		}
	}
	spec := &p.Request.Spec
	chain, err := plugins.NewChain(actions.All(actions.Options{
		PreserveNodePorts: spec.PreserveNodePorts, PreserveClusterIPs: spec.PreserveClusterIPs, IncludeControlled: spec.IncludeControlled,
		Policy: spec.ExistingResourcePolicy, Restored: x.isRestored, TakenBy: x.takenBy, VolumeName: x.volumeName, MadeNew: x.makesNew,
		ServiceSelects: x.serviceSelects,
		EBSDriver:      spec.EBSDriver, KeepInTree: sameEBS(p.Source.Cluster.Version, p.Target.Version),
		OtherCluster: p.Source.Cluster.UID != p.Target.UID,
	})...)
	if err != nil {
		return nil, err
	}
	x.merger = chain
	x.prep = preparer{plan: p, chain: chain, targetOf: x.targetOf, relink: x.relink}
	return x, nil
}

// fieldManager names the restore to the target. Servers take at most 128 characters.
func fieldManager(name string) string {
	const limit = 128
	m := "kedge/" + name
	if len(m) <= limit {
		return m
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return fmt.Sprintf("%s-%016x", m[:limit-17], h.Sum64())
}

// isRestored says whether an object is part of the restore or in the target, for actions that ask before they keep a reference
// to it.
func (x *run) isRestored(ref plugins.Ref) bool {
	ref.Version = ""
	if i := x.plan.lookup(ref); i >= 0 && x.plan.items[i].step >= 0 {
		return true
	}
	ref.Namespace = x.plan.pipeline.Ref(plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: ref.Namespace, Name: "x"}).Namespace
	return x.volumes[refKey(ref)]
}

// takenBy names the claim that a volume of the target is for, where that is not what a claim of the source becomes.
func (x *run) takenBy(volume, namespace, claim string) string {
	to := x.plan.pipeline.Ref(plugins.Ref{Version: "v1", Resource: "persistentvolumeclaims", Namespace: namespace, Name: claim})
	if by := x.holders[volume]; by != to.Namespace+"/"+to.Name {
		return by
	}
	return ""
}

// learnVolumes reads the names of the target's volumes, claims and snapshots, and whom the volumes are for, where the plan has claims
// that may refer to them.
func (x *run) learnVolumes(ctx context.Context) error {
	claims := slices.ContainsFunc(x.plan.Steps, func(s Step) bool { return s.position.stage == stageClaims || s.position.stage == stageVolumes })
	if !claims {
		return nil
	}
	for _, gr := range [][2]string{{"", "persistentvolumes"}, {"", "persistentvolumeclaims"},
		{"snapshot.storage.k8s.io", "volumesnapshots"}, {"snapshot.storage.k8s.io", "volumesnapshotcontents"}} {
		r, ok := x.plan.discovery.Preferred(gr[0], gr[1])
		if !ok {
			continue
		}
		_, err := x.e.Kube.List(ctx, kube.ListRequest{Path: r.Path("", "")}, func(raw []byte) error {
			h, err := rawjson.ReadHead(raw)
			if err != nil {
				return err
			}
			x.volumes[refKey(plugins.Ref{Group: gr[0], Resource: gr[1], Namespace: h.Namespace, Name: h.Name})] = true
			if gr[1] != "persistentvolumes" {
				return nil
			}
			claim, _, err := readClaimRef(raw)
			if claim.Name != "" {
				x.holders[h.Name] = claim.key()
			}
			return err
		})
		if kube.Code(err) == http.StatusForbidden {
			continue // an account that may not see them: claims do not count on any
		}
		if err != nil {
			return fmt.Errorf("list the target's %s: %w", gr[1], err)
		}
	}
	return nil
}

// serviceSelects says whether a Service of the source has a selector, so that its endpoints are made again.
func (x *run) serviceSelects(namespace, name string) bool { return x.selectors[namespace+"/"+name] }

// execute runs all steps.
func (x *run) execute(ctx context.Context) error {
	x.plan.reader.write(func(i int32) bool { return x.plan.items[i].step >= 0 && x.plan.items[i].state == Pending })
	g, ctx := errgroup.WithContext(ctx)
	for range x.e.concurrency() {
		g.Go(func() error { return x.work(ctx) })
	}
	g.Go(func() error {
		defer close(x.jobs)
		return x.schedule(ctx)
	})
	return g.Wait()
}

// schedule starts each step when those that it needs are done, and tries parked objects again until there are none.
func (x *run) schedule(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	done := make([]chan struct{}, len(x.plan.Steps))
	for n := range done {
		done[n] = make(chan struct{})
	}
	for n := range x.plan.Steps {
		g.Go(func() error {
			for _, m := range x.plan.Steps[n].Needs {
				select {
				case <-done[m]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := x.step(ctx, &x.plan.Steps[n]); err != nil {
				return fmt.Errorf("step %s: %w", x.plan.Steps[n].Name(), err)
			}
			close(done[n])
			return nil
		})
	}
	g.Go(func() error { return x.retryParked(ctx, done) })
	return g.Wait()
}

// step does the work of one step.
func (x *run) step(ctx context.Context, s *Step) error {
	if s.position.band == bandGates {
		if err := x.drainParked(ctx); err != nil {
			return err
		}
	}
	switch s.position.stage {
	case stageEstablished:
		return x.waitEstablished(ctx, s)
	case stageBackends:
		return x.waitBackends(ctx, s)
	default:
		return x.submit(ctx, x.unfinished(s))
	}
}

// unfinished gives the step's objects that a run before this one has not finished.
func (x *run) unfinished(s *Step) []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]int32, 0, len(s.items))
	for _, i := range s.items {
		if x.plan.items[i].state == Pending {
			out = append(out, i)
		}
	}
	return out
}

// submit reads the objects, hands them to the workers, and returns when all have been tried.
func (x *run) submit(ctx context.Context, items []int32) error {
	slices.SortFunc(items, func(a, b int32) int {
		return cmp.Or(cmp.Compare(x.plan.items[a].chunk, x.plan.items[b].chunk), cmp.Compare(a, b))
	})
	var tried sync.WaitGroup
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for len(items) > 0 {
		n := 1
		for n < len(items) && x.plan.items[items[n]].chunk == x.plan.items[items[0]].chunk {
			n++
		}
		part := items[:n]
		items = items[n:]
		g.Go(func() error { return x.submitChunk(ctx, part, &tried) })
	}
	err := g.Wait()
	tried.Wait()
	return err
}

func (x *run) submitChunk(ctx context.Context, items []int32, tried *sync.WaitGroup) error {
	if err := x.reading.Acquire(ctx, 1); err != nil {
		return err
	}
	defer x.reading.Release(1)
	return x.plan.readChunk(ctx, x.plan.items[items[0]].chunk, items, func(i int32, raw []byte) error {
		if hooks.RestoreMarked(raw) {
			x.hooked.Store(true)
		}
		buf := x.buffers.Get().(*[]byte) // the pool holds nothing else
		*buf = append((*buf)[:0], raw...)
		tried.Add(1)
		select {
		case x.jobs <- job{index: i, raw: buf, done: tried.Done}:
			return nil
		case <-ctx.Done():
			tried.Done()
			return ctx.Err()
		}
	})
}

// work is one worker.
func (x *run) work(ctx context.Context) error {
	for j := range x.jobs {
		err := ctx.Err()
		if err == nil {
			err = x.do(ctx, j.index, *j.raw)
			x.keepParked(j)
		}
		if cap(*j.raw) <= 1<<20 {
			x.buffers.Put(j.raw)
		}
		j.done()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// keepParked keeps an object for its next try.
func (x *run) keepParked(j job) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.plan.items[j.index].flags&flagParked != 0 { // else it may be forgotten already
		x.plan.reader.keep(j.index, *j.raw)
	}
}

// check reads everything that the plan writes once before the first write, so that a damaged backup changes nothing, and
// learns on its way which Services have selectors. What it reads stays in memory where there is room.
func (x *run) check(ctx context.Context) error {
	if err := x.learnVolumes(ctx); err != nil {
		return err
	}
	if err := x.learnFilling(ctx); err != nil {
		return err
	}
	var items []int32
	for i := range x.plan.items {
		it := &x.plan.items[i]
		if it.step >= 0 && (it.state == Pending || x.plan.resources[it.res].stage == stageServices) {
			items = append(items, int32(i))
		}
	}
	slices.SortStableFunc(items, func(a, b int32) int { return cmp.Compare(x.plan.items[a].chunk, x.plan.items[b].chunk) })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	var mu sync.Mutex
	for len(items) > 0 {
		n := 1
		for n < len(items) && x.plan.items[items[n]].chunk == x.plan.items[items[0]].chunk {
			n++
		}
		part := items[:n]
		items = items[n:]
		g.Go(func() error {
			return x.plan.readChunk(ctx, x.plan.items[part[0]].chunk, part, func(i int32, raw []byte) error {
				if x.plan.resources[x.plan.items[i].res].stage == stageServices && hasSelector(raw) {
					mu.Lock()
					defer mu.Unlock()
					x.selectors[x.plan.namespaces[x.plan.items[i].ns]+"/"+x.plan.items[i].name] = true
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("check the backup before the first write: %w", err)
	}
	return nil
}

// errUnreachable ends a run whose target does not come back.
var errUnreachable = errors.New("the target has not answered for as long as spec.waitTimeout allows: resume the restore when it does")
