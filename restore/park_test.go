package restore

import (
	"testing"
	"time"

	"kedge.dev/kedge/backup/archive"
)

// parking is a run of which a test tells what becomes of each try.
type parking struct {
	t   *testing.T
	x   *run
	now time.Time
}

// newParking plans config maps and secrets, each in a namespace of its own.
func newParking(t *testing.T, timeout time.Duration) *parking {
	t.Helper()
	p := &parking{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	var rows []archive.Row
	for _, ns := range []string{"a", "b", "c", "d"} {
		rows = append(rows, rowOf("Namespace", "", ns), rowOf("ConfigMap", ns, ns), rowOf("Secret", ns, ns))
	}
	req := Request{Name: "park"}
	req.Spec.WaitTimeout.Duration = timeout
	p.x = &run{e: &Engine{Now: func() time.Time { return p.now }}, plan: planOf(t, req, rows...),
		entries: map[int32][]Entry{}, waits: map[string]*wait{}, parked: map[int32]*parkedItem{}}
	return p
}

func (p *parking) item(kind, name string) int32 {
	p.t.Helper()
	i := p.x.plan.find(rowOf(kind, name, name).Ref)
	if i < 0 {
		p.t.Fatalf("no %s %s", kind, name)
	}
	return i
}

// refused is a try of a config map that the target refuses, so that it waits.
func (p *parking) refused(name, key string, tries int) (gaveUp bool) {
	p.t.Helper()
	i := p.item("ConfigMap", name)
	why := refusal{reason: ServerError, wait: key, tries: tries}
	if _, gaveUp = p.x.parkOrGiveUp(i, &why); gaveUp {
		p.x.settle(i, result{outcome: Failed}, nil)
	}
	return gaveUp
}

// waits wants an object to be refused and to wait on.
func (p *parking) waits(name, key string) {
	p.t.Helper()
	if p.refused(name, key, 0) {
		p.t.Errorf("%s gave up waiting for %q at %s", name, key, p.now)
	}
}

// givesUp wants an object to be refused for the last time.
func (p *parking) givesUp(name, key string) {
	p.t.Helper()
	if !p.refused(name, key, 0) {
		p.t.Errorf("%s goes on waiting for %q at %s", name, key, p.now)
	}
}

// created is a try that succeeds.
func (p *parking) created(kind, name string) {
	p.t.Helper()
	p.x.settle(p.item(kind, name), result{outcome: Created}, nil)
}

// TestWaits plays runs with a timeout of five minutes.
func TestWaits(t *testing.T) {
	for name, play := range map[string]func(p *parking, after func(time.Duration)){
		"objects share a wait": func(p *parking, after func(time.Duration)) {
			p.waits("a", "webhook w")
			after(4 * time.Minute)
			p.waits("b", "webhook w")
			after(time.Minute)
			p.givesUp("a", "webhook w")
			p.givesUp("b", "webhook w") // it does not begin anew because a did give up
		},
		"a wait does not outlive its failure": func(p *parking, after func(time.Duration)) {
			p.waits("a", "webhook w")
			after(5 * time.Minute)
			p.givesUp("a", "webhook w")
			p.waits("b", "webhook w")
			after(4 * time.Minute)
			p.waits("b", "webhook w")
			after(time.Minute)
			p.givesUp("b", "webhook w")
		},
		"who gets through gives the others their full time": func(p *parking, after func(time.Duration)) {
			p.waits("a", "quota q")
			p.waits("b", "quota q")
			after(4 * time.Minute)
			p.created("ConfigMap", "a")
			after(4 * time.Minute)
			p.waits("b", "quota q")
			after(time.Minute)
			p.givesUp("b", "quota q")
		},
		"another wait ends the one before": func(p *parking, after func(time.Duration)) {
			p.waits("a", "webhook v")
			after(4 * time.Minute)
			p.waits("a", "quota q")
			after(time.Minute)
			p.waits("b", "webhook v")
			after(4 * time.Minute)
			p.givesUp("a", "quota q")
		},
		"two waits in turns end": func(p *parking, after func(time.Duration)) {
			for range 5 {
				p.waits("a", "webhook v")
				after(time.Minute)
				p.waits("a", "webhook w")
				after(time.Minute)
			}
			p.givesUp("a", "webhook v")
		},
		"a write of the kind ends what the kind waits for": func(p *parking, after func(time.Duration)) {
			for _, key := range []string{"conflict configmaps", "error configmaps", "unavailable configmaps", "api configmaps", waitServer} {
				p.waits("a", key)
			}
			after(10 * time.Minute)
			p.created("ConfigMap", "b")
			for _, key := range []string{"conflict configmaps", "error configmaps", "unavailable configmaps", "api configmaps", waitServer} {
				p.waits("a", key)
				p.waits("c", key)
			}
		},
		"a write of another kind does not": func(p *parking, after func(time.Duration)) {
			p.waits("a", "unavailable configmaps")
			after(5 * time.Minute)
			p.created("Secret", "a")
			p.givesUp("a", "unavailable configmaps")
		},
		"but for the server, and for its namespace": func(p *parking, after func(time.Duration)) {
			p.waits("a", waitServer)
			p.waits("b", waitNamespace("b"))
			p.waits("c", waitNamespace("c"))
			after(5 * time.Minute)
			p.created("Secret", "b")
			p.waits("a", waitServer)
			p.waits("b", waitNamespace("b"))
			p.givesUp("c", waitNamespace("c"))
		},
		"tries are counted for each wait": func(p *parking, _ func(time.Duration)) {
			for range 7 {
				p.waits("a", "webhook w")
			}
			for n := range 6 {
				if gaveUp := p.refused("a", "conflict configmaps", 5); gaveUp != (n == 5) {
					p.t.Errorf("conflict %d: gave up: %v", n+1, gaveUp)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParking(t, 5*time.Minute)
			play(p, func(d time.Duration) { p.now = p.now.Add(d) })
		})
	}
}
