package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
)

// defaultConcurrency is the number of lists read at once: one more than there are processors to compress what they bring, which is enough to keep
// these busy, and at most four. Each holds a frame of 2 MiB in memory.
func defaultConcurrency() int { return min(4, runtime.GOMAXPROCS(0)+1) }

// maxItem bounds one object as the server sends it.
const maxItem = 64 << 20

// part is one of the lists that make up a target.
type part struct {
	namespace string // for remarks; "" where the list is of all namespaces
	request   kube.ListRequest
}

// parts gives the lists of a target: one, or one for each namespace where few are named, which also needs no right beyond them.
func (r *reading) parts(t *target) []part {
	one := kube.ListRequest{Path: t.res.Path("", ""), LabelSelector: r.matcher.LabelSelector(), Limit: r.PageSize, MaxItem: maxItem}
	if t.take == selection.TakeRelated {
		one.LabelSelector = ""
	}
	if r.literal == nil {
		return []part{{"", one}}
	}
	return r.partsOf(t, one)
}

func (r *reading) partsOf(t *target, one kube.ListRequest) []part {
	isNamespaces := t.res.Group == "" && t.res.Resource == "namespaces"
	if !t.res.Namespaced && !isNamespaces {
		return []part{{"", one}}
	}
	out := make([]part, 0, len(r.literal))
	for _, ns := range r.literal {
		each := one
		if isNamespaces {
			each.FieldSelector = "metadata.name=" + ns
		} else {
			each.Path = t.res.Path(ns, "")
		}
		out = append(out, part{ns, each})
	}
	return out
}

// listInTurn reads a target, the longest lists first, and ends its section.
func (r *reading) listInTurn(ctx context.Context, t *target, turn *turnstile) error {
	err := r.collectInTurn(ctx, t, turn)
	if err == nil || errors.Is(err, kube.ErrRevisionGone) {
		outside, waitErr := r.outside(ctx, t)
		if waitErr != nil {
			return cmp.Or(err, waitErr)
		}
		if outside {
			t.drop()
			t.alone = true
			err = r.collectInTurn(ctx, t, turn)
		}
	}
	if err != nil {
		return err
	}
	r.progress.done(t)
	if r.mayGrow(t) {
		return nil
	}
	return r.closeSection(ctx, t)
}

func (r *reading) collectInTurn(ctx context.Context, t *target, turn *turnstile) error {
	if err := turn.enter(ctx, t.expected); err != nil {
		return err
	}
	defer turn.leave()
	return r.collect(ctx, t)
}

// mayGrow says that objects may join the target because selected ones need them.
func (r *reading) mayGrow(t *target) bool {
	return r.needs.on && !t.res.Namespaced
}

// collect reads a target's lists. What cannot be read is remarked on; its errors end the reading.
func (r *reading) collect(ctx context.Context, t *target) error {
	if t.err != nil {
		t.failed = true
		t.remarks.add(SeverityError, listFailure(t, "", t.err))
		return nil //nolint:nilerr // it is in the report; the backup goes on
	}
	if t.empty {
		return nil
	}
	if t.alone {
		t.remarks.note(aloneNote, t.name(), r.revision)
		t.unsorted = true
	}
	for {
		err := r.collectParts(ctx, t)
		var moved *kube.RevisionError
		switch {
		case errors.Is(err, archive.ErrOutOfOrder) && !t.unsorted:
			t.drop()
			t.unsorted = true
		case errors.As(err, &moved) && !t.alone:
			t.drop()
			t.alone, t.unsorted = true, true
			t.remarks.note("%s: asked for revision %s the server answered with %s, so they were read by themselves", t.name(), moved.Want, moved.Got)
		case t.expired(err):
			t.drop()
			t.again = true
			t.remarks.note(aloneNote, t.name(), r.revision)
		default:
			return err
		}
	}
}

const aloneNote = "%s have a history of their own and were read by themselves, not at revision %s"

// expired says that a target which is read alone is to be read once more: its server forgot the list between two pages.
func (t *target) expired(err error) bool {
	return t.alone && !t.again && errors.Is(err, kube.ErrRevisionGone)
}

// drop forgets what was read of the target, and what was said of it.
func (t *target) drop() {
	if t.opened != nil {
		t.opened.Abort()
	}
	t.section, t.opened, t.items, t.failed = nil, nil, 0, false
	clear(t.taken)
	t.remarks.forget()
}

func (r *reading) collectParts(ctx context.Context, t *target) error {
	failures := 0
	parts := r.parts(t)
	for _, p := range parts {
		err := r.readPart(ctx, t, p.request, func(c *candidate) (bool, error) { return r.matches(ctx, c) })
		switch {
		case err == nil:
		case endsReading(ctx, t, err), t.expired(err):
			return err
		default:
			failures++
			t.failed = failures == len(parts)
			t.remarks.add(SeverityError, r.partFailure(t, p, err))
		}
	}
	return nil
}

// endsReading says that an error is not one of a single list.
func endsReading(ctx context.Context, t *target, err error) bool {
	if t.alone {
		return fatal(ctx, err)
	}
	var moved *kube.RevisionError
	return lost(ctx, err) || errors.Is(err, archive.ErrOutOfOrder) || errors.As(err, &moved)
}

func (r *reading) partFailure(t *target, p part, err error) archive.Remark {
	m := listFailure(t, p.namespace, err)
	if t.items > 0 {
		m.Message += fmt.Sprintf(" (%d objects were read before)", t.items)
	}
	if kube.Code(err) == http.StatusNotFound && m.Reason == ReasonListFailed {
		m.Reason = ReasonNotServed
	}
	return m
}

// candidate is one object that may be taken; it is valid until the next.
type candidate struct {
	target *target
	ref    plugins.Ref
	head   *rawjson.Head
	raw    []byte // with apiVersion and kind
}

// readPart reads one list and takes the objects that choose accepts.
func (r *reading) readPart(ctx context.Context, t *target, req kube.ListRequest, choose func(*candidate) (bool, error)) error {
	if !t.alone {
		req.ResourceVersion, req.Exact = r.revision, true
		if !t.json {
			req.Protobuf = t.res.Protobuf()
		}
	}
	c := candidate{target: t}
	apiVersion := t.res.APIVersion()
	var items, bytes int64
	defer func() { r.progress.items(items, bytes) }()
	meta, err := r.Kube.ListHeads(ctx, req, func(head *rawjson.Head, raw []byte, err error) error {
		if err == nil {
			c.raw, err = head.WithTypeMeta(c.raw[:0], raw, apiVersion, t.res.Kind)
		}
		if err == nil && head.Name == "" {
			err = errors.New("it has no name")
		}
		if err != nil {
			t.remarks.add(SeverityError, onResource(t, head.Namespace, ReasonUnreadable, "object %q: %v", head.Name, err))
			return nil
		}
		c.head = head
		c.ref = plugins.Ref{Group: t.res.Group, Version: t.res.Version, Resource: t.res.Resource, Namespace: head.Namespace, Name: head.Name}
		if take, err := choose(&c); err != nil || !take {
			return err
		}
		if items++; items == tellEvery {
			r.progress.items(items, bytes)
			items, bytes = 0, 0
		}
		bytes += int64(len(c.raw))
		return r.take(ctx, &c)
	})
	t.json = t.json || meta.FellBack
	return err
}

// matches applies the selection to an object.
func (r *reading) matches(ctx context.Context, c *candidate) (bool, error) {
	switch r.matcher.Item(c.ref, c.head.Labels) {
	case selection.Out:
		return false, nil
	case selection.OutByLabel:
		c.skipped()
		return false, nil
	case selection.In:
	}
	if !r.matcher.NeedsObject() {
		return true, nil
	}
	yes, err := r.matcher.Object(ctx, c.raw)
	if err != nil && ctx.Err() == nil {
		c.target.remarks.add(SeverityError, onItem(c.ref, ReasonExpressionFailed, "%v", err))
		return false, nil
	}
	return yes, err
}

func (c *candidate) skipped() {
	c.target.remarks.add(SeveritySkipped, onItem(c.ref, ReasonExcludedByLabel, "the object has the label %s=true", excludeLabel))
}

// take writes one object. What is wrong with it ends no list.
func (r *reading) take(ctx context.Context, c *candidate) error {
	t := c.target
	if t.section == nil {
		if err := r.openSection(t); err != nil {
			return err
		}
	}
	err := t.section.Add(ctx, row(c), c.raw)
	switch {
	case errors.Is(err, archive.ErrOutOfOrder):
		return err
	case errors.Is(err, archive.ErrDuplicate):
		t.remarks.add(SeverityError, onItem(c.ref, ReasonUnreadable, "the server gave the object twice in one list; the first is archived"))
		return nil
	case errors.Is(err, archive.ErrInvalid):
		t.remarks.add(SeverityError, onItem(c.ref, ReasonUnreadable, "%v", err))
		return nil
	case errors.Is(err, archive.ErrTooLarge):
		t.remarks.add(SeverityError, onItem(c.ref, ReasonTooLarge, "the object has %d bytes: %v", len(c.raw), err))
		return nil
	case err != nil:
		return fmt.Errorf("%w: %s: %w", errSink, c.ref, err)
	}
	t.items++
	r.taken(c)
	return nil
}

func (r *reading) openSection(t *target) error {
	s, err := r.sink.section(archive.SectionOptions{Group: t.res.Group, Version: t.res.Version, Resource: t.res.Resource, Sorted: !t.unsorted})
	switch {
	case errors.Is(err, archive.ErrInvalid):
		return err // of this resource alone: an archive has no place for what its server calls it
	case err != nil:
		return fmt.Errorf("%w: %s: %w", errSink, t.name(), err)
	}
	t.section, t.opened = s, s
	if t.alone && t.take == selection.TakeRelated {
		t.remarks.note(aloneNote, t.name(), r.revision)
	}
	return nil
}

// taken looks at what was archived for what else follows from it.
func (r *reading) taken(c *candidate) {
	t := c.target
	if c.ref.Group == "" && c.ref.Resource == "persistentvolumeclaims" {
		if err := r.claims.add(c.raw); err != nil {
			t.remarks.add(SeverityError, onItem(c.ref, ReasonUnreadable, "%v", err))
		}
	}
	if c.ref.Group == "" && c.ref.Resource == "pods" && hooks.Marked(c.raw) {
		r.hooked.Store(true)
	}
	if c.head.Deleting && c.ref.Group == "" && c.ref.Resource == "namespaces" {
		t.remarks.add(SeverityWarning, onItem(c.ref, ReasonTerminating, "the namespace is being deleted: the archive holds what was left of it"))
	}
	if err := r.note(c); err != nil {
		t.remarks.add(SeverityError, onItem(c.ref, ReasonUnreadable, "it is archived, but what it needs is not known: %v", err))
	}
}

func row(c *candidate) archive.Row {
	out := archive.Row{Ref: c.ref, Kind: c.target.res.Kind, UID: c.head.UID, Labels: c.head.Labels, Applied: c.head.Applied}
	for _, o := range c.head.Owners {
		out.Owners = append(out.Owners, archive.Owner(o))
	}
	return out
}

// checkNamespaces remarks on namespaces that were written out and do not exist: a misspelt name would else give an empty backup without
// a word. An account that may not see namespaces is not told.
func (r *reading) checkNamespaces(ctx context.Context) error {
	names, ok := r.matcher.LiteralNamespaces()
	res, served := r.discovery.Preferred("", "namespaces")
	if !ok || !served {
		return nil
	}
	one := kube.ListRequest{Path: res.Path("", ""), ResourceVersion: r.revision, Exact: true, Limit: r.PageSize}
	requests := []kube.ListRequest{one}
	if len(names) <= fewNamespaces {
		requests = requests[:0]
		for _, name := range names {
			one.FieldSelector = "metadata.name=" + name
			requests = append(requests, one)
		}
	}
	found := map[string]bool{}
	for _, req := range requests {
		_, err := r.Kube.List(ctx, req, func(raw []byte) error {
			head, err := rawjson.ReadHead(raw)
			found[head.Name] = true
			return err
		})
		if err != nil && lost(ctx, err) {
			return err
		}
		if err != nil {
			return nil //nolint:nilerr // the list of namespaces itself tells of this
		}
	}
	for _, name := range names {
		if !found[name] {
			r.remarks.add(SeverityWarning, archive.Remark{Resource: "namespaces", Reason: ReasonNamespaceNotFound, Message: fmt.Sprintf("spec.includedNamespaces: there is no namespace %q", name)})
		}
	}
	return nil
}
