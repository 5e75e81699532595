package backup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
)

// claims are those that the backup holds, by "namespace/name": a list that is read again gives each once.
type claims struct {
	mu   sync.Mutex
	byID map[string]volumes.Claim
}

func (c *claims) add(raw []byte) error {
	claim, err := volumes.ParseClaim(raw)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = map[string]volumes.Claim{}
	}
	c.byID[claim.String()] = claim
	return nil
}

func (c *claims) sorted() []volumes.Claim {
	return slices.SortedFunc(maps.Values(c.byID), func(a, b volumes.Claim) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// takeVolumes takes the data of the claims that were read, and remarks on what it could not take.
func (p *pass) takeVolumes(ctx context.Context, r *reading, location, attempt string, began time.Time) ([]archive.Volume, error) {
	taker := &volumes.Taker{
		Kube: p.Kube, Providers: p.Providers, Unconfigured: p.Unconfigured, Repository: p.Repository, Mover: p.Mover, Now: p.Now, Sleep: sleep,
		Progress: func(done, total int) { p.progress.volumes(done, total) },
	}
	if !p.policies.Nothing() {
		p.progress.stage(StageVolumes)
	}
	result, err := taker.Take(ctx, volumes.Request{
		LocationID: location, Name: p.req.Name, UID: p.req.UID, Attempt: attempt, Began: began, ClusterUID: r.cluster.UID, Claims: r.claims.sorted(), Policies: p.policies,
	})
	if taker.Asked() {
		p.attempt = attempt
	}
	if err != nil {
		return nil, fmt.Errorf("take the data of volumes: %w", err)
	}
	for _, m := range result.Errors {
		r.remarks.add(SeverityError, m)
	}
	for _, m := range result.Skipped {
		r.remarks.add(SeveritySkipped, m)
	}
	for _, note := range result.Notes {
		r.remarks.note("%s", note)
	}
	return result.Volumes, nil
}

// discardTime bounds what a failed or cancelled backup still does to remove its snapshots; those that stay are found by their tags.
const discardTime = time.Minute

// discardVolumes removes the snapshots of a backup that did not come about.
func (p *pass) discardVolumes(ctx context.Context, location string) error {
	if p.attempt == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	err := volumes.Remove(ctx, p.Providers, map[string]string{volumes.TagAttempt: p.attempt, volumes.TagLocation: location})
	if err != nil {
		return fmt.Errorf("remove the snapshots of the backup that failed (they have the tag %s=%s): %w", volumes.TagAttempt, p.attempt, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
