package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/clock"
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

// taker is what takes the data of this pass.
func (p *pass) taker() *volumes.Taker {
	return &volumes.Taker{
		Kube: p.Kube, Providers: p.Providers, Unconfigured: p.Unconfigured, Repository: p.Repository, Mover: p.Mover, Now: p.Now, Sleep: clock.Sleep,
		Progress: p.progress.volumes,
		Hooks:    p.hooks, Exec: p.Exec,
	}
}

// takeVolumes takes the data of the claims that were read, with the hooks of pods around it, and remarks on what it could not take.
func (p *pass) takeVolumes(ctx context.Context, r *reading, location string, w *archive.Writer, began time.Time) (*volumes.Result, error) {
	pods, err := p.hookPods(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("find the pods that have hooks: %w", err)
	}
	if !p.policies.Nothing() || len(pods) > 0 {
		p.progress.stage(StageVolumes)
	}
	taker := p.taker()
	taker.Freeze = func(ctx context.Context, uids []string) (volumes.Note, error) {
		return w.Freeze(ctx, archive.Freeze{Cluster: r.cluster.UID, Pods: uids})
	}
	result, err := taker.Take(ctx, volumes.Request{
		LocationID: location, Name: p.req.Name, UID: p.req.UID, Attempt: w.Attempt(), Began: began, ClusterUID: r.cluster.UID,
		Claims: r.claims.sorted(), Policies: p.policies, Pods: pods,
	})
	if p.asked = taker.Asked(); len(p.asked) > 0 {
		p.attempt = w.Attempt()
	}
	if err != nil {
		return nil, fmt.Errorf("take the data of volumes: %w", err)
	}
	r.remarks.take(result)
	return result, nil
}

// take adds what the taking of volumes has to say.
func (r *remarks) take(result *volumes.Result) {
	for _, m := range result.Errors {
		r.add(SeverityError, m)
	}
	for _, m := range result.Warnings {
		r.add(SeverityWarning, m)
	}
	for _, m := range result.Skipped {
		r.add(SeveritySkipped, m)
	}
	for _, note := range result.Notes {
		r.note("%s", note)
	}
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
	there, err := volumes.Elsewhere(p.asked, volumes.Places(p.req.Spec.Volumes))
	err = errors.Join(err, volumes.Remove(ctx, slices.Concat(there, p.asked), map[string]string{volumes.TagAttempt: p.attempt, volumes.TagLocation: location}))
	if err != nil {
		return fmt.Errorf("remove the snapshots of the backup that failed (they have the tag %s=%s): %w", volumes.TagAttempt, p.attempt, err)
	}
	return nil
}
