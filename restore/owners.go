package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

// ownerReference is an entry of metadata.ownerReferences (meta/v1 OwnerReference).
type ownerReference struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	Name               string `json:"name"`
	UID                string `json:"uid"`
	Controller         *bool  `json:"controller,omitempty"`
	BlockOwnerDeletion *bool  `json:"blockOwnerDeletion,omitempty"`
}

// relink points the owner references of item i at the objects that took the place of its owners. One whose owner is neither
// restored nor live is left out: the garbage collector deletes objects whose owners do not exist.
func (x *run) relink(ctx context.Context, i int32, raw []byte, remark func(Reason, string)) ([]byte, error) {
	return x.relinkWith(raw, remark, x.plan.cycles[i], func(o *ownerReference) (bool, error) { return x.owner(ctx, i, o) })
}

func (x *run) relinkWith(raw []byte, remark func(Reason, string), cycle bool, find func(*ownerReference) (bool, error)) ([]byte, error) {
	var refs []ownerReference
	if err := json.Unmarshal(raw, &refs); err != nil {
		return nil, fmt.Errorf("read its owner references: %w", err)
	}
	kept := refs[:0]
	for _, o := range refs {
		found, err := find(&o)
		if err != nil {
			return nil, err
		}
		if found {
			kept = append(kept, o)
			continue
		}
		reason := OwnerDropped
		if cycle {
			reason = OwnerCycle
		}
		remark(reason, fmt.Sprintf("its owner %s %s is neither restored nor in the target; the reference is left out", o.Kind, o.Name))
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return json.Marshal(kept)
}

// owner brings one reference up to date. It says false where there is no such object.
func (x *run) owner(ctx context.Context, i int32, o *ownerReference) (bool, error) {
	if j, ok := x.plan.byUID[parseUID(o.UID)]; ok && j != i {
		x.mu.Lock()
		it := x.plan.items[j]
		x.mu.Unlock()
		t := x.target(it.res)
		if it.newUID != (uid{}) {
			o.UID = it.newUID.String()
			if t.Version != "" {
				o.APIVersion = t.APIVersion()
			}
			return true, nil
		}
		if it.flags&flagParked != 0 {
			return false, &ownerWaits{j}
		}
	}
	return x.liveOwner(ctx, i, o)
}

// liveOwner looks for an owner that is no part of the restore by its name.
func (x *run) liveOwner(ctx context.Context, i int32, o *ownerReference) (bool, error) {
	group, version, err := plugins.SplitAPIVersion(o.APIVersion)
	if err != nil {
		return false, nil //nolint:nilerr // a reference that names no API has no owner
	}
	r, ok := x.plan.discovery.FindKind(group, version, o.Kind)
	if !ok {
		if r, ok = x.anyVersion(group, o.Kind); !ok {
			return false, nil
		}
	}
	namespace := ""
	if r.Namespaced {
		namespace = x.plan.mapped[x.plan.items[i].ns]
	}
	path := r.Path(namespace, o.Name)
	found, ok := x.liveOwners.Load(path)
	if !ok {
		if found, err = x.uidOf(ctx, path); err != nil {
			return false, err
		}
		x.liveOwners.Store(path, found)
	}
	id, _ := found.(string)
	o.UID, o.APIVersion = id, r.APIVersion()
	return id != "", nil
}

func (x *run) anyVersion(group, kind string) (kube.Resource, bool) {
	for _, r := range x.plan.discovery.Resources {
		if r.Group == group && r.Kind == kind {
			return r, true
		}
	}
	return kube.Resource{}, false
}

// uidOf gives the uid of the object at a path; "" where there is none, or one that is being deleted.
func (x *run) uidOf(ctx context.Context, path string) (string, error) {
	resp, err := x.e.Kube.Do(ctx, kube.Request{Path: path, Accept: metadataOnly})
	if kube.Code(err) == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for its owner: %w", err)
	}
	head, err := rawjson.ReadHead(resp.Body)
	if err != nil || head.Deleting {
		return "", err
	}
	return head.UID, nil
}
