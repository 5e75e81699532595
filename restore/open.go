package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kedge.dev/kedge/plugins"
)

// lookup finds an item by its reference in the source; a reference without version stands for any. -1 where there is none.
func (p *Plan) lookup(ref plugins.Ref) int32 {
	p.lookupOnce.Do(func() {
		p.byRef = make(map[string]int32, len(p.items))
		for i := range p.items {
			key := refKey(p.ref(int32(i)))
			if j, double := p.byRef[key]; double && p.items[j].step >= 0 {
				continue
			}
			p.byRef[key] = int32(i)
		}
	})
	i, ok := p.byRef[refKey(ref)]
	if !ok || ref.Version != "" && p.resources[p.items[i].res].Version != ref.Version {
		return -1
	}
	return i
}

// open reads what an earlier run has done, or begins the journal.
func (x *run) open(ctx context.Context) error {
	x.counts.Planned = len(x.plan.items)
	for i := range x.plan.items {
		if x.plan.items[i].step < 0 {
			x.count(x.plan.items[i].state)
		}
	}
	if x.e.Journal == nil {
		return nil
	}
	start, err := ReadStart(ctx, x.e.Journal)
	if err != nil {
		return err
	}
	if start == nil {
		return x.e.Journal.Append(ctx, Record{Start: &Start{
			Name: x.plan.Request.Name, UID: x.plan.Request.UID, Spec: x.plan.Request.Spec,
			Backup: x.plan.Source.Name, BackupUID: x.plan.Source.UID, Target: x.plan.Target,
			ServerTime: x.plan.started, Started: x.started, Kedge: x.e.Version,
		}})
	}
	if err := start.matches(x.plan); err != nil {
		return err
	}
	x.resumed, x.since, x.started = true, start.ServerTime, start.Started
	err = x.e.Journal.Replay(ctx, func(r Record) error {
		if r.Item != nil {
			x.replay(r.Item)
		}
		if r.Hook != nil {
			x.ranIn[r.Hook.Pod] = *r.Hook
		}
		return nil
	})
	x.replayHooks()
	return err
}

// replay takes in what became of one object in an earlier run. What failed is tried again.
func (x *run) replay(r *ItemRecord) {
	i := x.plan.lookup(r.Ref)
	if i < 0 || x.plan.items[i].step < 0 {
		return
	}
	it := &x.plan.items[i]
	if r.UID != "" {
		it.newUID = parseUID(r.UID)
	}
	if r.Posted {
		it.flags |= flagPosted
	}
	if r.Outcome == Pending || r.Outcome == Failed || it.state != Pending {
		return
	}
	it.state = r.Outcome
	if len(r.Entries) > 0 {
		it.reason = r.Entries[0].Reason
		x.entries[i] = r.Entries
	}
	x.count(r.Outcome)
}

// close makes the report, keeps it where it is kept, and ends the journal. Ctx is not cancelled with the run.
func (x *run) close(ctx context.Context, cancelled bool, stopped error) (*Report, error) {
	p := x.plan
	r := &Report{
		Name: p.Request.Name, UID: p.Request.UID, Backup: p.Source.Name, BackupUID: p.Source.UID, Target: p.Target,
		Started: x.started, Completed: x.e.now(), Resumed: x.resumed, Remarks: slices.Clone(p.Remarks),
	}
	x.mu.Lock()
	for i := range p.items {
		it := &p.items[i]
		switch {
		case it.step < 0:
			r.Entries = append(r.Entries, Entry{Ref: p.ref(int32(i)), Outcome: it.state, Reason: it.reason, Message: p.explain(int32(i))})
		case it.state == Pending:
			r.Entries = append(r.Entries, Entry{Ref: p.ref(int32(i)), Outcome: Pending, Reason: NotReached, Message: x.notReached(int32(i))})
		}
		for _, e := range x.entries[int32(i)] {
			e.Outcome = it.state
			r.Entries = append(r.Entries, e)
		}
	}
	r.Counts = x.counts
	r.hooksFailed = x.hooksFailed
	r.Remarks = append(r.Remarks, x.hookRemarks...)
	x.mu.Unlock()
	if !x.resumed { // what an earlier run prepared, this one has not
		for _, field := range p.pipeline.Unused() {
			r.Remarks = append(r.Remarks, plugins.Remark{Reason: string(UnusedRule), Message: field + " matched nothing"})
		}
	}
	for i := range r.Entries {
		if r.Entries[i].Warning {
			r.Counts.Warnings++
		}
	}
	r.Remarks = append(r.Remarks, x.finishFilling(ctx, !cancelled && stopped == nil)...)
	r.Counts.Warnings += len(r.Remarks)
	r.decidePhase(cancelled, stopped)
	var errs []error
	if stopped != nil {
		errs = append(errs, fmt.Errorf("restore %s: %w", r.Name, stopped))
	}
	if x.e.Journal != nil {
		errs = append(errs, x.e.Journal.Append(ctx, Record{End: &End{Phase: r.Phase, Completed: r.Completed}}))
	}
	if x.e.Reports != nil {
		if err := x.e.Reports.PutReport(ctx, r); err != nil {
			r.Remarks = append(r.Remarks, plugins.Remark{Reason: string(ReportNotKept), Message: err.Error()})
		}
	}
	return r, errors.Join(errs...)
}

// notReached says why an object has no outcome: it waited for something, or its turn never came.
func (x *run) notReached(i int32) string {
	if x.plan.items[i].flags&flagPosted != 0 {
		return "it was created; its status or its field managers are still to come"
	}
	if p := x.parked[i]; p != nil {
		return "it waited: " + p.why.message
	}
	return reasonTexts[NotReached]
}

func refKey(ref plugins.Ref) string {
	return ref.GroupResource() + " " + ref.Namespace + "/" + ref.Name
}
