package volumes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins/hooks"
)

// A post hook that may not have reached its container is run again, since a post hook undoes, which may be done twice: after a pause that
// doubles, until the pauses come to a patience.
const (
	postPause = 2 * time.Second
	longPause = 30 * time.Second
	// patience outlasts an API server that is started again or moves to another machine.
	patience = 5 * time.Minute
	// endPatience is for an attempt that was cancelled: whoever ended it waits, and the next one finds the note.
	endPatience = 14 * time.Second
	// idlePatience is for a pod that no pre hook is known to have reached: most likely its node is gone.
	idlePatience = 6 * time.Second
)

// failedPost is a post hook that failed, so that a pod may still hold still.
type failedPost struct {
	command *hooks.Command
	err     error
}

// FrozenError names pods that may hold still after the backup has let go of them: post hooks failed there, or are not known any more.
type FrozenError struct {
	// Hooks say which, where and why, without what the commands have written.
	Hooks []string
}

// maxFrozen bounds how many post hooks a message names.
const maxFrozen = 10

// Error names the post hooks, and says what to do.
func (e *FrozenError) Error() string {
	shown, more := e.Hooks, ""
	if n := len(shown) - maxFrozen; n > 0 {
		shown, more = shown[:maxFrozen], fmt.Sprintf("; and %d more", n)
	}
	return "pods may still be frozen, run their post hooks by hand with kubectl exec: " + strings.Join(shown, "; ") + more
}

// Thawed says that no post hook failed whose pre hook may have run.
func (r *Result) Thawed() bool { return len(r.frozen) == 0 }

// Frozen is a *FrozenError where post hooks failed whose pre hooks may have run; else nil.
func (r *Result) Frozen() error {
	if r.Thawed() {
		return nil
	}
	return &FrozenError{Hooks: r.frozen}
}

// owe notes a group with post hooks that failed.
func (r *Result) owe(g *freezeGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed = append(r.owed, g)
}

// settle is the end of an attempt, which fails with err or is about to be sealed: what post hooks did not reach is tried once more, and the others
// are told of. The error is err with the pods that may be frozen. An attempt is not sealed while a post hook is lost in a pod that a pre
// hook has reached: its note would say nothing any more, and the next attempt can run it.
func (t *Taker) settle(ctx context.Context, r *Result, err error) error {
	lost := false
	for _, g := range r.owed {
		if err == nil && g.again(ctx, t) {
			if ferr := g.forget(ctx); ferr != nil {
				r.note("%v", ferr)
			}
			continue
		}
		for _, p := range g.pods {
			lost = r.tell(p) || lost
		}
	}
	r.owed = nil
	if err != nil || lost {
		return errors.Join(err, r.Frozen())
	}
	return nil
}

// tell tells of the post hooks of a pod that failed, and says whether one is lost that has something to undo.
func (r *Result) tell(p *frozenPod) (lost bool) {
	for _, f := range p.failed {
		remedy := ""
		if p.held {
			remedy = ": the pod may still be frozen: run this command by hand with kubectl exec"
			r.frozen = append(r.frozen, hooks.Brief(f.err))
			lost = lost || p.froze && hooks.Lost(f.err)
		}
		r.hook(p.Pod, f.command.OnError, fmt.Errorf("post %w%s", f.err, remedy))
	}
	return lost
}

// thaw runs the post hooks of the pods whose turn had come, all of them whatever became of each, and says whether none failed. They have the time
// that each of them names, also when ctx is over.
func (g *freezeGroup) thaw(ctx context.Context, t *Taker) bool {
	g.each(func(p *frozenPod) {
		if len(p.pre) > 0 && !p.begun {
			return
		}
		for i := range p.post {
			if err := t.runPost(ctx, p, &p.post[i]); err != nil {
				p.failed = append(p.failed, failedPost{&p.post[i], err})
			}
		}
	})
	return g.thawed()
}

// again runs once more the post hooks that may not have reached their containers, and says whether none is left that failed.
func (g *freezeGroup) again(ctx context.Context, t *Taker) bool {
	g.each(func(p *frozenPod) {
		var left []failedPost
		for _, f := range p.failed {
			if hooks.Lost(f.err) {
				f.err = hooks.Run(ctx, t.Exec, p.Pod, f.command)
			}
			if f.err != nil {
				left = append(left, f)
			}
		}
		p.failed = left
	})
	return g.thawed()
}

func (g *freezeGroup) thawed() bool {
	for _, p := range g.pods {
		if len(p.failed) > 0 {
			return false
		}
	}
	return true
}

// runPost runs a post hook, again and again while it may not have reached its container. Its context lives on when ctx is over.
func (t *Taker) runPost(ctx context.Context, p *frozenPod, c *hooks.Command) error {
	own := context.WithoutCancel(ctx)
	err := hooks.Run(own, t.Exec, p.Pod, c)
	var waited time.Duration
	for pause := postPause; hooks.Lost(err) && !errors.Is(err, gate.ErrShut); pause = min(2*pause, longPause) {
		limit := patience
		switch {
		case !p.froze:
			limit = idlePatience
		case ctx.Err() != nil:
			limit = endPatience
		}
		if waited += pause; waited > limit || t.Sleep(own, pause) != nil {
			break
		}
		err = hooks.Run(own, t.Exec, p.Pod, c)
	}
	return err
}

// Thaw runs the post hooks of pods in which an attempt that was killed had begun. The result has what failed, and the pods that may still be frozen.
func (t *Taker) Thaw(ctx context.Context, pods []hooks.Pod) *Result {
	r := &Result{}
	group := &freezeGroup{}
	for i := range pods {
		p := &frozenPod{Pod: &pods[i], post: t.Hooks.Of(&pods[i], hooks.Post), held: true, froze: true}
		group.pods = append(group.pods, p)
	}
	group.thaw(ctx, t)
	for _, p := range group.pods {
		switch {
		case len(p.post) == 0:
			text := fmt.Sprintf("pod %s: an earlier attempt was cut off when hooks had run in it, and neither the spec nor its annotations have a post hook for it any more", p.Pod)
			r.frozen = append(r.frozen, text)
			r.hook(p.Pod, v1alpha1.HookFail, errors.New(text+": it may still be frozen: undo by hand what its pre hook did"))
		case len(p.failed) > 0:
			r.tell(p)
		default:
			r.note("an earlier attempt was cut off when hooks had run in pod %s: its post hooks were run", p.Pod)
		}
	}
	return r
}

// Unseen says of pods in which hooks had run that nobody could look for them everywhere.
func (r *Result) Unseen(pods int, why error) {
	text := fmt.Sprintf("an earlier attempt was cut off when hooks had run in %d pods that are not among those that could be listed: %v", pods, why)
	r.frozen = append(r.frozen, text)
	r.Errors = append(r.Errors, archive.Remark{Resource: "pods", Reason: ReasonHookFailed, Message: text + `: grant "list" on pods in all namespaces to the account that Kedge uses, or run their post hooks by hand`})
}
