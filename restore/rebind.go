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

// claimRef is whom a volume is for; without a name, nobody.
type claimRef struct{ Namespace, Name, UID string }

func (c claimRef) key() string { return c.Namespace + "/" + c.Name }

// readClaimRef reads whom a volume is for, and its phase.
func readClaimRef(raw []byte) (ref claimRef, phase string, err error) {
	var volume struct {
		Spec   struct{ ClaimRef claimRef }
		Status struct{ Phase string }
	}
	err = json.Unmarshal(raw, &volume)
	return volume.Spec.ClaimRef, volume.Status.Phase, err
}

// claimRefs reads for whom the target's volume is and for whom the archived one. It says false where one is for nobody, and of objects
// that are no volumes.
func (p *prepared) claimRefs(live *liveObject) (has, wants claimRef, phase string, ok bool) {
	if p.to.Group != "" || p.to.Resource != "persistentvolumes" {
		return has, wants, "", false
	}
	has, phase, err := readClaimRef(live.raw)
	if err != nil {
		return has, wants, "", false
	}
	if wants, _, err = readClaimRef(p.body); err != nil {
		return has, wants, "", false
	}
	return has, wants, phase, has.Name != "" && wants.Name != ""
}

// rebindable says whether the target's volume waits for a claim that is part of this restore.
func (x *run) rebindable(p *prepared, live *liveObject) bool {
	old, claim, phase, ok := p.claimRefs(live)
	return ok && phase == "Released" && old.UID != "" && old.key() == claim.key() && x.bringsClaim(claim.key())
}

// inUse says whose the target's volume is where it is another claim's than the archived one. A claim whose volume names another is lost,
// for good (Kubernetes' volume controller, "ClaimMisbound"), so such a volume is never updated.
func (p *prepared) inUse(live *liveObject) (message string, ok bool) {
	has, wants, _, ok := p.claimRefs(live)
	if !ok || has.key() == wants.key() && (has.UID == wants.UID || has.UID == "" || wants.UID == "") {
		return "", false
	}
	return "the target's volume is for the claim " + has.key() + ", which would lose it", true
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
