package volumes

import (
	"slices"
	"testing"

	"kedge.dev/kedge/volume/block"
)

// TestCounter: a volume counts once, whoever says that it is done, and copies of several volumes add up.
func TestCounter(t *testing.T) {
	var told []Progress
	c := newCounter(3, func(p Progress) { told = append(told, p) })
	a, b := &taking{}, &taking{}
	c.done()
	c.done(a)
	c.copying("b", block.Progress{Bytes: 10, TotalBytes: 100})
	c.copying("c", block.Progress{Bytes: 5, TotalBytes: 5})
	c.copying("b", block.Progress{Bytes: 200, TotalBytes: 200})
	c.done(a, b)
	want := []Progress{
		{Total: 3}, {Done: 1, Total: 3}, {Done: 1, Total: 3, CopiedBytes: 10, CopyBytes: 100}, {Done: 1, Total: 3, CopiedBytes: 15, CopyBytes: 105},
		{Done: 1, Total: 3, CopiedBytes: 205, CopyBytes: 205}, {Done: 2, Total: 3, CopiedBytes: 205, CopyBytes: 205},
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %+v", told)
	}
	told = nil
	c = newCounter(1, func(p Progress) { told = append(told, p) })
	c.elsewhere(2)
	c.copyingElsewhere("a", 60, false)
	c.copyingElsewhere("b", 0, true)
	c.copyingElsewhere("a", 50, false) // an older answer
	want = []Progress{
		{Total: 1, SnapshotCopies: 2}, {Total: 1, SnapshotCopies: 2, SnapshotCopyPercent: 30},
		{Total: 1, SnapshotCopies: 2, SnapshotCopiesDone: 1, SnapshotCopyPercent: 80}, {Total: 1, SnapshotCopies: 2, SnapshotCopiesDone: 1, SnapshotCopyPercent: 80},
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %+v", told)
	}
	c = newCounter(1, nil) // nobody listens
	c.done(a)
	c.elsewhere(1)
	c.copyingElsewhere("a", 1, true)
}
