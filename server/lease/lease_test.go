package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kedge.dev/kedge/internal/gate"
)

// object is a Lease that several locks share, with the API server's rule: a write must know the version that it replaces.
type object struct {
	mu      sync.Mutex
	record  *resourcelock.LeaderElectionRecord
	version int
	broken  error // what every request meets
}

// memory is one server's view of the object, as resourcelock.LeaseLock is.
type memory struct {
	*object
	id    string
	known int // the version of the last answer
}

var leases = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

func (m *memory) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, nil, m.broken
	}
	if m.record == nil {
		return nil, nil, apierrors.NewNotFound(leases, Name)
	}
	m.known = m.version
	record := *m.record
	return &record, []byte(record.HolderIdentity + record.RenewTime.String()), nil
}

func (m *memory) Create(_ context.Context, record resourcelock.LeaderElectionRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	if m.record != nil {
		return apierrors.NewAlreadyExists(leases, Name)
	}
	m.put(record)
	return nil
}

func (m *memory) Update(_ context.Context, record resourcelock.LeaderElectionRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	if m.record == nil || m.known != m.version {
		return apierrors.NewConflict(leases, Name, errors.New("it has changed"))
	}
	m.put(record)
	return nil
}

func (m *memory) put(record resourcelock.LeaderElectionRecord) {
	m.version++
	m.record, m.known = &record, m.version
}

func (m *memory) RecordEvent(string) {}
func (m *memory) Identity() string   { return m.id }
func (m *memory) Describe() string   { return Name }

// clock is the same for wall and monotonic time.
type clock struct {
	mu  sync.Mutex
	now gate.Reading
}

func (c *clock) read() gate.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Wall, c.now.Mono = c.now.Wall.Add(d), c.now.Mono+d
}

func newLock(o *object, id string, c *clock) (*Lock, *gate.Gate) {
	g := gate.New(10*time.Second, c.read)
	return &Lock{Interface: &memory{object: o, id: id}, gate: g, log: logr.Discard()}, g
}

// passes says how a Pass ends whose caller does not wait.
func passes(g *gate.Gate) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errWaits)
	return g.Pass(ctx)
}

var errWaits = errors.New("it waits")

func held(id string) resourcelock.LeaderElectionRecord {
	return resourcelock.LeaderElectionRecord{HolderIdentity: id, LeaseDurationSeconds: 15}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRenewalsOpenTheGate(t *testing.T) {
	o, c := &object{}, &clock{}
	lock, g := newLock(o, "old", c)
	if err := passes(g); !errors.Is(err, errWaits) {
		t.Errorf("before the election: %v", err)
	}
	must(t, lock.Create(t.Context(), held("old")))
	must(t, passes(g))
	c.move(10 * time.Second)
	if err := passes(g); !errors.Is(err, errWaits) {
		t.Errorf("not renewed: %v", err)
	}
	o.broken = errors.New("no connection")
	if err := lock.Update(t.Context(), held("old")); err == nil {
		t.Fatal("a renewal without a connection")
	}
	if err := passes(g); !errors.Is(err, errWaits) {
		t.Errorf("not renewed: %v", err)
	}
	o.broken = nil
	must(t, lock.Update(t.Context(), held("old")))
	must(t, passes(g))
}

// taken gives a lease that one server led and another has taken from it.
func taken(t *testing.T) (o *object, old *Lock, g *gate.Gate) {
	t.Helper()
	c := &clock{}
	o = &object{}
	old, g = newLock(o, "old", c)
	other, _ := newLock(o, "new", c)
	must(t, old.Create(t.Context(), held("old")))
	if _, _, err := other.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, other.Update(t.Context(), held("new")))
	return o, old, g
}

func TestReplacedLeaderSeesIt(t *testing.T) {
	_, old, g := taken(t)
	must(t, passes(g)) // by its clock the lease is held; it cannot know
	if _, _, err := old.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := passes(g); !errors.Is(err, gate.ErrShut) {
		t.Errorf("it has seen another holder: %v", err)
	}
	if err := old.Update(t.Context(), held("old")); !errors.Is(err, gate.ErrShut) {
		t.Errorf("it takes the lease again: %v", err)
	}
}

func TestReplacedLeaderGivesNothingAway(t *testing.T) {
	o, old, g := taken(t)
	if _, _, err := old.Get(t.Context()); err != nil { // as the election does before it gives a lease away
		t.Fatal(err)
	}
	if err := old.Update(t.Context(), resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1}); !errors.Is(err, errNotHeld) {
		t.Errorf("it gives the lease of another away: %v", err)
	}
	if o.record.HolderIdentity != "new" {
		t.Errorf("the lease is held by %q", o.record.HolderIdentity)
	}
	if err := passes(g); !errors.Is(err, gate.ErrShut) {
		t.Errorf("the gate: %v", err)
	}
}

func TestGivingAwayShutsFirst(t *testing.T) {
	o, c := &object{}, &clock{}
	lock, g := newLock(o, "old", c)
	must(t, lock.Create(t.Context(), held("old")))
	must(t, lock.Update(t.Context(), resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1}))
	if err := passes(g); !errors.Is(err, gate.ErrShut) || o.record.HolderIdentity != "" {
		t.Errorf("%v, holder %q", err, o.record.HolderIdentity)
	}
}

// TestElection has client-go's own election lose a lease without noticing, as a process does that was stopped past its end, and wake up: it
// must end, and leave the lease with whom it is.
func TestElection(t *testing.T) {
	o, c := &object{}, &clock{}
	lock, g := newLock(o, "old", c)
	times := Times{Lease: 3 * time.Second, Renew: 200 * time.Millisecond, Retry: 20 * time.Millisecond}
	led := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: times.Lease, RenewDeadline: times.Renew, RetryPeriod: times.Retry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(led) }, OnStoppedLeading: func() {}},
	})
	must(t, err)
	ended := make(chan struct{})
	go func() { // ends with the lease
		defer close(ended)
		elector.Run(t.Context())
	}()
	<-led
	o.mu.Lock()
	record := held("new")
	o.record, o.version = &record, o.version+1
	o.mu.Unlock()
	<-ended
	if o.record.HolderIdentity != "new" {
		t.Errorf("the lease is held by %q", o.record.HolderIdentity)
	}
	if err := passes(g); !errors.Is(err, gate.ErrShut) {
		t.Errorf("the gate: %v", err)
	}
}

func TestTimesOf(t *testing.T) {
	for lease, fails := range map[time.Duration]bool{
		0: false, 3 * time.Second: false, 15 * time.Second: false, time.Minute: false,
		time.Second: true, 3500 * time.Millisecond: true, -time.Second: true,
	} {
		times, err := TimesOf(lease)
		if (err != nil) != fails {
			t.Errorf("%s: %v", lease, err)
		}
		if err == nil && (times.Renew >= times.Lease || times.Retry*3 > times.Renew) {
			t.Errorf("%s: %+v", lease, times)
		}
	}
}
