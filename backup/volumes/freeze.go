package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins/hooks"
)

const (
	// groupsAtOnce is how many freeze groups are worked on at once.
	groupsAtOnce = 4
	// podsAtOnce is in how many pods of a group commands run at once.
	podsAtOnce = 16
	// preGrace is how long a cancelled backup waits for a pre hook that runs.
	preGrace = 10 * time.Second
	// forgetTime bounds how long a backup that has ended still tries to say that nothing is frozen any more.
	forgetTime = 30 * time.Second
)

// Note says in the location which pods hold still.
type Note interface {
	// Held says whether nobody else has begun to run their post hooks.
	Held(ctx context.Context) (bool, error)
	// Forget removes the note, when the post hooks have run.
	Forget(ctx context.Context) error
}

// freezeGroup is volumes that are taken while the applications that write to them hold still, with the pods of these.
type freezeGroup struct {
	pods    []*frozenPod
	volumes []*taking
	note    Note // nil where there is nothing to undo
}

// frozenPod is a pod with hooks.
type frozenPod struct {
	*hooks.Pod
	pre, post []hooks.Command
	begun     bool  // the turn of a pre hook had come
	held      bool  // a pre hook may have run
	froze     bool  // a pre hook has reached its container
	err       error // of a pre hook, for which its volumes are not taken
	failed    []failedPost
}

// freeze takes the snapshots of all volumes, and the copies of files that are made while pods hold still. It gives the volumes whose files are left.
func (t *Taker) freeze(ctx context.Context, req Request, todo []*taking, copies *fileCopies) ([]*taking, error) {
	groups, free := t.tie(todo, req.Pods, copies.result)
	snapshots, files := split(free)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.snapshot(gctx, req, snapshots) })
	g.Go(func() error {
		each, ectx := errgroup.WithContext(gctx)
		each.SetLimit(groupsAtOnce)
		for _, group := range groups {
			each.Go(func() error { return t.takeGroup(ectx, req, group, copies) })
		}
		return each.Wait()
	})
	return files, g.Wait()
}

// takeGroup runs the pre hooks of a group's pods, takes its volumes, and runs the post hooks: once its snapshots are created, however long they take to
// complete. The error is the context's.
func (t *Taker) takeGroup(ctx context.Context, req Request, group *freezeGroup, copies *fileCopies) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r := copies.result
	var err error
	if group.note, err = t.note(ctx, group); err != nil {
		group.fail(r, err)
		return context.Cause(ctx)
	}
	defer func() {
		// Whatever became of the rest: what was begun is undone.
		if !group.thaw(ctx, t) {
			r.owe(group) // and the next attempt finds the note
			return
		}
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTime)
		defer cancel()
		if ferr := group.forget(fctx); ferr != nil && ctx.Err() == nil {
			r.note("%v; should this attempt be cut off, the next one runs the post hooks once more", ferr)
		}
	}()
	group.prepare(ctx, t, r)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, p := range group.pods {
		if p.err != nil {
			group.refuse(p)
		}
	}
	known, others := split(group.volumes)
	if err := errors.Join(t.snapshot(ctx, req, known), copies.copy(ctx, others)); err != nil {
		return err
	}
	group.check(ctx, r)
	return nil
}

// note writes down in which pods there will be something to undo.
func (t *Taker) note(ctx context.Context, group *freezeGroup) (Note, error) {
	var uids []string
	for _, p := range group.pods {
		if len(p.pre) > 0 && len(p.post) > 0 {
			uids = append(uids, p.UID)
		}
	}
	if len(uids) == 0 || t.Freeze == nil {
		return nil, nil
	}
	return t.Freeze(ctx, uids)
}

// forget removes the note of the group.
func (g *freezeGroup) forget(ctx context.Context) error {
	if g.note == nil {
		return nil
	}
	return g.note.Forget(ctx)
}

// checkTime bounds how long applications hold still for check.
const checkTime = 10 * time.Second

// check looks whether the applications held still until now: another backup of this name may have taken this one for dead, and run the post hooks.
func (g *freezeGroup) check(ctx context.Context, r *Result) {
	if g.note == nil || len(g.volumes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	held, err := g.note.Held(ctx)
	switch {
	case err != nil:
		r.note("whether pod %s and those that are tied to it held still all the time is not known, should another backup of this name run: %v", g.pods[0], err)
	case !held:
		for _, v := range g.volumes {
			v.fail(ReasonHookFailed, fmt.Errorf("its data is not taken, because another run of a backup of this name ran the post hooks of pod %s, or of those that are tied to it, meanwhile: give backups that run at the same time names of their own", g.pods[0]))
		}
	}
}

// prepare runs the pre hooks, of several pods at once, of each one after the other until one fails.
func (g *freezeGroup) prepare(ctx context.Context, t *Taker, r *Result) {
	g.each(func(p *frozenPod) {
		for i := range p.pre {
			if ctx.Err() != nil {
				return
			}
			p.begun = true
			c := &p.pre[i]
			err := t.runPre(ctx, p.Pod, c)
			p.held = p.held || hooks.Began(err)
			p.froze = p.froze || hooks.Began(err) && !hooks.Lost(err)
			if err != nil && ctx.Err() == nil {
				r.hook(p.Pod, c.OnError, fmt.Errorf("pre %w", err))
				if c.OnError != v1alpha1.HookContinue {
					p.err = err
					return
				}
			}
		}
	})
}

// runPre runs a pre hook. A backup that is cancelled meanwhile gives it some time to end: what is given up in the middle could freeze after it was undone.
func (t *Taker) runPre(ctx context.Context, p *hooks.Pod, c *hooks.Command) error {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if t.Sleep(own, preGrace) == nil {
			cancel()
		}
	})()
	return hooks.Run(own, t.Exec, p, c)
}

func (g *freezeGroup) each(do func(*frozenPod)) {
	var all errgroup.Group
	all.SetLimit(podsAtOnce)
	for _, p := range g.pods {
		all.Go(func() error {
			do(p)
			return nil
		})
	}
	_ = all.Wait() // what fails is in the result
}

// refuse leaves the group's volumes out: one of the applications that write to them did not hold still.
func (g *freezeGroup) refuse(p *frozenPod) {
	for _, v := range g.volumes {
		v.fail(ReasonHookFailed, fmt.Errorf("its data is not taken, because a pre hook failed: %w", p.err))
	}
}

// fail says of a group that nothing of it was begun.
func (g *freezeGroup) fail(r *Result, err error) {
	for _, p := range g.pods {
		r.hook(p.Pod, v1alpha1.HookFail, fmt.Errorf("no hook was run: %w", err))
		p.err = err
		g.refuse(p)
	}
}

// tie puts together what is frozen together: the volumes of one pod, those of pods that share one, and those of pods that a label ties. What no pod with
// hooks has to do with is free.
func (t *Taker) tie(todo []*taking, pods []hooks.Pod, r *Result) (groups []*freezeGroup, free []*taking) {
	byClaim := map[string]string{} // units
	for _, v := range todo {
		if v.err == nil {
			byClaim[v.claim.String()] = v.unit()
		}
	}
	sets, hooked := newUnion(), map[string][]*frozenPod{}
	for i := range pods {
		p := &pods[i]
		id := "pod/" + p.UID
		if group := p.Group(); group != "" {
			sets.join(id, "group/"+group)
		}
		for _, claim := range p.Claims {
			if unit, ok := byClaim[p.Namespace+"/"+claim]; ok {
				sets.join(id, "unit/"+unit)
			}
		}
	}
	for i := range pods {
		if f := t.frozen(&pods[i], r); f != nil {
			root := sets.root("pod/" + f.UID)
			hooked[root] = append(hooked[root], f)
		}
	}
	volumes := map[string][]*taking{}
	for _, v := range todo {
		root := sets.root("unit/" + v.unit())
		if hooked[root] == nil || v.err != nil {
			free = append(free, v)
			continue
		}
		volumes[root] = append(volumes[root], v)
	}
	for root, list := range hooked {
		slices.SortFunc(list, func(a, b *frozenPod) int { return cmp.Compare(a.String(), b.String()) })
		groups = append(groups, &freezeGroup{pods: list, volumes: volumes[root]})
	}
	slices.SortFunc(groups, func(a, b *freezeGroup) int { return cmp.Compare(a.pods[0].String(), b.pods[0].String()) })
	return groups, free
}

// frozen gives a pod with its commands; nil where it has none, or does not run.
func (t *Taker) frozen(p *hooks.Pod, r *Result) *frozenPod {
	f := &frozenPod{Pod: p, pre: t.Hooks.Of(p, hooks.Pre), post: t.Hooks.Of(p, hooks.Post)}
	switch {
	case len(f.pre)+len(f.post) == 0:
		return nil
	case !p.Running():
		r.mu.Lock()
		defer r.mu.Unlock()
		r.Skipped = append(r.Skipped, remark(p.Ref(), ReasonHookSkipped, "its hooks did not run: the pod is %s", cmp.Or(string(p.Phase), "not running")))
		return nil
	}
	return f
}

// union finds what hangs together.
type union struct{ parent map[string]string }

func newUnion() *union { return &union{parent: map[string]string{}} }

func (u *union) root(s string) string {
	root := s
	for u.parent[root] != "" {
		root = u.parent[root]
	}
	if root != s {
		u.parent[s] = root
	}
	return root
}

func (u *union) join(a, b string) {
	if a, b = u.root(a), u.root(b); a != b {
		u.parent[a] = b
	}
}
