package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
)

var podsResource = kube.Resource{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}

// hookPods finds the pods whose hooks run: those that the backup holds, and those that mount what it takes. They are looked for as they are now, since
// a pod of the pinned revision may be another one by now. Without a hint that there are hooks nobody is asked.
func (p *pass) hookPods(ctx context.Context, r *reading) ([]hooks.Pod, error) {
	mounted := map[string]bool{}
	if !p.policies.Nothing() {
		for id := range r.claims.byID {
			mounted[id] = true
		}
	}
	if p.hooks.Empty() && !r.hooked.Load() && len(mounted) == 0 {
		return nil, nil
	}
	holdsPods := slices.ContainsFunc(r.targets, func(t *target) bool {
		return t.res.Group == "" && t.res.Resource == "pods" && t.take == selection.TakeMatching
	})
	var out []hooks.Pod
	failed := false
	for _, request := range r.podLists(holdsPods, mounted) {
		_, err := p.Kube.ListHeads(ctx, request, func(head *rawjson.Head, raw []byte, err error) error {
			if err != nil || !p.matcher.Namespace(head.Namespace) || !hooks.Marked(raw) && !p.hooks.May(head.Namespace, head.Labels) {
				return err
			}
			pod, err := hooks.ParsePod(raw)
			if err != nil {
				return err
			}
			concerned, err := p.concerns(ctx, &pod, raw, holdsPods, mounted)
			if concerned {
				out = append(out, pod)
			}
			return err
		})
		if err != nil && fatal(ctx, err) {
			return nil, err
		}
		if err != nil {
			failed = true
			r.unlisted(request, err)
		}
	}
	if !failed {
		for _, name := range p.hooks.Idle(out) {
			r.remarks.add(SeverityWarning, archive.Remark{Resource: "pods", Reason: ReasonNoMatch, Message: fmt.Sprintf("spec.hooks: hook %q is for no pod that the backup holds, or whose volumes it takes", name)})
		}
	}
	return out, nil
}

// concerns says whether a pod mounts what is taken, or is held by the backup.
func (p *pass) concerns(ctx context.Context, pod *hooks.Pod, raw []byte, holdsPods bool, mounted map[string]bool) (bool, error) {
	if slices.ContainsFunc(pod.Claims, func(name string) bool { return mounted[pod.Namespace+"/"+name] }) {
		return true, nil
	}
	if !holdsPods {
		return false, nil
	}
	return p.holds(ctx, pod, raw)
}

// holds says whether the selection takes a pod.
func (p *pass) holds(ctx context.Context, pod *hooks.Pod, raw []byte) (bool, error) {
	if p.matcher.Item(pod.Ref(), pod.Labels) != selection.In {
		return false, nil
	}
	if !p.matcher.NeedsObject() {
		return true, nil
	}
	head, err := rawjson.ReadHead(raw)
	if err != nil {
		return false, err
	}
	whole, err := head.WithTypeMeta(nil, raw, "v1", "Pod")
	if err != nil {
		return false, err
	}
	takes, err := p.matcher.Object(ctx, whole)
	if err != nil && ctx.Err() == nil {
		return false, nil // the list of pods has told of it
	}
	return takes, err
}

// podLists are the lists in which pods with hooks may be: of each namespace by itself where they are few, which needs no right beyond them.
func (r *reading) podLists(all bool, mounted map[string]bool) []kube.ListRequest {
	if !all && len(mounted) == 0 {
		return nil // there are none
	}
	spaces := r.literal
	if spaces == nil && !all {
		found := map[string]bool{}
		for id := range mounted {
			namespace, _, _ := strings.Cut(id, "/")
			found[namespace] = true
		}
		if len(found) <= fewNamespaces {
			spaces = slices.Sorted(maps.Keys(found))
		}
	}
	return podLists(spaces, r.PageSize)
}

func podLists(spaces []string, pageSize int64) []kube.ListRequest {
	if spaces == nil {
		spaces = []string{""}
	}
	var out []kube.ListRequest
	for _, namespace := range spaces {
		out = append(out, kube.ListRequest{Path: podsResource.Path(namespace, ""), Limit: pageSize, MaxItem: maxItem})
	}
	return out
}

// unlisted says that pods could not be listed. It is an error where hooks are known to be among them.
func (r *reading) unlisted(request kube.ListRequest, err error) {
	severity := SeverityWarning
	if !r.hooks.Empty() || r.hooked.Load() {
		severity = SeverityError
	}
	r.remarks.add(severity, archive.Remark{
		Resource: "pods", Reason: volumes.ReasonHookFailed,
		Message: fmt.Sprintf("no hooks ran: list %s: %v: grant \"list\" on pods to the account that Kedge uses", request.Path, err),
	})
}
