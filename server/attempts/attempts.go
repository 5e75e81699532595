// Package attempts bounds how often work is begun again whose server ends each time: what takes more memory than the server may have would
// otherwise kill one after the other for ever, and with each all that is under way beside it.
package attempts

import (
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/server/outcome"
)

// The reasons of the condition Ready, and of the metric of failed attempts, where servers ended over the work.
const (
	// ReasonInterrupted: servers ended over it, and it waits before it is begun again.
	ReasonInterrupted = "Interrupted"
	// ReasonTooOften: so many servers ended over it that it is given up.
	ReasonTooOften = "TooManyInterruptions"
)

const (
	// defaultMost is how many servers may end over one piece of work.
	defaultMost = 5
	// atOnce is how many of them are taken for chance (an update, a node that goes): the work is begun again at once.
	atOnce = 2
	// firstWait is the least wait after that; with each further server it is twice as long.
	firstWait = 15 * time.Second
)

// Patience decides what becomes of work over which servers ended. The zero value is ready, and safe for concurrent use; nil begins everything
// again at once.
type Patience struct {
	// Most is how many servers may end over one piece of work; zero means 5.
	Most int

	mu  sync.Mutex
	due map[types.UID]time.Time // when what this process waits with is begun
}

// Check looks at work of which lost attempts ended with their servers. Nil says to begin it; errors are marked for outcome: it is too early, or it is to
// be given up. What is told by the errors are waits between which everything else gets its turn: nobody knows which work it was that ended a
// server, and two that wait do not wait equally long.
func (p *Patience) Check(id types.UID, lost int, now time.Time) error {
	if p == nil || lost <= 0 {
		return nil
	}
	most := p.Most
	if most <= 0 {
		most = defaultMost
	}
	if lost >= most {
		return outcome.Stalled(ReasonTooOften, fmt.Errorf("given up: it was begun %d times, and each time the server ended before it did: see why (kubectl describe pod says OOMKilled "+
			"where it had too little memory), give the server more, or select less at once, and ask again", lost))
	}
	if lost <= atOnce {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	due, known := p.due[id]
	if !known {
		if p.due == nil {
			p.due = map[types.UID]time.Time{}
		}
		due = now.Add(wait(id, lost))
		p.due[id] = due
	}
	if left := due.Sub(now); left > 0 {
		return outcome.Waiting(ReasonInterrupted, left, fmt.Errorf("begun %d times, and each time the server ended before it did; after %d times it is given up", lost, most))
	}
	return nil
}

// wait is between one and two times what the number of servers asks for, by the id: always the same for one piece of work.
func wait(id types.UID, lost int) time.Duration {
	least := firstWait << min(lost-atOnce-1, 6)
	sum := fnv.New32a()
	sum.Write([]byte(id)) // never fails
	return least + time.Duration(sum.Sum32()%1000)*least/1000
}

// Forget drops what is known of work that has ended.
func (p *Patience) Forget(id types.UID) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.due, id)
}
