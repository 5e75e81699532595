package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/volume/mover"
)

// Thaw undoes what an attempt at the backup has left that was cut off, for a backup that is not begun again: it runs the post hooks of pods in which pre
// hooks had run, and removes the Jobs of movers. The error names the pods whose hooks failed, and is a *volumes.FrozenError then.
func (e *Engine) Thaw(ctx context.Context, req Request) error {
	p, err := e.prepare(req)
	if err != nil {
		return fmt.Errorf("undo what hooks of %s did: %w", req.Name, err)
	}
	location, err := e.Open(ctx)
	if err != nil {
		return err
	}
	look := e.Look
	if look == nil {
		look = e.Kube
	}
	cluster, err := look.ClusterUID(ctx)
	if err != nil {
		return fmt.Errorf("undo what hooks of %s did: %w", req.Name, err)
	}
	result, err := p.thaw(ctx, location, cluster)
	if err != nil {
		return fmt.Errorf("undo what hooks of %s did: %w", req.Name, err)
	}
	// The next attempt would have done this first.
	if e.Mover != nil {
		err = e.Mover.Sweep(ctx, mover.Owner{Label: mover.LabelBackup, UID: req.UID})
	}
	return errors.Join(result.Frozen(), err)
}

// thaw runs the post hooks of pods in which an attempt at this backup had run pre hooks when it was killed. It is done first: an application may hold still
// since then.
func (p *pass) thaw(ctx context.Context, location *archive.Location, cluster string) (*volumes.Result, error) {
	result := &volumes.Result{}
	left, err := location.Freezes(ctx, p.req.Name, cluster)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		result.Warnings = append(result.Warnings, archive.Remark{Resource: "pods", Reason: volumes.ReasonHookFailed, Message: err.Error()})
	}
	if len(left) == 0 {
		return result, nil
	}
	wanted := map[string]bool{}
	for _, f := range left {
		for _, uid := range f.Pods {
			wanted[uid] = true
		}
	}
	pods, unseen, err := p.podsOf(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("find the pods in which an earlier attempt has run pre hooks: %w", err)
	}
	var flaws []string
	for _, f := range left { // whoever put the note may live
		if err := location.ThawFreeze(ctx, f); err != nil {
			flaws = append(flaws, err.Error())
		}
	}
	ran := p.taker().Thaw(ctx, pods)
	ran.Notes = append(ran.Notes, flaws...)
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), ran.Frozen()) // nobody knows which of them ran: the notes stay
	}
	ran.Warnings = append(ran.Warnings, result.Warnings...)
	switch n := len(wanted) - len(pods); {
	case n > 0 && unseen != nil:
		ran.Unseen(n, unseen)
	case n > 0:
		ran.Notes = append(ran.Notes, fmt.Sprintf("an earlier attempt was cut off when hooks had run in %d pods that do not run any more", n))
	}
	if !ran.Thawed() {
		return ran, nil // the notes stay, so that the next attempt tries again
	}
	var errs []error
	for _, f := range left {
		errs = append(errs, location.ForgetFreeze(ctx, f))
	}
	return ran, errors.Join(errs...)
}

// podsOf finds running pods by their uids: in the namespaces of the spec, and those that are not there in all others, since the spec may have been another
// one. Unseen is why somewhere nobody could look.
func (p *pass) podsOf(ctx context.Context, uids map[string]bool) (pods []hooks.Pod, unseen, err error) {
	found := map[string]hooks.Pod{}
	seen := map[string]bool{} // whether they run or not
	look := func(request kube.ListRequest) error {
		_, err := p.Kube.ListHeads(ctx, request, func(head *rawjson.Head, raw []byte, err error) error {
			if err != nil || !uids[head.UID] {
				return err
			}
			seen[head.UID] = true
			pod, err := hooks.ParsePod(raw)
			if err == nil && pod.Running() {
				found[pod.UID] = pod
			}
			return err
		})
		return err
	}
	var requests []kube.ListRequest
	if names, ok := p.matcher.LiteralNamespaces(); ok && len(names) <= fewNamespaces {
		requests = podLists(names, p.PageSize)
	}
	for _, request := range append(requests, podLists(nil, p.PageSize)...) {
		if len(seen) == len(uids) {
			return sortedPods(found), nil, nil
		}
		if unseen = look(request); unseen != nil && fatal(ctx, unseen) {
			return nil, nil, unseen
		}
	}
	return sortedPods(found), unseen, nil
}

func sortedPods(byUID map[string]hooks.Pod) []hooks.Pod {
	return slices.SortedFunc(maps.Values(byUID), func(a, b hooks.Pod) int { return cmp.Compare(a.String(), b.String()) })
}
