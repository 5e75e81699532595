package backup

import (
	"sync"

	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins/selection"
)

// progress counts, and tells whoever listens.
type progress struct {
	mu   sync.Mutex
	now  Progress
	tell func(Progress)
}

func newProgress(e Events) *progress {
	p := &progress{tell: e.Progress}
	if p.tell == nil {
		p.tell = func(Progress) {}
	}
	return p
}

func (p *progress) update(change func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
	p.tell(p.now)
}

func (p *progress) stage(s Stage) {
	p.update(func(now *Progress) { now.Stage = s })
}

// begin starts the counting for a pinned revision.
func (p *progress) begin(targets []*target) {
	p.update(func(now *Progress) {
		*now = Progress{Stage: StagePin}
		for _, t := range targets {
			if t.take == selection.TakeMatching {
				now.Resources++
			}
		}
	})
}

// expect adds to what will probably be read.
func (p *progress) expect(items int64) {
	p.update(func(now *Progress) { now.ItemsExpected += items })
}

// tellEvery is how many objects pass between two reports.
const tellEvery = 100

// items adds what was read; the count is exact, the report of it is not immediate.
func (p *progress) items(n, bytes int64) {
	if n > 0 {
		p.update(func(now *Progress) { now.Items += n; now.Bytes += bytes })
	}
}

// done ends a resource. What was expected of it gives way to what was read: a selection by labels takes fewer than the server counts.
func (p *progress) done(t *target) {
	p.update(func(now *Progress) {
		now.ResourcesDone++
		now.Resource = t.res.GroupResource()
		now.ItemsExpected += int64(t.items) - t.expected
	})
}

// volumes tells how far the taking of volumes is.
func (p *progress) volumes(v volumes.Progress) {
	p.update(func(now *Progress) { now.Volumes = v })
}
