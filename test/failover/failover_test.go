//go:build unix

package failover_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/test/faults"
)

const seed = 20261126

// moments is how many there are for each fault: KEDGE_MOMENTS, or 50 in a soak, or a few.
func moments(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("KEDGE_MOMENTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if os.Getenv("KEDGE_SOAK") != "" {
		return 50
	}
	return 2
}

// fault takes the leader away, and brings back what can come back. span is how long the operation takes undisturbed.
type fault struct {
	name string
	do   func(t *testing.T, p *pair, leader *server, chance *rand.Rand, span time.Duration) (what string)
}

// some is a random part of a time.
func some(chance *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(chance.Float64() * float64(d))
}

// disturbances are the three ways.
var disturbances = []fault{
	{"kill", func(t *testing.T, _ *pair, leader *server, _ *rand.Rand, _ time.Duration) string {
		t.Helper()
		_ = leader.cmd.Process.Kill()
		<-leader.exited
		return "killed"
	}},
	{"cut", cutOff},
	{"stop", stopped},
}

// cutOff cuts the leader off from the API server, the bucket or both. The network is mended when another server leads and is at work; what the old one
// had sent is delivered only then. One that only lost the bucket leads on.
func cutOff(t *testing.T, p *pair, leader *server, chance *rand.Rand, span time.Duration) string {
	t.Helper()
	what := []string{"API server", "bucket", "both"}[chance.IntN(3)]
	if what != "bucket" {
		leader.api.Cut()
	}
	if what != "API server" {
		leader.s3.Cut()
	}
	if what == "bucket" {
		time.Sleep(some(chance, 2*leaseOf))
		leader.s3.Mend()
		return "cut off from the bucket"
	}
	p.leader(t, leader)
	time.Sleep(some(chance, span))
	leader.api.Mend()
	leader.s3.Mend()
	p.ended(t, leader)
	return "cut off from " + what
}

// stopped stops the leader's process, and wakes it when another server leads and is at work.
func stopped(t *testing.T, p *pair, leader *server, chance *rand.Rand, span time.Duration) string {
	t.Helper()
	if err := leader.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.leader(t, leader)
	time.Sleep(some(chance, span))
	if err := leader.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.ended(t, leader)
	return "stopped"
}

// trial is one operation that was disturbed.
type trial struct {
	op   *operation
	name string
	uid  types.UID
}

// judge says what is wrong with an operation that is over.
func (w *world) judge(ctx context.Context, x trial) error {
	l := w.history.of(x.uid)
	return errors.Join(l.once(x.op.end), x.op.check(ctx, x.name, x.uid))
}

// TestFailover takes the leader away at random moments of backups, restores and deletions.
func TestFailover(t *testing.T) {
	w := newWorld(t)
	p := newPair(t, w)
	p.leader(t, nil)
	w.backUpSource(t)
	spans := map[*operation]time.Duration{}
	operations := w.operations()
	for _, op := range operations {
		spans[op] = w.undisturbed(t, op)
		t.Logf("undisturbed, a %s takes %s", op.name, spans[op].Round(time.Millisecond))
	}
	var all []trial
	seen := faults.Histogram{}
	for which, f := range disturbances {
		t.Run(f.name, func(t *testing.T) {
			chance := rand.New(rand.NewPCG(seed, uint64(which)))
			for i := range moments(t) {
				op := operations[(i+which)%len(operations)] // so that a short run has all of them
				all = append(all, w.try(t, p, f, op, fmt.Sprintf("%s-%s-%d", op.name, f.name, i+1), chance, spans[op], seen))
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("where the leader was taken away (seed %d):\n%s", seed, seen)
	for _, x := range all { // nothing has come late
		if err := w.judge(t.Context(), x); err != nil && !t.Failed() {
			t.Errorf("%s, looked at again at the end: %v", x.name, err)
		}
	}
	w.sweep(t)
}

// undisturbed runs an operation twice in peace, as the first meets what is not warm yet, and gives how long the second took.
func (w *world) undisturbed(t *testing.T, op *operation) time.Duration {
	t.Helper()
	var took time.Duration
	for i := range 2 {
		name := fmt.Sprintf("%s-calm-%d", op.name, i+1)
		op.prepare(t, name)
		began := time.Now()
		uid := op.begin(t, name).GetUID()
		w.over(t, op, name, uid)
		took = time.Since(began)
		op.undisturbed(t, name, uid)
		if err := w.judge(t.Context(), trial{op, name, uid}); err != nil {
			t.Fatalf("undisturbed, %s: %v", name, err)
		}
	}
	return took
}

// over waits for the end of an operation.
func (w *world) over(t *testing.T, op *operation, name string, uid types.UID) {
	t.Helper()
	until(t, "the end of "+op.name+" "+name, func(context.Context) (bool, any) {
		l := w.history.of(uid)
		return l.final, fmt.Sprintf("%q, %s", l.phases, l.stage)
	})
}

// try disturbs one operation at a random moment.
func (w *world) try(t *testing.T, p *pair, f fault, op *operation, name string, chance *rand.Rand, span time.Duration, seen faults.Histogram) trial {
	t.Helper()
	moment := some(chance, span)
	op.prepare(t, name)
	leader := p.leader(t, nil)
	x := trial{op, name, op.begin(t, name).GetUID()}
	time.Sleep(moment)
	before := w.history.of(x.uid)
	what := f.do(t, p, leader, chance, span)
	w.over(t, op, name, x.uid)
	p.leader(t, nil)
	until(t, name+", "+what+" after "+moment.String()+": it has ended as undisturbed", func(ctx context.Context) (bool, any) {
		err := w.judge(ctx, x)
		return err == nil, err
	})
	after := w.history.of(x.uid)
	t.Logf("%s: %s after %s, %s; %d attempts; right in the end", name, what, moment.Round(time.Millisecond), where(before), after.attempts)
	seen.Add(faults.Outcome{Killed: true, Step: op.name + ": " + where(before)})
	return x
}

// where is the step that an object said it was in.
func where(l life) string {
	phase := "not begun"
	if n := len(l.phases); n > 0 && l.phases[n-1] != "" {
		phase = l.phases[n-1]
	}
	if l.final {
		return "ended"
	}
	if phase == string(v1alpha1.PhaseInProgress) && l.stage != "" {
		stage, _, _ := strings.Cut(l.stage, " ")
		return "in " + stage
	}
	return phase
}

// backUpSource makes the backup that restores are of.
func (w *world) backUpSource(t *testing.T) {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: meta(source), Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{lost}}}}
	w.create(t, b)
	until(t, "the backup of what will be lost", func(context.Context) (bool, any) {
		l := w.history.of(b.UID)
		return l.final, fmt.Sprintf("%q", l.phases)
	})
	l := w.history.of(b.UID)
	if err := l.once(string(v1alpha1.PhaseCompleted)); err != nil {
		t.Fatal(err)
	}
}

// sweep does what retention does after two days, and looks at what then is in the bucket: nothing but whole backups, and what belongs to them.
func (w *world) sweep(t *testing.T) {
	t.Helper()
	later := func() time.Time { return time.Now().Add(archive.MinSweepAge + time.Hour) }
	swept, err := w.archive.Sweep(t.Context(), archive.SweepOptions{OlderThan: archive.MinSweepAge, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("left by attempts that were cut off, and swept: %d folders, %d objects", len(swept.Attempts), swept.Objects)
	owned := map[string]bool{}
	err = w.archive.Backups(t.Context(), func(e archive.Entry) error {
		owned["backups/"+e.Name+"/"+e.UID+"/backup.json"] = true
		for _, f := range e.Record.Files {
			owned["backups/"+e.Name+"/"+e.UID+"/"+e.Record.Attempt+"/"+f.Name] = true
		}
		return e.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.stored(t.Context(), "")
	if err == nil {
		err = writtenOnce(keys)
	}
	if err != nil {
		t.Error(err)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		folder, _, _ := strings.Cut(key, "/")
		switch {
		case key == "kedge.json", folder == "keys", folder == "restores": // those of restores are compared one by one
		case !owned[key]:
			t.Errorf("in the bucket is also %s", key)
		}
	}
}
