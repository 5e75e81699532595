package aws

import (
	"maps"
	"net/http"
	"time"
)

// Fault makes calls of one operation go wrong.
type Fault struct {
	// Op is the operation: "CreateSnapshot". Empty means every one.
	Op string
	// Times is how many calls it is for; zero means one, a negative number all.
	Times int
	// Skip lets so many calls pass before.
	Skip int

	// Code refuses the call with an error code; Reason goes with it in EBS direct, Message is optional. Status is HTTP's; zero means 400.
	Code, Reason, Message string
	Status                int
	// Latency delays the call.
	Latency time.Duration
	// LoseReply performs the call and then cuts the connection in place of an answer.
	LoseReply bool
	// CutShort performs the call and cuts the connection in the middle of the answer's body.
	CutShort bool
	// Damage performs the call and changes a bit of the answer's body.
	Damage bool
	// Drop cuts the connection without performing the call.
	Drop bool
	// Before is called before the call is performed, and can change the world under it.
	Before func()
}

// Usage counts what was asked.
type Usage struct {
	// Calls are the requests that came in, by operation, refused ones included.
	Calls map[string]int64
	// Throttled are those among them that the rates refused.
	Throttled int64
	// BlockBytesRead and BlockBytesWritten are the payloads of GetSnapshotBlock and PutSnapshotBlock.
	BlockBytesRead, BlockBytesWritten int64
	// Taking is the time that callers have waited for the bytes of snapshots to be read from the volumes' files, which AWS does afterwards.
	Taking time.Duration
}

// traffic is what the server does to and knows of its requests; Cloud.mu guards it.
type traffic struct {
	calls         map[string]int64
	throttled     int64
	read, written int64
	taking        time.Duration
	faults        []*Fault
	buckets       map[string]*bucket
}

// bucket is the state of one Rate.
type bucket struct {
	tokens float64
	at     time.Time
}

// Inject adds a fault. Where several are for one call, the first one added that is not used up acts.
func (c *Cloud) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	c.traffic.faults = append(c.traffic.faults, &f)
}

// Heal removes all faults.
func (c *Cloud) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traffic.faults = nil
}

// Usage tells what was asked since the start or the last ResetUsage.
func (c *Cloud) Usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.traffic
	return Usage{Calls: maps.Clone(t.calls), Throttled: t.throttled, BlockBytesRead: t.read, BlockBytesWritten: t.written, Taking: t.taking}
}

// ResetUsage begins to count anew.
func (c *Cloud) ResetUsage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.traffic
	t.calls, t.throttled, t.read, t.written, t.taking = map[string]int64{}, 0, 0, 0, 0
}

// count notes a call and says what is to be done to it: a copy of a fault, or nil.
func (c *Cloud) count(op string) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traffic.calls[op]++
	for _, f := range c.traffic.faults {
		if f.Op != "" && f.Op != op || f.Times == 0 {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		acting := *f
		return &acting
	}
	return nil
}

// throttle takes a token, and says whether there was one.
func (c *Cloud) throttle(op string) bool {
	rate, ok := c.opts.Rates[op]
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Now()
	b := c.traffic.buckets[op]
	if b == nil {
		b = &bucket{tokens: float64(rate.Burst), at: now}
		c.traffic.buckets[op] = b
	}
	b.tokens = min(float64(rate.Burst), b.tokens+now.Sub(b.at).Seconds()*rate.PerSecond)
	b.at = now
	if b.tokens < 1 {
		c.traffic.throttled++
		return true
	}
	b.tokens--
	return false
}

// cut closes the connection of a request without an answer.
func cut(w http.ResponseWriter) {
	if hijacker, ok := w.(http.Hijacker); ok {
		if conn, _, err := hijacker.Hijack(); err == nil {
			_ = conn.Close() // nobody is left to be told
			return
		}
	}
	panic(http.ErrAbortHandler)
}
