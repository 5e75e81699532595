package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

// liveObject is an object that the target has.
type liveObject struct {
	raw      []byte
	obj      map[string]any
	uid      uid
	version  string // resourceVersion
	created  time.Time
	deleting bool
	managers []string
}

// get reads an object of the target; nil where there is none.
func (x *run) get(ctx context.Context, path string) (*liveObject, error) {
	resp, err := x.e.Kube.Do(ctx, kube.Request{Path: path})
	if kube.Code(err) == http.StatusNotFound {
		return nil, nil //nolint:nilnil // that there is none is no error here
	}
	if err != nil {
		return nil, err
	}
	return readLive(resp.Body)
}

func readLive(raw []byte) (*liveObject, error) {
	head, err := rawjson.ReadHead(raw)
	if err != nil {
		return nil, err
	}
	l := &liveObject{raw: raw, uid: parseUID(head.UID), version: head.ResourceVersion, deleting: head.Deleting}
	if l.created, err = time.Parse(time.RFC3339, head.CreationTimestamp); err != nil {
		l.created = time.Time{}
	}
	if err := utiljson.Unmarshal(raw, &l.obj); err != nil {
		return nil, err
	}
	meta, _ := l.obj["metadata"].(map[string]any)
	fields, _ := meta["managedFields"].([]any)
	for _, f := range fields {
		if m, ok := f.(map[string]any); ok {
			name, _ := m["manager"].(string)
			l.managers = append(l.managers, name)
		}
	}
	return l, nil
}

// existing handles an object that the target has already. MayBeOurs says that an earlier try, of which nothing is known, may have
// created it. It says true where the create is to be tried again, because the object is gone; that and nothing else leaves the object
// without an outcome.
func (x *run) existing(ctx context.Context, p *prepared, mayBeOurs bool) (again bool, err error) {
	live, err := x.get(ctx, p.path())
	switch {
	case ctx.Err() != nil:
		return false, nil //nolint:nilerr // a cancelled run leaves the object for the next one
	case err != nil:
		return false, x.refused(ctx, p.index, err)
	case live == nil:
		return true, nil
	case live.deleting:
		r := refusal{reason: StillDeleting, message: "the target's object is being deleted", wait: "deletion " + p.path()}
		if p.to.Group == "" && p.to.Resource == "namespaces" {
			r = refusal{reason: NamespaceTerminating, message: "namespace " + p.to.Name + " is being deleted in the target: " +
				"find out what keeps it (kubectl get namespace " + p.to.Name + " -o yaml)", wait: waitNamespace(p.to.Name)}
		}
		return false, x.park(ctx, p.index, r)
	case mayBeOurs && x.ours(live):
		return false, x.follow(ctx, p, result{outcome: Created, uid: live.uid})
	}
	if x.plan.items[p.index].flags&flagHistory != 0 {
		return false, x.finishPrepared(ctx, p, result{outcome: Skipped, reason: Remade, uid: live.uid})
	}
	if m := x.merger.Merger(p.to); m != nil {
		return false, x.merge(ctx, p, live, m)
	}
	if x.rebindable(p, live) {
		return false, x.rebind(ctx, p, live)
	}
	return x.byPolicy(ctx, p, live)
}

// byPolicy does what the policy for existing objects says.
func (x *run) byPolicy(ctx context.Context, p *prepared, live *liveObject) (again bool, err error) {
	if x.plan.items[p.index].flags&flagMade != 0 {
		return false, x.finishPrepared(ctx, p, result{outcome: Unchanged, reason: Exists, uid: live.uid})
	}
	policy := x.policy(p)
	if policy == v1alpha1.PolicyFail {
		return false, x.finishPrepared(ctx, p, result{outcome: Failed, reason: ExistsFail, uid: live.uid,
			message: "the target has it already, and spec.existingResourcePolicy is Fail"})
	}
	if message, ok := p.inUse(live); ok {
		return false, x.finishPrepared(ctx, p, result{outcome: Skipped, reason: VolumeInUse, uid: live.uid, message: message})
	}
	diff, err := p.differences(live)
	if err != nil {
		return false, x.finishPrepared(ctx, p, result{outcome: Failed, reason: Unprepared, uid: live.uid, message: err.Error()})
	}
	if len(diff) == 0 {
		return false, x.finishPrepared(ctx, p, result{outcome: Unchanged, reason: Exists, uid: live.uid})
	}
	switch policy {
	case v1alpha1.PolicyUpdate:
		return false, x.update(ctx, p, live)
	case v1alpha1.PolicyRecreate:
		return x.recreate(ctx, p, live)
	case v1alpha1.PolicySkip, v1alpha1.PolicyFail:
	}
	return false, x.finishPrepared(ctx, p, result{outcome: Skipped, reason: ExistsDiffers, uid: live.uid, message: pathsOf(diff)})
}

// policy is the policy for one object. What must not be deleted is updated instead: a namespace or a definition would take
// everything in it or of it along.
func (x *run) policy(p *prepared) v1alpha1.ExistingResourcePolicy {
	policy := x.plan.Request.Spec.ExistingResourcePolicy
	if x.plan.items[p.index].flags&flagKept != 0 {
		return v1alpha1.PolicySkip
	}
	if policy == v1alpha1.PolicyRecreate {
		switch x.plan.resources[x.plan.items[p.index].res].stage {
		case stageNamespaces, stageCRDs:
			return v1alpha1.PolicyUpdate
		default:
		}
	}
	return policy
}

// merge adds what the archived object has to the target's.
func (x *run) merge(ctx context.Context, p *prepared, live *liveObject, m plugins.Merger) error {
	for range 5 {
		item := &plugins.Item{Ref: p.to}
		if err := utiljson.Unmarshal(p.body, &item.Object); err != nil {
			return x.finish(ctx, p.index, result{outcome: Failed, reason: Unprepared, message: err.Error()})
		}
		changed, err := m.Merge(ctx, item, live.obj)
		p.remarks = append(p.remarks, item.Remarks...)
		if err != nil {
			return x.finishPrepared(ctx, p, result{outcome: Failed, reason: Unprepared, uid: live.uid, message: err.Error()})
		}
		if !changed {
			return x.finishPrepared(ctx, p, result{outcome: Unchanged, reason: Exists, uid: live.uid})
		}
		body, err := json.Marshal(live.obj)
		if err != nil {
			return x.finish(ctx, p.index, result{outcome: Failed, reason: Unprepared, message: err.Error()})
		}
		_, err = x.e.Kube.Do(ctx, kube.Request{Method: http.MethodPut, Path: p.path(), Query: x.query, Body: body, Accept: metadataOnly})
		if err == nil {
			return x.finishPrepared(ctx, p, result{outcome: Updated, reason: Merged, uid: live.uid})
		}
		if kube.Code(err) != http.StatusConflict {
			return x.refused(ctx, p.index, err)
		}
		if live, err = x.get(ctx, p.path()); err != nil || live == nil {
			break
		}
	}
	return x.refusedConflict(ctx, p)
}

func (x *run) refusedConflict(ctx context.Context, p *prepared) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one
	}
	return x.finishPrepared(ctx, p, result{outcome: Failed, reason: Conflict, message: "the target's object changed again and again while it was updated"})
}

// update changes the target's object.
func (x *run) update(ctx context.Context, p *prepared, live *liveObject) error {
	if x.plan.Request.Spec.UpdateMode == v1alpha1.UpdateMerge {
		req := kube.Request{
			Method: http.MethodPatch, Path: p.path(), Query: url.Values{"fieldManager": {x.manager}, "force": {"true"}},
			Body: p.body, ContentType: "application/apply-patch+yaml", Accept: metadataOnly, Idempotent: true,
		}
		return x.afterUpdate(ctx, p, live, req)
	}
	for range 5 {
		body, err := p.exact(live)
		if err != nil {
			return x.finishPrepared(ctx, p, result{outcome: Failed, reason: Unprepared, uid: live.uid, message: err.Error()})
		}
		req := kube.Request{Method: http.MethodPut, Path: p.path(), Query: x.query, Body: body, Accept: metadataOnly}
		err = x.afterUpdate(ctx, p, live, req)
		if kube.Code(err) != http.StatusConflict {
			return err
		}
		if live, err = x.get(ctx, p.path()); err != nil || live == nil {
			break
		}
	}
	return x.refusedConflict(ctx, p)
}

// afterUpdate sends an update and notes its outcome. It returns the error of a conflict as it is.
func (x *run) afterUpdate(ctx context.Context, p *prepared, live *liveObject, req kube.Request) error {
	resp, err := x.e.Kube.Do(ctx, req)
	if err != nil {
		if req.Method == http.MethodPut && kube.Code(err) == http.StatusConflict {
			return err
		}
		return x.refused(ctx, p.index, err)
	}
	head, err := rawjson.ReadHead(resp.Body)
	if err != nil {
		return x.finishPrepared(ctx, p, result{outcome: Failed, reason: ServerError, uid: live.uid, message: err.Error()})
	}
	p.remarks = append(p.remarks, warningsOf(resp.Header)...)
	if x.restoresStatus(p) {
		if err := x.putStatus(ctx, p); err != nil {
			p.remarks = append(p.remarks, plugins.Remark{Reason: string(StatusNotRestored), Message: err.Error()})
		}
	}
	if head.ResourceVersion == live.version {
		return x.finishPrepared(ctx, p, result{outcome: Unchanged, reason: Exists, uid: live.uid})
	}
	return x.finishPrepared(ctx, p, result{outcome: Updated, reason: ExistsDiffers, uid: live.uid})
}

// recreate deletes the target's object, so that the create can be tried again. Owners of pods go after what they own, so that
// nothing of the old is left when the new one comes.
func (x *run) recreate(ctx context.Context, p *prepared, live *liveObject) (again bool, err error) {
	switch x.plan.resources[x.plan.items[p.index].res].stage {
	case stageVolumes, stageClaims:
		return false, x.finishPrepared(ctx, p, result{outcome: Failed, reason: RecreateRefused, uid: live.uid,
			message: "deleting it could delete its data: delete it yourself, or restore it with another policy"})
	default:
	}
	propagation := "Background"
	if x.plan.resources[x.plan.items[p.index].res].stage == stageWorkloads {
		propagation = "Foreground"
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation, "preconditions": map[string]any{"uid": live.uid.String()},
	})
	if err != nil {
		return false, err
	}
	_, err = x.e.Kube.Do(ctx, kube.Request{Method: http.MethodDelete, Path: p.path(), Body: body, Accept: metadataOnly})
	switch code := kube.Code(err); {
	case err == nil || code == http.StatusNotFound || code == http.StatusConflict:
		return true, nil
	default:
		return false, x.refused(ctx, p.index, err)
	}
}

// compareDefault looks at an object that every server makes itself, and changes nothing.
func (x *run) compareDefault(ctx context.Context, p *prepared) error {
	live, err := x.get(ctx, p.path())
	if err != nil {
		return x.refused(ctx, p.index, err)
	}
	if live == nil {
		return x.finish(ctx, p.index, result{outcome: Skipped, reason: ServerManaged, message: "the target's server does not make it"})
	}
	diff, err := p.differences(live)
	if err != nil || len(diff) == 0 {
		return x.finish(ctx, p.index, result{outcome: Skipped, reason: ServerManaged, uid: live.uid})
	}
	return x.finish(ctx, p.index, result{outcome: Skipped, reason: ServerManagedDiffers, uid: live.uid, message: pathsOf(diff)})
}

// pathsOf names where two objects differ, without values.
func pathsOf(diff []Difference) string {
	const most = 8
	var b strings.Builder
	for n, d := range diff {
		if n == most {
			fmt.Fprintf(&b, " and %d more", len(diff)-most)
			break
		}
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(d.Path)
	}
	return "differs at " + b.String()
}
