package volumes

import (
	"sync"

	"kedge.dev/kedge/volume/block"
)

// Progress is how far the taking of volumes is.
type Progress struct {
	// Done of Total volumes are taken: their snapshots are completed, their copies made, or they have failed.
	Done, Total int
	// CopiedBytes of CopyBytes are read for copies of blocks. The second grows while a service lists what there is to copy.
	CopiedBytes, CopyBytes int64
	// SnapshotCopiesDone of SnapshotCopies in other regions and accounts are made, or have failed. All of them are SnapshotCopyPercent made, on average, as far
	// as the service says.
	SnapshotCopiesDone, SnapshotCopies, SnapshotCopyPercent int
}

// counter counts, and tells whoever listens. Nil counts nothing.
type counter struct {
	mu     sync.Mutex
	now    Progress
	copies map[string]block.Progress // by volume
	counts map[*taking]bool
	there  map[string]int // percent of copies in other places
	tell   func(Progress)
}

func newCounter(total int, tell func(Progress)) *counter {
	if tell == nil {
		return nil
	}
	return &counter{now: Progress{Total: total}, copies: map[string]block.Progress{}, counts: map[*taking]bool{}, there: map[string]int{}, tell: tell}
}

// done counts volumes that are taken, each once.
func (c *counter) done(those ...*taking) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range those {
		if !c.counts[v] {
			c.counts[v] = true
			c.now.Done++
		}
	}
	c.tell(c.now)
}

// copying takes how far the copy of a volume's blocks is.
func (c *counter) copying(volume string, p block.Progress) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.copies[volume]
	c.copies[volume] = p
	c.now.CopiedBytes += p.Bytes - before.Bytes
	c.now.CopyBytes += p.TotalBytes - before.TotalBytes
	c.tell(c.now)
}

// elsewhere takes how many copies of snapshots there are to be in other places.
func (c *counter) elsewhere(copies int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.SnapshotCopies = copies
	c.tell(c.now)
}

// copyingElsewhere takes how far such a copy is; done is one that is over, however it went.
func (c *counter) copyingElsewhere(copied string, percent int, done bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if done {
		percent = 100
		c.now.SnapshotCopiesDone++
	}
	c.there[copied] = max(percent, c.there[copied])
	sum := 0
	for _, p := range c.there {
		sum += p
	}
	c.now.SnapshotCopyPercent = sum / max(c.now.SnapshotCopies, 1)
	c.tell(c.now)
}
