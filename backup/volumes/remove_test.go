package volumes

import (
	"context"
	"errors"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
)

// jammed is a provider that has a snapshot which it cannot remove.
type jammed struct {
	plugins.VolumeSnapshotter
}

var errJammed = errors.New("the driver does not answer")

func (jammed) Name() string { return "jammed" }

func (jammed) FindVolumes(context.Context, map[string]string) ([]plugins.Volume, error) {
	return nil, nil
}

func (jammed) FindSnapshots(context.Context, map[string]string) ([]plugins.Snapshot, error) {
	return []plugins.Snapshot{{ID: "old", Started: time.Unix(1, 0), Tags: map[string]string{TagAttempt: "earlier"}}}, nil
}

func (jammed) DeleteSnapshot(context.Context, string) error { return errJammed }

// jammedCluster is one whose snapshots are objects of a cluster.
type jammedCluster struct{ jammed }

func (jammedCluster) Release(context.Context, map[string]string) error { return nil }

// TestStuckRemoval: what a cluster cannot remove is a note. What AWS cannot remove is the backup's error where a volume failed, but not for a copy elsewhere alone.
func TestStuckRemoval(t *testing.T) {
	policies, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	req := Request{UID: "u", Attempt: "a", Began: time.Unix(2, 0), Policies: policies}
	broken := []*taking{{err: errors.New("no snapshot")}}
	for _, c := range []struct {
		name   string
		of     plugins.VolumeProvider
		do     func(*Taker, *Result) error
		failed bool
	}{
		{"cluster, earlier attempt", jammedCluster{}, func(k *Taker, r *Result) error { return k.forget(t.Context(), req, r) }, false},
		{"cluster, volume failed", jammedCluster{}, func(k *Taker, r *Result) error { return k.tidy(t.Context(), req, broken, false, r) }, false},
		{"earlier attempt", jammed{}, func(k *Taker, r *Result) error { return k.forget(t.Context(), req, r) }, true},
		{"volume failed", jammed{}, func(k *Taker, r *Result) error { return k.tidy(t.Context(), req, broken, false, r) }, true},
		{"copy elsewhere failed", jammed{}, func(k *Taker, r *Result) error { return k.tidy(t.Context(), req, nil, true, r) }, false},
	} {
		r := &Result{}
		err := c.do(&Taker{asked: []plugins.VolumeProvider{c.of}}, r)
		if errors.Is(err, errJammed) != c.failed || (err != nil) != c.failed || (len(r.Notes) == 1) == c.failed {
			t.Errorf("%s: %v, with notes %q", c.name, err, r.Notes)
		}
	}
}

// TestUpdate: a snapshot whose state cannot be had costs no other.
func TestUpdate(t *testing.T) {
	p := jammedCluster{}
	todo := []*taking{{provider: p, snapshot: plugins.Snapshot{ID: "good"}}, {provider: p, snapshot: plugins.Snapshot{ID: "bad"}}}
	states := map[string]plugins.Snapshot{"good": {ID: "good", State: plugins.SnapshotCompleted}}
	update(p, states, errJammed, true, todo)
	if todo[0].snapshot.State != plugins.SnapshotCompleted || todo[1].err != nil || todo[1].missed > 0 {
		t.Errorf("at first: %+v, %+v", todo[0], todo[1])
	}
	if update(p, states, errJammed, false, todo); todo[0].err != nil || !errors.Is(todo[1].err, errJammed) {
		t.Errorf("at last: %v, %v", todo[0].err, todo[1].err)
	}
}
