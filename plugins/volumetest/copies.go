package volumetest

import (
	"context"
	"errors"
	"testing"

	"kedge.dev/kedge/plugins"
)

// copier is the world's provider, and a completed snapshot of a volume that has some bytes.
func copier(t *testing.T, w *World) (p plugins.SnapshotCopier, snapshot string, bytes []byte) {
	t.Helper()
	p, ok := w.Provider.(plugins.SnapshotCopier)
	if !ok {
		t.Fatalf("%s copies no snapshots", w.Provider.Name())
	}
	handle := w.NewVolume(t, "")
	bytes = noise(7, 3*plugins.BlockSize)
	w.Write(t, handle, 0, bytes)
	return p, completed(t, w, snap(t, w, "source", handle)[0].ID).ID, bytes
}

func ask(w *World, snapshot string, place int) plugins.SnapshotCopyRequest {
	to := w.Places[place]
	return plugins.SnapshotCopyRequest{
		Token: "copy", SnapshotID: snapshot, To: to.Place, KMSKeyID: to.KMSKeyID, Tags: map[string]string{"suite": "volumetest", "purpose": "copy"},
	}
}

// testCopyAndRestore copies to each place, and makes volumes there of the copies when the snapshot is gone.
func testCopyAndRestore(t *testing.T, w *World) {
	p, snapshot, bytes := copier(t, w)
	copies := make([]plugins.Snapshot, len(w.Places))
	for i := range w.Places {
		req := ask(w, snapshot, i)
		last := -1
		req.Progress = func(percent int) {
			if percent < last || percent > 100 {
				t.Errorf("place %d: %d percent after %d", i, percent, last)
			}
			last = percent
		}
		var err error
		if copies[i], err = p.CopySnapshot(t.Context(), req); err != nil {
			t.Fatalf("copy to %s: %v", req.To, err)
		}
		if c := copies[i]; c.ID == snapshot || c.State != plugins.SnapshotCompleted || c.Tags["purpose"] != "copy" || req.KMSKeyID != "" && c.KMSKeyID != req.KMSKeyID {
			t.Errorf("the copy in %s is %+v", req.To, c)
		}
	}
	if err := p.DeleteSnapshot(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	for i, place := range w.Places {
		there, err := p.At(place.Place)
		if err != nil {
			t.Fatal(err)
		}
		found, err := there.FindSnapshots(t.Context(), map[string]string{"purpose": "copy"})
		if err != nil || len(found) != 1 || found[0].ID != copies[i].ID {
			t.Errorf("in %s there are %+v, %v", place.Place, found, err)
		}
		made, err := there.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "restored", SnapshotID: copies[i].ID, Zone: place.Zone})
		if err != nil {
			t.Fatalf("make a volume in %s: %v", place.Place, err)
		}
		sameBytes(t, w, made.Handle, 0, bytes)
		if err := there.DeleteSnapshot(t.Context(), copies[i].ID); err != nil {
			t.Error(err)
		}
	}
	count(t, "snapshots", w.Snapshots(), 0)
}

// testCopyAgain asks twice with one token, the second time as another process.
func testCopyAgain(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	first, err := p.CopySnapshot(t.Context(), ask(w, snapshot, 0))
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.CopySnapshot(t.Context(), ask(w, snapshot, 0))
	if err != nil || again.ID != first.ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	for range 10 {
		w.Pause()
	}
	other, _ := w.Another(t).(plugins.SnapshotCopier)
	if again, err = other.CopySnapshot(t.Context(), ask(w, snapshot, 0)); err != nil || again.ID != first.ID {
		t.Errorf("asked by another process: %+v, %v", again, err)
	}
	count(t, "snapshots", w.Snapshots(), 2)
}

func testCopyTokenOfOthers(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	if _, err := p.CopySnapshot(t.Context(), ask(w, snapshot, 0)); err != nil {
		t.Fatal(err)
	}
	other := completed(t, w, snap(t, w, "another", w.NewVolume(t, ""))[0].ID)
	_, err := p.CopySnapshot(t.Context(), ask(w, other.ID, 0))
	want(t, "a token of another snapshot's copy", err, plugins.ErrConfig)
	count(t, "snapshots", w.Snapshots(), 3)
}

func testLostReplyOfCopy(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	w.LoseReplies()
	for i := range w.Places {
		if _, err := p.CopySnapshot(t.Context(), ask(w, snapshot, i)); err != nil {
			t.Fatal(err)
		}
	}
	count(t, "snapshots", w.Snapshots(), 1+len(w.Places))
}

func testNoRoomForCopy(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	w.NoRoom()
	if _, err := p.CopySnapshot(t.Context(), ask(w, snapshot, 0)); err != nil {
		t.Fatal(err)
	}
	count(t, "snapshots", w.Snapshots(), 2)
}

// testCopyFails asks for a copy under a key that cannot be used: nothing of it stays, and the token is good still.
func testCopyFails(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	req := ask(w, snapshot, 0)
	req.KMSKeyID = w.BadKey
	if made, err := p.CopySnapshot(t.Context(), req); err == nil {
		t.Errorf("a copy under a key that is not there is %+v", made)
	}
	count(t, "snapshots", w.Snapshots(), 1)
	if _, err := p.CopySnapshot(t.Context(), ask(w, snapshot, 0)); err != nil {
		t.Error(err)
	}
	count(t, "snapshots", w.Snapshots(), 2)
}

func testCopyOfNothing(t *testing.T, w *World) {
	p, _, _ := copier(t, w)
	_, err := p.CopySnapshot(t.Context(), ask(w, w.UnknownSnapshot, 0))
	want(t, "a copy of a snapshot that never was", err, plugins.ErrVolumeGone)
	req := ask(w, "", 0)
	_, err = p.CopySnapshot(t.Context(), req)
	want(t, "a copy of no snapshot", err, plugins.ErrConfig)
	req = ask(w, w.UnknownSnapshot, 0)
	req.Token = ""
	_, err = p.CopySnapshot(t.Context(), req)
	want(t, "a copy without a token", err, plugins.ErrConfig)
}

// testCopyToNowhere asks for a copy where the snapshot is.
func testCopyToNowhere(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	req := ask(w, snapshot, 0)
	req.To = plugins.Place{}
	_, err := p.CopySnapshot(t.Context(), req)
	want(t, "a copy to the same place", err, plugins.ErrConfig)
	count(t, "snapshots", w.Snapshots(), 1)
}

// testCancelCopy cancels a copy under way, and goes on with it.
func testCancelCopy(t *testing.T, w *World) {
	p, snapshot, _ := copier(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	req := ask(w, snapshot, 0)
	req.Progress = func(int) { cancel() }
	if _, err := p.CopySnapshot(ctx, req); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := p.CopySnapshot(cancelled(t), req); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
	req.Progress = nil
	if _, err := p.CopySnapshot(t.Context(), req); err != nil {
		t.Error(err)
	}
	count(t, "snapshots", w.Snapshots(), 2)
}
