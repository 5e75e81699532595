package backup

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
)

// probeParallel is how many revisions are read at once; each new connection costs the server more than the answer does.
const probeParallel = 8

// pin fixes the revision at which everything is read, and proves for which resources it is one.
//
// An API server's resources usually share one etcd, whose revision counts every change of any of them. So the revision of the anchor
// is read, then that of every resource, then the anchor's again: what lies between the two readings of the anchor
// has the same history, and the anchor's first revision is a state of all of them. What lies outside (an aggregated API,
// events in an etcd of their own) has another history and is read alone.
func (r *reading) pin(ctx context.Context) error {
	if err := r.firstReading(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(probeParallel)
	revisions := make([]string, len(r.targets))
	for i, t := range r.targets {
		g.Go(func() error {
			var err error
			revisions[i], err = r.probe(gctx, t)
			if err != nil && fatal(gctx, err) {
				return err
			}
			t.err = err
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	last, _, err := r.revisionOf(ctx, kube.ListRequest{Path: r.anchor.path})
	if err != nil {
		return fmt.Errorf("read the revision of %s again: %w", r.anchor.path, err)
	}
	r.revision = r.anchor.revision
	return r.judge(revisions, last)
}

// judge compares the revisions with the bracket.
func (r *reading) judge(revisions []string, last string) error {
	low, err := strconv.ParseUint(r.anchor.revision, 10, 64)
	if err != nil {
		return fmt.Errorf("read the revision of %s: %q is no number", r.anchor.path, r.anchor.revision)
	}
	high, err := strconv.ParseUint(last, 10, 64)
	if err != nil || high < low {
		return fmt.Errorf("read the revision of %s twice: first %s, then %q: the server's answers are not of one history; is there a load balancer before API servers that do not share an etcd?", r.anchor.path, r.anchor.revision, last)
	}
	for i, t := range r.targets {
		if t.err != nil {
			continue
		}
		at, err := strconv.ParseUint(revisions[i], 10, 64)
		t.alone = err != nil || at < low || at > high
		t.empty = t.empty && !t.alone && at == low
	}
	return nil
}

// firstReading finds an anchor where the definitions could not be read: the first built-in resource that can.
func (r *reading) firstReading(ctx context.Context) error {
	if r.anchor.revision != "" {
		return nil
	}
	var firstErr error
	for _, t := range slices.SortedStableFunc(slices.Values(r.targets), func(a, b *target) int { return cmp.Compare(anchorRank(a), anchorRank(b)) }) {
		for _, part := range r.parts(t) {
			revision, _, err := r.revisionOf(ctx, part.request)
			if err == nil {
				r.anchor = anchor{path: part.request.Path, revision: revision}
				return nil
			}
			if fatal(ctx, err) {
				return err
			}
			if firstErr == nil {
				firstErr = err
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrNothingRead, firstErr)
}

// anchorRank puts first what is asked for and surely built in: an aggregated API would be an anchor of its own history.
func anchorRank(t *target) int {
	rank := 0
	if t.take != selection.TakeMatching {
		rank++
	}
	if t.res.Group != "" && t.res.Group != "apps" {
		rank += 2
	}
	return rank
}

func (r *reading) revisionOf(ctx context.Context, req kube.ListRequest) (string, kube.ListMeta, error) {
	req.Limit, req.MaxPages = 1, 1
	meta, err := r.Kube.List(ctx, req, func([]byte) error { return nil })
	return meta.ResourceVersion, meta, err
}

// probe reads the revision of one resource, and learns about how many objects there are. Of a resource that is read namespace
// by namespace the first one that answers speaks for all.
func (r *reading) probe(ctx context.Context, t *target) (string, error) {
	parts := r.parts(t)
	var firstErr error
	for _, part := range parts {
		revision, meta, err := r.revisionOf(ctx, part.request)
		if err == nil {
			t.expected = int64(meta.Items) + meta.Remaining
			t.empty = t.expected == 0 && len(parts) == 1 && (t.res.Namespaced || part.request.LabelSelector == "")
			return revision, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if kube.Code(err) != http.StatusForbidden {
			break
		}
	}
	return "", firstErr
}
