package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
)

// probeParallel is how many revisions are read at once; each new connection costs the server more than the answer does.
const probeParallel = 8

// bracket is the two readings of the anchor and what lies between them.
//
// An API server's resources usually share one etcd, whose revision counts every change of any of them. So the revision of the anchor
// is read, then that of every resource, then the anchor's again: what lies between the two readings of the anchor
// has the same history, and the anchor's first revision is a state of all of them. What lies outside (an aggregated API,
// events in an etcd of their own) has another history and is read alone.
type bracket struct {
	low    uint64
	high   uint64        // valid when closed
	closed chan struct{} // the second reading is done
}

func (r *reading) openBracket() error {
	low, err := strconv.ParseUint(r.anchor.revision, 10, 64)
	if err != nil {
		return fmt.Errorf("read the revision of %s: %q is no number", r.anchor.path, r.anchor.revision)
	}
	r.revision = r.anchor.revision
	r.bracket = &bracket{low: low, closed: make(chan struct{})}
	return nil
}

// closeBracket reads the anchor's revision again, after all probes.
func (r *reading) closeBracket(ctx context.Context) error {
	last, _, err := r.revisionOf(ctx, kube.ListRequest{Path: r.anchor.path})
	if err != nil {
		return fmt.Errorf("read the revision of %s again: %w", r.anchor.path, err)
	}
	high, err := strconv.ParseUint(last, 10, 64)
	if err != nil || high < r.bracket.low {
		return fmt.Errorf("read the revision of %s twice: first %s, then %q: the server's answers are not of one history; is there a load balancer before API servers that do not share an etcd?", r.anchor.path, r.anchor.revision, last)
	}
	r.bracket.high = high
	close(r.bracket.closed)
	return nil
}

// outside says, once the bracket is closed, whether the target turned out to have another history.
func (r *reading) outside(ctx context.Context, t *target) (bool, error) {
	select {
	case <-r.bracket.closed:
		return !t.alone && t.revision > r.bracket.high, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// pinAndList reads each target's revision, and its objects at the pinned revision as soon as that is done; the bracket is closed
// meanwhile, and what proves to lie outside it is read again, alone.
func (r *reading) pinAndList(ctx context.Context) error {
	if err := r.openBracket(); err != nil {
		return err
	}
	r.progress.begin(r.targets)
	lists := newTurnstile(cmp.Or(r.Concurrency, defaultConcurrency()))
	probes := newTurnstile(probeParallel)
	var probing sync.WaitGroup
	probing.Add(len(r.targets))
	g, ctx := errgroup.WithContext(ctx)
	for i, t := range r.targets {
		g.Go(func() error {
			err := r.probeInTurn(ctx, t, probes, promise(t)-i)
			probing.Done()
			if err != nil || t.take != selection.TakeMatching {
				return err
			}
			return r.listInTurn(ctx, t, lists)
		})
	}
	g.Go(func() error {
		probing.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.progress.stage(StageList)
		return r.closeBracket(ctx)
	})
	g.Go(func() error { return r.checkNamespaces(ctx) })
	return g.Wait()
}

// large are the resources of which clusters have most: their lists should begin first.
var large = []string{"configmaps", "secrets", "pods", "events", "replicasets.apps", "deployments.apps", "endpointslices.discovery.k8s.io", "services", "endpoints", "serviceaccounts"}

// promise ranks targets for the order of the probes: the large built-in resources, custom resources, the rest.
func promise(t *target) int {
	const step = 1 << 20
	if i := slices.Index(large, t.res.GroupResource()); i >= 0 {
		return step * (2 + len(large) - i)
	}
	if mayBeCustom(t.res.Group) {
		return step
	}
	return 0
}

func (r *reading) probeInTurn(ctx context.Context, t *target, turn *turnstile, weight int) error {
	if err := turn.enter(ctx, int64(weight)); err != nil {
		return err
	}
	defer turn.leave()
	revision, err := r.probe(ctx, t)
	if err != nil {
		t.err = err
		// No revision was asked for. That it is gone (410) says the server of this resource alone; that it is not there yet says one that is too slow.
		if fatal(ctx, err) || errors.Is(err, kube.ErrRevisionGone) && kube.Code(err) != http.StatusGone {
			return err
		}
		return nil
	}
	if t.take == selection.TakeMatching {
		r.progress.expect(t.expected)
	}
	at, err := strconv.ParseUint(revision, 10, 64)
	t.revision = at
	t.alone = err != nil || at < r.bracket.low
	t.empty = t.empty && !t.alone && at == r.bracket.low
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
