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
	newCounter(1, nil).done(a) // nobody listens
}
