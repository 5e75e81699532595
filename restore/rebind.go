package restore

import (
	"context"
	"encoding/json"
	"net/http"

	"kedge.dev/kedge/internal/kube"
)

// A volume with reclaim policy Retain outlives its claim: it stays in the target as Released, with the uid of the claim that is gone,
// and no new claim gets it ("Persistent Volumes: Reclaiming", Kubernetes documentation). When a restore brings that claim back, the
// volume is handed over to it, whatever the policy for existing objects is: the claim would wait for ever beside its own data.

// rebindable says whether the target's volume waits for a claim that is part of this restore.
func (x *run) rebindable(p *prepared, live *liveObject) bool {
	if p.to.Group != "" || p.to.Resource != "persistentvolumes" {
		return false
	}
	var has, wants struct {
		Spec struct {
			ClaimRef struct{ Namespace, Name, UID string }
		}
		Status struct{ Phase string }
	}
	if json.Unmarshal(live.raw, &has) != nil || json.Unmarshal(p.body, &wants) != nil {
		return false
	}
	old, claim := has.Spec.ClaimRef, wants.Spec.ClaimRef
	return has.Status.Phase == "Released" && old.UID != "" && claim.Name != "" &&
		old.Namespace == claim.Namespace && old.Name == claim.Name && x.bringsClaim(claim.Namespace+"/"+claim.Name)
}

// bringsClaim says whether a claim of that "namespace/name" in the target is part of the restore.
func (x *run) bringsClaim(key string) bool {
	x.claimsOnce.Do(func() {
		x.claims = map[string]bool{}
		for i := range x.plan.items {
			it := &x.plan.items[i]
			if r := &x.plan.resources[it.res]; it.step < 0 || r.Group != "" || r.Resource != "persistentvolumeclaims" {
				continue
			}
			to := x.plan.pipeline.Ref(x.plan.ref(int32(i)))
			x.claims[to.Namespace+"/"+to.Name] = true
		}
	})
	return x.claims[key]
}

// rebind takes the uid of the claim that is gone out of the volume, so that the restored claim of that name binds to it.
func (x *run) rebind(ctx context.Context, p *prepared, live *liveObject) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": live.version},
		"spec":     map[string]any{"claimRef": map[string]any{"uid": nil, "resourceVersion": nil}},
	})
	if err != nil {
		return err
	}
	_, err = x.e.Kube.Do(ctx, kube.Request{
		Method: http.MethodPatch, Path: p.path(), Query: x.query, Body: body, ContentType: "application/merge-patch+json", Accept: metadataOnly,
	})
	if err != nil {
		return x.refused(ctx, p.index, err)
	}
	return x.finishPrepared(ctx, p, result{outcome: Updated, reason: Rebound, uid: live.uid, message: "it was released by a claim that is gone; the restored claim gets it"})
}
