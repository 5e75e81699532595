package csi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kedge.dev/kedge/plugins"
)

// complaint gives what says whether a driver has complained of something, each time that it was looked at, for so long.
func (p *Provider) complaint(limit time.Duration) func(*snapshotError) bool {
	var since time.Time
	return func(e *snapshotError) bool {
		switch now := p.opts.Now(); {
		case e.String() == "":
			since = time.Time{}
		case since.IsZero():
			since = now
		default:
			return now.Sub(since) > limit
		}
		return false
	}
}

// watched is what looks at a snapshot that is not ready have seen so far.
type watched struct {
	complains func(*snapshotError) bool
	last      string // what it was like
	since     time.Time
}

// hopeless says why a snapshot that is not ready will never be, by what this process has seen of it; "" while there is hope.
func (p *Provider) hopeless(c *content) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waits[c.Metadata.Name]
	if w == nil {
		w = &watched{complains: p.complaint(brokenTime)}
		p.waits[c.Metadata.Name] = w
	}
	now, like := p.opts.Now(), fmt.Sprint(c.Status.Handle, c.Status.Created, c.Status.RestoreSize, c.Status.Error)
	if like != w.last || w.since.IsZero() {
		w.last, w.since = like, now
	}
	switch {
	case w.complains(c.Status.Error):
		return fmt.Sprintf("the driver has complained for %v: %s", brokenTime, c.Status.Error)
	case now.Sub(w.since) > stuckTime:
		return fmt.Sprintf("it was not ready, and nothing about it has changed, for %v", stuckTime)
	}
	return ""
}

// DescribeSnapshots tells the state of snapshots. Once one is completed, the objects that it was made by are removed. One that this cluster has no
// content of is asked of its driver: another cluster with the same storage may have made it. With an error those that something could be said of are
// there all the same.
func (p *Provider) DescribeSnapshots(ctx context.Context, ids []string) (map[string]plugins.Snapshot, error) {
	const op = "describe snapshots"
	kept, err := list[content](ctx, p, contents, LabelRole+"="+RoleSnapshot)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	byID := map[string]*content{}
	for _, c := range kept {
		byID[c.id()] = c
	}
	out := map[string]plugins.Snapshot{}
	var errs []error
	for _, id := range ids {
		var s plugins.Snapshot
		var err error
		there := true
		if c := byID[id]; c != nil {
			s, err = p.settle(ctx, c)
		} else {
			s, there, err = p.probe(ctx, id)
		}
		switch {
		case ctx.Err() != nil:
			return nil, p.fail(ctx, op, id, ctx.Err())
		case err != nil:
			errs = append(errs, p.fail(ctx, op, id, err))
		case there:
			out[id] = s
		}
	}
	return out, errors.Join(errs...)
}

// settle tells how far a kept snapshot is; when it is ready, what it was made by goes. The content that the driver made it by says so while it is there:
// of a snapshot that is only named, as by the kept one, drivers that cannot list snapshots say at once that it is ready.
func (p *Provider) settle(ctx context.Context, c *content) (plugins.Snapshot, error) {
	state := c
	_, made := c.made()
	if made != "" {
		var m content
		if err := p.get(ctx, contents.Path("", made), &m); unlessGone(err) != nil {
			return plugins.Snapshot{}, err
		} else if err == nil {
			state = &m
		}
	}
	if !state.Status.Ready {
		s := c.snapshot(plugins.SnapshotPending) // its controllers try again
		s.Message = state.Status.Error.String()
		if why := p.hopeless(state); why != "" {
			s.State, s.Message = plugins.SnapshotFailed, why
		}
		return s, nil
	}
	p.mu.Lock()
	delete(p.waits, state.Metadata.Name)
	p.mu.Unlock()
	if err := p.retainMade(ctx, c); err != nil {
		return plugins.Snapshot{}, err
	}
	// The snapshot is there and stays. What cannot be removed now goes with it at the latest.
	s := c.snapshot(plugins.SnapshotCompleted)
	s.SizeBytes = cmp.Or(s.SizeBytes, state.Status.RestoreSize)
	if err := p.dropMade(ctx, c, tidyTime); err == nil && made != "" {
		_ = p.patch(ctx, contents.Path("", c.Metadata.Name), map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotationMade: nil}}})
	}
	return s, nil
}

// made is the namespace of the VolumeSnapshot that a kept snapshot was made by, and the name of the content that this was bound to.
func (c *content) made() (namespace, name string) {
	namespace, name, _ = strings.Cut(c.Metadata.Annotations[annotationMade], "/")
	return namespace, name
}

// dropMade removes the VolumeSnapshot of a kept snapshot, and the content that it was bound to, whose policy is Retain. A VolumeSnapshot that somebody
// put in its place is left.
func (p *Provider) dropMade(ctx context.Context, c *content, limit time.Duration) error {
	namespace, name := c.made()
	if name == "" {
		return nil
	}
	if err := p.retainMade(ctx, c); err != nil {
		return err
	}
	var s snapshot
	path := snapshots.Path(namespace, c.Metadata.Name)
	if err := p.get(ctx, path, &s); unlessGone(err) != nil {
		return err
	} else if err == nil && isPending(&s) && s.Metadata.Labels[labelToken] == c.Metadata.Labels[labelToken] {
		if err := p.goneOf(ctx, path, s.Metadata.UID, limit); err != nil {
			return err
		}
	}
	return p.gone(ctx, contents.Path("", name), limit)
}

// probe asks the driver for a snapshot by a content that is there for that alone. A driver that complains all the time does not have it.
func (p *Provider) probe(ctx context.Context, id string) (out plugins.Snapshot, there bool, err error) {
	driver, handle, ok := strings.Cut(id, "/")
	class, known := p.class[driver]
	if !ok || !known {
		return out, false, nil
	}
	m, err := meta(nameOf(id, "probe"), "", "probe", id, nil)
	if err != nil {
		return out, false, err
	}
	path := contents.Path("", m.Name)
	if err := p.create(ctx, contents, "", pinned(m, driver, class.Metadata.Name, "", handle, keptNamespace)); err != nil {
		return out, false, err
	}
	defer func() {
		if rerr := p.remove(context.WithoutCancel(ctx), path); err == nil {
			err = rerr
		}
	}()
	complains := p.complaint(goneTime)
	err = p.until(ctx, readyTime, func(ctx context.Context) (bool, string, error) {
		var c content
		if err := p.get(ctx, path, &c); err != nil {
			return false, "", err
		}
		there = c.Status.Ready
		out = c.snapshot(plugins.SnapshotCompleted)
		return there || complains(c.Status.Error), "content " + m.Name + " says nothing of snapshot " + handle + " " + c.Status.Error.String(), nil
	})
	return out, there, err
}
