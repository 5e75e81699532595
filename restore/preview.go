package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// ChangeAction is what a restore would do with one object.
type ChangeAction string

// The actions of a preview.
const (
	// ActionCreate: the target would take the object; its server said so.
	ActionCreate ChangeAction = "Create"
	// ActionCreateUnchecked: the object would be created, but the server cannot be asked: Change.Reason says why.
	ActionCreateUnchecked ChangeAction = "CreateUnchecked"
	// ActionUnchanged: the target has the same object.
	ActionUnchanged ChangeAction = "Unchanged"
	// ActionUpdate: the target's object would change.
	ActionUpdate ChangeAction = "Update"
	// ActionRecreate: the target's object would be deleted and created again.
	ActionRecreate ChangeAction = "Recreate"
	// ActionSkip: the object is left out.
	ActionSkip ChangeAction = "Skip"
	// ActionRefused: the object would fail: Change.By says who refuses it.
	ActionRefused ChangeAction = "Refused"
)

// Reasons for ActionCreateUnchecked.
const (
	// NamespaceNotYet: the namespace is created by the same restore.
	NamespaceNotYet Reason = "NamespaceNotYet"
	// APINotYet: what serves the object's API is created by the same restore.
	APINotYet Reason = "APINotYet"
	// WebhookWithoutDryRun: an admission webhook of the target has side effects and does not support dry runs.
	WebhookWithoutDryRun Reason = "WebhookWithoutDryRun"
)

// Change is what a restore would do with one object.
type Change struct {
	Ref plugins.Ref `json:"ref"`
	// Target names the object in the target where that is another version, namespace or name.
	Target  *plugins.Ref `json:"target,omitempty"`
	Step    string       `json:"step,omitempty"`
	Action  ChangeAction `json:"action"`
	Reason  Reason       `json:"reason,omitempty"`
	By      string       `json:"by,omitempty"`
	Message string       `json:"message,omitempty"`
	// Diff is what an Update, or a Recreate, would change, and where a skipped object differs.
	Diff []Difference `json:"diff,omitempty"`
	// Remarks are what conversions, actions and transforms say about the object.
	Remarks []plugins.Remark `json:"remarks,omitempty"`
}

// PreviewSummary counts the changes of a preview.
type PreviewSummary struct {
	Counts map[ChangeAction]int `json:"counts"`
}

// Changes says whether the restore would write anything.
func (s *PreviewSummary) Changes() bool {
	c := s.Counts
	return c[ActionCreate]+c[ActionCreateUnchecked]+c[ActionUpdate]+c[ActionRecreate] > 0
}

// Refused is the number of objects that would fail.
func (s *PreviewSummary) Refused() int { return s.Counts[ActionRefused] }

// Preview says for each object of the plan what a run would do, by asking the target's server with dry runs. Nothing is changed.
// Fn is called from one goroutine at a time, in the order of the plan's steps, those left out last; its first error ends the preview.
func (e *Engine) Preview(ctx context.Context, p *Plan, fn func(Change) error) (*PreviewSummary, error) {
	x, err := e.newRun(p)
	if err != nil {
		return nil, err
	}
	x.prep.relink = x.relinkDry
	if err := x.check(ctx); err != nil {
		return nil, fmt.Errorf("preview restore %s: %w", p.Request.Name, err)
	}
	sum := &PreviewSummary{Counts: map[ChangeAction]int{}}
	emit := func(c Change) error {
		sum.Counts[c.Action]++
		return fn(c)
	}
	for n := range p.Steps {
		if err := x.previewStep(ctx, &p.Steps[n], emit); err != nil {
			return sum, fmt.Errorf("preview restore %s: %w", p.Request.Name, err)
		}
	}
	for i := range p.items {
		it := &p.items[i]
		if it.step >= 0 {
			continue
		}
		c := Change{Ref: p.ref(int32(i)), Action: ActionSkip, Reason: it.reason, Message: p.explain(int32(i))}
		if it.state == Failed {
			c.Action = ActionRefused
		}
		if err := emit(c); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// previewBatch bounds the changes that are held until they can be given in order.
const previewBatch = 256

func (x *run) previewStep(ctx context.Context, s *Step, emit func(Change) error) error {
	for items := range slices.Chunk(s.items, previewBatch) {
		place := make(map[int32]int, len(items))
		for n, i := range items {
			place[i] = n
		}
		changes := make([]Change, len(items))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(x.e.concurrency())
		err := x.plan.read(gctx, items, func(i int32, raw []byte) error {
			raw = slices.Clone(raw)
			g.Go(func() error {
				c, err := x.preview(gctx, i, raw)
				c.Step = s.Name()
				changes[place[i]] = c
				return err
			})
			return nil
		})
		if err := errors.Join(err, g.Wait()); err != nil {
			return err
		}
		for _, c := range changes {
			if err := emit(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// preview finds out what would become of one object. An error ends the preview: the target cannot be asked.
func (x *run) preview(ctx context.Context, i int32, raw []byte) (Change, error) {
	c := Change{Ref: x.plan.ref(i)}
	p, decision, err := x.prep.prepare(ctx, i, raw)
	var none *noTarget
	switch {
	case ctx.Err() != nil:
		return c, ctx.Err()
	case errors.As(err, &none):
		c.Action, c.Reason, c.Message = ActionRefused, none.reason, none.message
		return c, nil
	case err != nil:
		c.Action, c.Reason, c.Message = ActionRefused, Unprepared, err.Error()
		return c, nil //nolint:nilerr // it is what the change says
	case decision.Skip:
		c.Action, c.Reason, c.Message = ActionSkip, Reason(decision.Reason), decision.Message
		return c, nil
	}
	c.Remarks = p.remarks
	if p.to != p.from {
		c.Target = &p.to
	}
	if x.unchecked(&c, p) {
		return c, nil
	}
	if x.plan.items[i].flags&flagCompare != 0 {
		return x.previewDefault(ctx, c, p)
	}
	q := url.Values{"dryRun": {"All"}}
	maps.Copy(q, x.createQuery(p))
	_, err = x.e.Kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: p.collection(), Query: q, Body: p.body, Accept: metadataOnly, Idempotent: true})
	switch {
	case err == nil:
		c.Action = ActionCreate
	case isAlreadyExists(err):
		return x.previewExisting(ctx, c, p)
	default:
		return x.previewRefused(c, p, err)
	}
	return c, nil
}

// unchecked knows objects that the server cannot be asked about yet.
func (x *run) unchecked(c *Change, p *prepared) bool {
	if p.target.state == targetPending {
		c.Action, c.Reason, c.Message = ActionCreateUnchecked, APINotYet, "its API is made by this restore"
		return true
	}
	if p.to.Namespace == "" {
		return false
	}
	if deleting, live := x.plan.live[p.to.Namespace]; !live || deleting {
		c.Action, c.Reason, c.Message = ActionCreateUnchecked, NamespaceNotYet, "its namespace is made by this restore"
		return true
	}
	return false
}

// previewRefused tells a refusal from what only a dry run meets. A server that cannot be reached ends the preview.
func (x *run) previewRefused(c Change, p *prepared, err error) (Change, error) {
	if strings.Contains(err.Error(), noDryRun) {
		c.Action, c.Reason, c.Message = ActionCreateUnchecked, WebhookWithoutDryRun, err.Error()
		return c, nil
	}
	r := asRefusal(err, p.from.GroupResource(), p.to.Namespace)
	if r.wait == waitServer {
		return c, err
	}
	c.Action, c.Reason, c.By, c.Message = ActionRefused, r.reason, r.by, r.message
	return c, nil
}

func (x *run) previewDefault(ctx context.Context, c Change, p *prepared) (Change, error) {
	c.Action, c.Reason = ActionSkip, ServerManaged
	live, err := x.get(ctx, p.path())
	if err != nil || live == nil {
		return c, err
	}
	if c.Diff, err = p.differences(live); err == nil && len(c.Diff) > 0 {
		c.Reason = ServerManagedDiffers
	}
	c.Message = reasonTexts[c.Reason]
	return c, nil
}

// previewExisting says what the policy would do with an object that the target has.
func (x *run) previewExisting(ctx context.Context, c Change, p *prepared) (Change, error) {
	live, err := x.get(ctx, p.path())
	if err != nil {
		return x.previewRefused(c, p, err)
	}
	if live == nil || live.deleting {
		c.Action, c.Reason, c.Message = ActionCreateUnchecked, StillDeleting, "the target's object is being deleted"
		return c, nil
	}
	if x.plan.items[p.index].flags&flagHistory != 0 {
		c.Action, c.Reason, c.Message = ActionSkip, Remade, reasonTexts[Remade]
		return c, nil
	}
	if m := x.merger.Merger(p.to); m != nil {
		return x.previewMerge(ctx, c, p, live, m)
	}
	if x.rebindable(p, live) {
		c.Action, c.Reason, c.Message = ActionUpdate, Rebound, reasonTexts[Rebound]
		return c, nil
	}
	if c.Diff, err = p.differences(live); err != nil {
		c.Action, c.Reason, c.Message = ActionRefused, Unprepared, err.Error()
		return c, nil //nolint:nilerr // it is what the change says
	}
	message, inUse := p.inUse(live)
	switch policy := x.policy(p); {
	case policy == v1alpha1.PolicyFail:
		c.Action, c.Reason, c.Message = ActionRefused, ExistsFail, "the target has it already, and spec.existingResourcePolicy is Fail"
	case inUse:
		c.Action, c.Reason, c.Message = ActionSkip, VolumeInUse, message
	case len(c.Diff) == 0:
		c.Action, c.Reason = ActionUnchanged, Exists
	case policy == v1alpha1.PolicyUpdate:
		return x.previewUpdate(ctx, c, p, live)
	case policy == v1alpha1.PolicyRecreate:
		c.Action, c.Reason = ActionRecreate, ExistsDiffers
		switch x.plan.resources[x.plan.items[p.index].res].stage {
		case stageVolumes, stageClaims:
			c.Action, c.Reason, c.Message = ActionRefused, RecreateRefused, "deleting it could delete its data"
		default:
		}
	default:
		c.Action, c.Reason, c.Message = ActionSkip, ExistsDiffers, pathsOf(c.Diff)
	}
	return c, nil
}

func (x *run) previewMerge(ctx context.Context, c Change, p *prepared, live *liveObject, m plugins.Merger) (Change, error) {
	item := &plugins.Item{Ref: p.to}
	var before map[string]any
	err := errors.Join(utiljson.Unmarshal(p.body, &item.Object), utiljson.Unmarshal(live.raw, &before))
	changed := false
	if err == nil {
		changed, err = m.Merge(ctx, item, live.obj)
	}
	c.Remarks = append(c.Remarks, item.Remarks...)
	switch {
	case err != nil:
		c.Action, c.Reason, c.Message = ActionRefused, Unprepared, err.Error()
	case changed:
		c.Action, c.Reason = ActionUpdate, Merged
		d := comparison{}
		d.maps("", live.obj, before, false)
		c.Diff = d.diff
	default:
		c.Action, c.Reason = ActionUnchanged, Exists
	}
	return c, nil
}

// previewUpdate asks the server what the update would make of the live object, and compares.
func (x *run) previewUpdate(ctx context.Context, c Change, p *prepared, live *liveObject) (Change, error) {
	req := kube.Request{Method: http.MethodPatch, Path: p.path(), ContentType: "application/apply-patch+yaml", Idempotent: true, Body: p.body,
		Query: url.Values{"fieldManager": {x.manager}, "force": {"true"}, "dryRun": {"All"}}}
	if x.plan.Request.Spec.UpdateMode == v1alpha1.UpdateExact {
		body, err := p.exact(live)
		if err != nil {
			c.Action, c.Reason, c.Message = ActionRefused, Unprepared, err.Error()
			return c, nil //nolint:nilerr // it is what the change says
		}
		req = kube.Request{Method: http.MethodPut, Path: p.path(), Idempotent: true, Body: body,
			Query: url.Values{"fieldManager": {x.manager}, "dryRun": {"All"}}}
	}
	resp, err := x.e.Kube.Do(ctx, req)
	if err != nil {
		return x.previewRefused(c, p, err)
	}
	var after map[string]any
	if err := utiljson.Unmarshal(resp.Body, &after); err != nil {
		return c, fmt.Errorf("read the answer to a dry run: %w", err)
	}
	c.Action, c.Reason = ActionUpdate, ExistsDiffers
	c.Diff = changesBetween(live.obj, after, p.to.Group == "" && p.to.Resource == "secrets")
	if len(c.Diff) == 0 {
		c.Action, c.Reason = ActionUnchanged, Exists
	}
	return c, nil
}

// changesBetween lists all that an update changes but for what the server keeps books with.
func changesBetween(before, after map[string]any, secret bool) []Difference {
	for _, obj := range []map[string]any{before, after} {
		if meta, ok := obj["metadata"].(map[string]any); ok {
			delete(meta, "managedFields")
			delete(meta, "resourceVersion")
			delete(meta, "generation")
		}
	}
	d := comparison{secret: secret}
	d.maps("", after, before, false)
	gone := comparison{secret: secret}
	gone.maps("", before, after, false)
	seen := map[string]bool{}
	for _, e := range d.diff {
		seen[e.Path] = true
	}
	for _, e := range gone.diff {
		if !seen[e.Path] {
			d.diff = append(d.diff, Difference{Path: e.Path, Before: e.After, After: e.Before})
		}
	}
	return d.diff
}

// relinkDry points owner references at live objects where there are some. Owners that the restore has yet to create have no
// uid; theirs is left as it is, which a dry run accepts.
func (x *run) relinkDry(ctx context.Context, i int32, raw []byte, remark func(Reason, string)) ([]byte, error) {
	return x.relinkWith(raw, remark, x.plan.cycles[i], func(o *ownerReference) (bool, error) {
		if j, ok := x.plan.byUID[parseUID(o.UID)]; ok && j != i && x.plan.items[j].step >= 0 {
			return true, nil
		}
		return x.liveOwner(ctx, i, o)
	})
}
