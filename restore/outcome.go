package restore

import (
	"context"

	"kedge.dev/kedge/plugins"
)

// result is what became of one object.
type result struct {
	outcome Outcome
	reason  Reason
	by      string
	message string
	uid     uid // of the target's object
}

// finishPrepared notes the outcome of an object together with the remarks that its preparation left.
func (x *run) finishPrepared(ctx context.Context, p *prepared, r result) error {
	if r.outcome == Created && p.filled != "" {
		r.reason, r.message = VolumeFilled, p.filled
	}
	return x.finish(ctx, p.index, r, p.remarks...)
}

// finish notes the outcome of an object for good: in the plan, in the report and in the journal.
func (x *run) finish(ctx context.Context, i int32, r result, remarks ...plugins.Remark) error {
	if ctx.Err() != nil && r.outcome != Created && r.outcome != Updated {
		return nil // a cancelled run leaves the object for the next one
	}
	ctx = context.WithoutCancel(ctx) // what was done is noted all the same
	it := &x.plan.items[i]
	ref := x.plan.ref(i)
	var entries []Entry
	if it.flags&flagMade != 0 && r.outcome == Created {
		r.reason = NamespaceMade
	}
	if r.outcome != Created || r.reason != "" {
		message := r.message
		if message == "" {
			message = reasonTexts[r.reason]
		}
		entries = append(entries, Entry{Ref: ref, Outcome: r.outcome, Reason: r.reason, By: r.by, Message: message})
	}
	for _, m := range remarks {
		entries = append(entries, Entry{Ref: ref, Outcome: r.outcome, Reason: Reason(m.Reason), Message: m.Message, Warning: true})
	}
	progress := x.settle(i, r, entries)
	x.plan.reader.forget(i)
	if x.e.Journal != nil {
		id := r.uid.String()
		if r.uid == (uid{}) {
			id = it.newUID.String()
		}
		rec := Record{Item: &ItemRecord{Ref: ref, Outcome: r.outcome, UID: id, Entries: entries}}
		if err := x.e.Journal.Append(ctx, rec); err != nil {
			return err
		}
	}
	if x.e.Events.Remark != nil {
		for _, e := range entries {
			if e.Outcome == Failed || e.Warning {
				x.e.Events.Remark(e)
			}
		}
	}
	if x.e.Events.Progress != nil {
		x.e.Events.Progress(progress)
	}
	return nil
}

// settle changes what is shared.
func (x *run) settle(i int32, r result, entries []Entry) Progress {
	x.mu.Lock()
	defer x.mu.Unlock()
	it := &x.plan.items[i]
	it.state, it.reason = r.outcome, r.reason
	if r.uid != (uid{}) {
		it.newUID = r.uid
	}
	it.flags &^= flagParked
	if p := x.parked[i]; p != nil {
		if r.outcome != Failed {
			x.came(p)
		}
		delete(x.parked, i)
	}
	if r.outcome == Created || r.outcome == Updated {
		x.wrote(i)
	}
	if len(entries) > 0 {
		x.entries[i] = append(entries, x.entries[i]...) // a wait may have left a remark already
	}
	x.count(r.outcome)
	p := Progress{
		Done:  x.counts.Created + x.counts.Updated + x.counts.Unchanged + x.counts.Skipped + x.counts.Failed,
		Total: x.counts.Planned, Failed: x.counts.Failed, Waiting: len(x.parked),
	}
	if it.step >= 0 {
		p.Step = x.plan.Steps[it.step].Name()
	}
	return p
}

func (x *run) count(o Outcome) {
	switch o {
	case Created:
		x.counts.Created++
	case Updated:
		x.counts.Updated++
	case Unchanged:
		x.counts.Unchanged++
	case Skipped:
		x.counts.Skipped++
	case Failed:
		x.counts.Failed++
	case Pending:
	}
}

// posted notes that an object was created, before what follows: putting its field managers back takes away the one by which a
// resumed run would know it.
func (x *run) posted(ctx context.Context, i int32, id uid) error {
	x.mu.Lock()
	x.plan.items[i].newUID = id
	x.plan.items[i].flags |= flagPosted
	x.mu.Unlock()
	if x.e.Journal == nil {
		return nil
	}
	return x.e.Journal.Append(context.WithoutCancel(ctx), Record{Item: &ItemRecord{Ref: x.plan.ref(i), Outcome: Pending, UID: id.String(), Posted: true}})
}
