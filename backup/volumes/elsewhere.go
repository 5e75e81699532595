package volumes

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// copiesToPlace is how many snapshots are copied to one place at once: as many as an account may have under way in a region ("Quotas for Amazon EBS").
const copiesToPlace = 20

// kept is a snapshot that the backup keeps, of whatever claims.
type kept struct {
	copier   plugins.SnapshotCopier
	snapshot string
	claims   []*taking
	copies   []archive.SnapshotCopy // by place; without an id where there is none
	errs     []error                // by place
}

// keeps says whether the backup keeps the volume's snapshot for itself, so that copies of it are wanted.
func (v *taking) keeps() bool { return v.err == nil && v.method.Snapshots() && v.snapshot.ID != "" }

// forElsewhere finds the snapshots to be copied to other places, and remarks on those that cannot be.
func forElsewhere(todo []*taking, places int, r *Result) (all []*kept) {
	byID := map[string]*kept{}
	for _, v := range todo {
		if places == 0 || !v.keeps() {
			continue
		}
		copier, ok := v.provider.(plugins.SnapshotCopier)
		if !ok {
			r.fail(v.claim, ReasonSnapshotCopyFailed, "%s copies no snapshots to other regions or accounts", v.provider.Name())
			continue
		}
		key := v.provider.Name() + "/" + v.snapshot.ID
		if byID[key] == nil {
			byID[key] = &kept{copier: copier, snapshot: v.snapshot.ID, copies: make([]archive.SnapshotCopy, places), errs: make([]error, places)}
			all = append(all, byID[key])
		}
		byID[key].claims = append(byID[key].claims, v)
		v.copiesElsewhere = true
	}
	return all
}

// copyElsewhere copies the snapshots to all places, each as far as the place takes them at once.
func (t *Taker) copyElsewhere(ctx context.Context, req Request, all []*kept) error {
	if len(all) == 0 {
		return nil
	}
	t.count.elsewhere(len(all) * len(req.Policies.copies))
	g, gctx := errgroup.WithContext(ctx)
	left := make(chan *kept, len(all)*len(req.Policies.copies))
	for i, place := range req.Policies.copies {
		g.Go(func() error {
			var inner errgroup.Group
			inner.SetLimit(copiesToPlace)
			for _, k := range all {
				inner.Go(func() error {
					copied := fmt.Sprintf("%s to %d", k.snapshot, i)
					k.copies[i], k.errs[i] = copyTo(gctx, req, k, place, func(percent int) { t.count.copyingElsewhere(copied, percent, false) })
					t.count.copyingElsewhere(copied, 100, true)
					left <- k
					return nil
				})
			}
			_ = inner.Wait() // nothing fails there
			return context.Cause(gctx)
		})
	}
	g.Go(func() error {
		open := map[*kept]int{}
		for range cap(left) {
			k := <-left
			if open[k]++; open[k] == len(req.Policies.copies) {
				t.count.done(k.claims...)
			}
		}
		return nil
	})
	return g.Wait()
}

// copyTo copies one snapshot to one place.
func copyTo(ctx context.Context, req Request, k *kept, to v1alpha1.SnapshotCopy, progress func(int)) (archive.SnapshotCopy, error) {
	if ctx.Err() != nil {
		return archive.SnapshotCopy{}, context.Cause(ctx)
	}
	place := placeOf(to)
	made, err := k.copier.CopySnapshot(ctx, plugins.SnapshotCopyRequest{
		Token:      fmt.Sprintf("%s/%s/%s/%s/%x", req.UID, req.Attempt, k.snapshot, place.Region, sha256.Sum256([]byte(place.RoleARN))),
		SnapshotID: k.snapshot, To: place, KMSKeyID: to.KMSKeyID, Progress: progress,
		Tags: map[string]string{
			TagLocation: req.LocationID, TagBackup: req.Name, TagUID: req.UID, TagAttempt: req.Attempt, TagCluster: req.ClusterUID, TagClaim: k.claims[0].claim.String(),
		},
	})
	if err != nil {
		return archive.SnapshotCopy{}, err
	}
	return archive.SnapshotCopy{ID: made.ID, Region: place.Region, Account: made.Account, KMSKeyID: made.KMSKeyID}, nil
}

// tellElsewhere gives the rows their copies, and remarks on those that could not be made.
func tellElsewhere(all []*kept, r *Result) (failed bool) {
	for _, k := range all {
		for _, v := range k.claims {
			for i, c := range k.copies {
				switch {
				case k.errs[i] != nil:
					failed = true
					if v.err == nil {
						r.fail(v.claim, ReasonSnapshotCopyFailed, "%v", k.errs[i])
					}
				default:
					v.elsewhere = append(v.elsewhere, c)
				}
			}
		}
	}
	return failed
}

// placesOf are where copies of a backup's snapshots go.
func placesOf(req Request) (places []plugins.Place) {
	for _, c := range req.Policies.copies {
		places = append(places, placeOf(c))
	}
	return places
}

// forgetElsewhere removes the copies that earlier attempts of this backup left. A place that cannot be asked is no reason to make none: the sweep of
// orphans finds them.
func (t *Taker) forgetElsewhere(ctx context.Context, req Request, r *Result) {
	for _, place := range placesOf(req) {
		there, err := Elsewhere(t.Providers, []plugins.Place{place})
		err = errors.Join(err, removeEarlier(ctx, there, req, removeIf))
		if err != nil && ctx.Err() == nil {
			r.note("whether an earlier attempt has left copies of snapshots in %s is not known: %v", place, err)
		}
	}
}
