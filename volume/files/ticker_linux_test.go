package files

import (
	"testing"
	"time"
)

// TestTickerCountsFiles asks for a checkpoint after so many files, though no time has gone by, and then after as many more.
func TestTickerCountsFiles(t *testing.T) {
	r := newRepo(t)
	now := r.Time()
	k := ticker{repo: r, last: now, progress: now, every: time.Hour}
	for _, c := range []struct {
		read int64
		due  bool
	}{{1, false}, {checkpointFiles - 1, false}, {checkpointFiles + 5, true}, {checkpointFiles + 6, false}, {2*checkpointFiles + 4, false}, {2*checkpointFiles + 5, true}} {
		due := k.due(c.read, func() {})
		if due != c.due {
			t.Errorf("after %d files a checkpoint is due: %v", c.read, due)
		}
		if due {
			if k.due(c.read+checkpointFiles, func() {}) {
				t.Error("two checkpoints at once")
			}
			k.saved()
		}
	}
	never := ticker{repo: r, last: now, progress: now, every: -1}
	if never.due(10*checkpointFiles, func() {}) {
		t.Error("a checkpoint that nobody wants")
	}
}
