//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/test/testbed"
)

// server is a cluster with what it held when it was new.
type server struct {
	cluster *testbed.Cluster
	lister  *lister
	before  *snapshot
}

// pair are the servers of one trial.
type pair struct{ from, to *server }

func (p *pair) each(do func(*server)) {
	for _, s := range []*server{p.from, p.to} {
		if s != nil {
			do(s)
		}
	}
}

// takePair takes both servers at once.
func takePair(ctx context.Context, servers *stable, fromVersion, toVersion string) (*pair, error) {
	p := &pair{}
	group, groupCtx := errgroup.WithContext(ctx)
	take := func(dst **server, version, name string) func() error {
		return func() (err error) {
			*dst, err = servers.take(groupCtx, version, name)
			return err
		}
	}
	group.Go(take(&p.from, fromVersion, "from"))
	group.Go(take(&p.to, toVersion, "to"))
	if err := group.Wait(); err != nil {
		p.each(func(s *server) { s.cluster.Stop() })
		return nil, err
	}
	return p, nil
}

const (
	quiet        = 1500 * time.Millisecond // how long nothing may change for a cluster to count as settled
	settleLimit  = 20 * time.Second        // some clusters never do: a CronJob each minute
	controllers  = 3 * time.Minute         // how long what controllers make again may take; one that was refused tries again after 41, 82, 164 s
	betweenReads = 250 * time.Millisecond
)

// settle waits until nothing changes any more. Everything is read again only where the server has written anything at all since, which
// costs it one small list to say.
func settle(ctx context.Context, l *lister) (*snapshot, error) {
	deadline := time.Now().Add(settleLimit)
	var last [sha256.Size]byte
	var s *snapshot
	var read string // the server's revision before the last reading
	since := time.Now()
	for {
		revision, err := l.revision(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil || revision != read {
			if s, err = l.read(ctx); err != nil {
				return nil, err
			}
			read = revision
			if now := fingerprint(s); now != last {
				last, since = now, time.Now()
			}
		}
		if time.Since(since) >= quiet || time.Now().After(deadline) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(betweenReads):
		}
	}
}

// fingerprint changes with every write to any object, also to what is not compared: a status that changes shows a controller at work.
func fingerprint(s *snapshot) [sha256.Size]byte {
	h := sha256.New()
	for _, k := range s.keys() {
		if o := s.objects[k]; !madeByServer(o) {
			_, _ = fmt.Fprintln(h, k, o.raw.GetUID(), o.raw.GetResourceVersion())
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// result is what a folder's line says.
type result struct {
	folder   string
	accepted int
	refused  []string
	archived int
	counts   map[verdict]int
	findings []finding
	took     time.Duration
}

func (r *result) String() string {
	return fmt.Sprintf("roundtrip %s accepted=%d archived=%d equal=%d converted=%d reported=%d silent=%d",
		r.folder, r.accepted, r.archived, r.counts[equal], r.counts[converted], r.counts[reported], r.counts[silent])
}

// roundtrip takes a folder's objects from one server to the other and compares.
func roundtrip(ctx context.Context, f *folder, p *pair) (*result, error) {
	started := time.Now()
	r := &result{folder: f.Name, counts: map[verdict]int{}}
	manifests, err := applyFolder(ctx, f, p.from, r)
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	t := &trial{fromBefore: p.from.before, toBefore: p.to.before, manifests: manifests,
		sameVersion: p.from.cluster.Version == p.to.cluster.Version, fromMinor: p.from.cluster.Minor, toMinor: p.to.cluster.Minor}
	if t.from, err = settle(ctx, p.from.lister); err != nil {
		return nil, err
	}
	way, err := carry(ctx, p.from.cluster, p.to.cluster, func(ctx context.Context) (rested bool, err error) {
		before := fingerprint(t.from)
		if t.from, err = settle(ctx, p.from.lister); err != nil {
			return false, err
		}
		return fingerprint(t.from) == before, nil
	})
	if err != nil {
		return nil, err
	}
	t.archived, t.report = way.archived, way.report
	t.source = &serverJudge{lister: p.from.lister, to: t.from, chosen: manifests}
	p.to.lister.wish = wishes(t.from)
	if r.findings, err = t.compareUntilEqual(ctx, p.to); err != nil {
		return nil, err
	}
	for _, o := range t.subjects() {
		if t.archived[o.key] {
			r.archived++
		}
	}
	for _, found := range r.findings {
		r.counts[found.verdict]++
	}
	r.took = time.Since(started)
	return r, nil
}

// applyFolder sends a folder's manifests: half of them, by name, as server-side apply does and half as other clients do.
func applyFolder(ctx context.Context, f *folder, s *server, r *result) (fieldsChosen, error) {
	opts := testbed.ApplyOptions{
		Namespace: f.Namespace, MakeNamespaces: true,
		Create: func(o *unstructured.Unstructured) bool {
			h := fnv.New32a()
			_, _ = h.Write([]byte(o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()))
			return h.Sum32()%2 == 0
		},
		// What controllers make they make before webhooks without backends can refuse it.
		BeforeLast: func(ctx context.Context) error { _, err := settle(ctx, s.lister); return err },
	}
	if _, err := s.cluster.Apply(ctx, f.Needs, opts); err != nil {
		return nil, err
	}
	outcomes, err := s.cluster.Apply(ctx, f.Objects, opts)
	if err != nil {
		return nil, err
	}
	apis, err := s.lister.apis()
	if err != nil {
		return nil, err
	}
	kinds := map[schema.GroupKind]schema.GroupResource{}
	for gr, a := range apis {
		kinds[schema.GroupKind{Group: gr.Group, Kind: a.Kind}] = gr
	}
	chosen := fieldsChosen{}
	for _, o := range outcomes {
		if o.Err != nil {
			r.refused = append(r.refused, fmt.Sprintf("%s %s/%s: %v", o.Object.GetKind(), o.Object.GetNamespace(), o.Object.GetName(), o.Err))
			continue
		}
		r.accepted++
		if gr, ok := kinds[o.Live.GroupVersionKind().GroupKind()]; ok {
			chosen[keyOf(gr, o.Live.GetNamespace(), o.Live.GetName())] = o.Object.Object
		}
	}
	return chosen, nil
}

// wishes are the versions that a snapshot was read in, so that another server is read in the same where it serves them.
func wishes(s *snapshot) map[schema.GroupResource]string {
	wish := map[schema.GroupResource]string{}
	for gr, a := range s.apis {
		wish[gr] = a.Version
	}
	return wish
}

// compareUntilEqual compares, and again while controllers work, until nothing is silent or time is up.
func (t *trial) compareUntilEqual(ctx context.Context, to *server) ([]finding, error) {
	deadline := time.Now().Add(controllers)
	for {
		var err error
		if t.to, err = settle(ctx, to.lister); err != nil {
			return nil, err
		}
		t.judge = &serverJudge{lister: to.lister, to: t.to, chosen: t.manifests}
		found := t.findings(ctx)
		if !anySilent(found) {
			return found, nil
		}
		if time.Now().After(deadline) {
			return t.withoutWebhooks(ctx, to, found)
		}
	}
}

func anySilent(found []finding) bool {
	for _, f := range found {
		if f.verdict == silent {
			return true
		}
	}
	return false
}

// withoutWebhooks asks the judge once more about what is silent, with the webhooks out of the way that refuse its dry runs: their backends
// do not run here.
func (t *trial) withoutWebhooks(ctx context.Context, to *server, found []finding) ([]finding, error) {
	for gr, a := range t.to.apis {
		if gr.Group == "admissionregistration.k8s.io" {
			if err := to.lister.dynamic.Resource(a.GroupVersionResource).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				return nil, err
			}
		}
	}
	for i, f := range found {
		o := t.from.objects[f.key]
		if f.verdict == silent && o != nil && t.to.objects[f.key] != nil && strings.HasPrefix(f.detail, "arrived unequal") {
			found[i] = t.one(ctx, o, t.to.objects[f.key])
		}
	}
	return found, nil
}
