package volumetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

const block = plugins.BlockSize

// direct is the provider as one of blocks.
func direct(t *testing.T, provider plugins.VolumeSnapshotter) plugins.BlockSnapshots {
	t.Helper()
	p, ok := provider.(plugins.BlockSnapshots)
	if !ok {
		t.Fatalf("%T is no plugins.BlockSnapshots", provider)
	}
	return p
}

// take writes blocks, given by index, to a volume and takes a snapshot that is completed.
func take(t *testing.T, w *World, volume, token string, blocks map[int64][]byte) string {
	t.Helper()
	for _, index := range indexes(blocks) {
		w.Write(t, volume, index*block, blocks[index])
	}
	return completed(t, w, snap(t, w, token, volume)[0].ID).ID
}

func openBlocks(t *testing.T, w *World, id, base string) plugins.BlockSource {
	t.Helper()
	src, err := direct(t, w.Provider).OpenBlocks(t.Context(), id, base)
	if err != nil {
		t.Fatalf("OpenBlocks: %v", err)
	}
	if src.Base() != base || src.SizeBytes() < 1<<30 {
		t.Errorf("the source has base %q and %d bytes", src.Base(), src.SizeBytes())
	}
	return src
}

// sample are blocks enough for a few pages, whose indexes have gaps.
func sample() map[int64][]byte {
	blocks := map[int64][]byte{}
	for i, index := range []int64{0, 1, 2, 7, 8, 100, 101, 1000, 2047} {
		blocks[index] = noise(uint64(i), block)
	}
	return blocks
}

// sameBlocks fails the test unless got is want; blocks of zeros may be listed or not.
func sameBlocks(t *testing.T, got, want map[int64][]byte) {
	t.Helper()
	zeros := make([]byte, block)
	for _, index := range indexes(got) {
		data := want[index]
		if data == nil {
			data = zeros
		}
		if !bytes.Equal(got[index], data) {
			t.Errorf("block %d has other bytes", index)
		}
	}
	for _, index := range indexes(want) {
		if _, ok := got[index]; !ok && !bytes.Equal(want[index], zeros) {
			t.Errorf("block %d is not listed", index)
		}
	}
}

func testReadAll(t *testing.T, w *World) {
	blocks := sample()
	id := take(t, w, w.NewVolume(t, ""), "token", blocks)
	src := openBlocks(t, w, id, "")
	sameBlocks(t, contents(t, src), blocks)
	sameBlocks(t, contents(t, src), blocks) // a source can be listed again
}

func testReadChanges(t *testing.T, w *World) {
	volume := w.NewVolume(t, "")
	first := take(t, w, volume, "one", sample())
	changes := map[int64][]byte{1: noise(50, block), 50: noise(51, block), 2047: noise(52, block)}
	second := take(t, w, volume, "two", changes)
	got := contents(t, openBlocks(t, w, second, first))
	if !slices.Equal(indexes(got), indexes(changes)) {
		t.Errorf("changed blocks %v, want %v", indexes(got), indexes(changes))
	}
	sameBlocks(t, got, changes)
	if got := contents(t, openBlocks(t, w, second, second)); len(got) != 0 {
		t.Errorf("a snapshot differs from itself in %v", indexes(got))
	}
}

func testReadDiscarded(t *testing.T, w *World) {
	if w.Discard == nil {
		t.Skip("nothing can be discarded")
	}
	volume := w.NewVolume(t, "")
	first := take(t, w, volume, "one", sample())
	w.Discard(t, volume, 7*block, 2*block)
	second := take(t, w, volume, "two", nil)
	src := openBlocks(t, w, second, first)
	got := contents(t, src)
	if !slices.Equal(indexes(got), []int64{7, 8}) {
		t.Fatalf("changed blocks %v, want 7 and 8", indexes(got))
	}
	for index, data := range got {
		if data != nil && !bytes.Equal(data, make([]byte, block)) {
			t.Errorf("block %d is not zeros", index)
		}
	}
}

func testNoBase(t *testing.T, w *World) {
	id := take(t, w, w.NewVolume(t, ""), "one", sample())
	other := take(t, w, w.NewVolume(t, ""), "two", sample())
	for what, base := range map[string]string{"of another volume": other, "that is gone": w.UnknownSnapshot} {
		_, err := direct(t, w.Provider).OpenBlocks(t.Context(), id, base)
		want(t, "OpenBlocks with a base "+what, err, plugins.ErrNoBase)
	}
}

func testOpenNothing(t *testing.T, w *World) {
	_, err := direct(t, w.Provider).OpenBlocks(t.Context(), w.UnknownSnapshot, "")
	want(t, "OpenBlocks of no snapshot", err, plugins.ErrVolumeGone)
	_, err = direct(t, w.Provider).OpenBlocks(cancelled(t), w.UnknownSnapshot, "")
	want(t, "OpenBlocks that is cancelled", err, context.Canceled)
}

func testStopListing(t *testing.T, w *World) {
	src := openBlocks(t, w, take(t, w, w.NewVolume(t, ""), "one", sample()), "")
	enough := errors.New("enough")
	seen := 0
	err := src.Blocks(t.Context(), func(plugins.Block) error {
		if seen++; seen == 2 {
			return enough
		}
		return nil
	})
	if err != enough || seen != 2 { //nolint:errorlint // as it is
		t.Errorf("Blocks gives %v after %d blocks, want fn's error as it is after 2", err, seen)
	}
}

func testExpiredTokens(t *testing.T, w *World) {
	if w.ExpireTokens == nil {
		t.Skip("tokens do not expire")
	}
	blocks := sample()
	src := openBlocks(t, w, take(t, w, w.NewVolume(t, ""), "one", blocks), "")
	var listed []plugins.Block
	if err := src.Blocks(t.Context(), func(b plugins.Block) error { listed = append(listed, b); return nil }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.ExpireTokens()
		var group errgroup.Group
		for _, b := range listed {
			group.Go(func() error {
				buf := make([]byte, block)
				n, err := src.ReadBlock(t.Context(), b, buf)
				if err == nil && !bytes.Equal(buf[:n], blocks[b.Index]) {
					t.Errorf("block %d has other bytes", b.Index)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatalf("ReadBlock with an expired token: %v", err)
		}
	}
}

func testDamagedRead(t *testing.T, w *World) {
	if w.DamageRead == nil {
		t.Skip("nothing damages blocks")
	}
	blocks := sample()
	src := openBlocks(t, w, take(t, w, w.NewVolume(t, ""), "one", blocks), "")
	w.DamageRead()
	sameBlocks(t, contents(t, src), blocks)
}

// start begins a snapshot of 1 GiB.
func start(t *testing.T, provider plugins.VolumeSnapshotter, token, parent string) plugins.BlockTarget {
	t.Helper()
	target, err := direct(t, provider).StartBlocks(t.Context(), plugins.VolumeRequest{Token: token, SnapshotID: parent, SizeBytes: 1 << 30, Tags: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatalf("StartBlocks: %v", err)
	}
	if target.SnapshotID() == "" {
		t.Error("the snapshot has no id")
	}
	return target
}

// put writes blocks from several goroutines.
func put(t *testing.T, target plugins.BlockTarget, blocks map[int64][]byte) {
	t.Helper()
	var group errgroup.Group
	for index, data := range blocks {
		group.Go(func() error { return target.WriteBlock(t.Context(), index, data) })
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("WriteBlock: %v", err)
	}
}

func complete(t *testing.T, target plugins.BlockTarget, blocks int) plugins.Snapshot {
	t.Helper()
	s, err := target.Complete(t.Context(), int64(blocks))
	if err != nil {
		t.Fatalf("Complete: %v", err)
	}
	if s.ID != target.SnapshotID() || s.State != plugins.SnapshotCompleted || s.Tags["k"] != "v" {
		t.Errorf("the snapshot is %+v", s)
	}
	return s
}

func testWrite(t *testing.T, w *World) {
	blocks := sample()
	blocks[2047] = blocks[2047][:100] // the last one may be shorter
	target := start(t, w.Provider, "token", "")
	put(t, target, blocks)
	if err := target.WriteBlock(t.Context(), 7, blocks[7]); err != nil {
		t.Errorf("WriteBlock again: %v", err)
	}
	s := complete(t, target, len(blocks))
	made, err := w.Provider.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "v", SnapshotID: s.ID, Zone: w.Zone, Attributes: w.Attributes})
	if err != nil {
		t.Fatal(err)
	}
	for index, data := range blocks {
		sameBytes(t, w, made.Handle, index*block, data)
	}
	blocks[2047] = append(slices.Clone(blocks[2047]), make([]byte, block-100)...)
	sameBlocks(t, contents(t, openBlocks(t, w, s.ID, "")), blocks)
}

func testWriteChild(t *testing.T, w *World) {
	blocks := sample()
	parent := start(t, w.Provider, "parent", "")
	put(t, parent, blocks)
	base := complete(t, parent, len(blocks)).ID
	changes := map[int64][]byte{1: noise(60, block), 3: noise(61, block)}
	child := start(t, w.Provider, "child", base)
	put(t, child, changes)
	id := complete(t, child, len(changes)).ID
	maps.Copy(blocks, changes)
	sameBlocks(t, contents(t, openBlocks(t, w, id, "")), blocks)
	if got := contents(t, openBlocks(t, w, id, base)); !slices.Equal(indexes(got), indexes(changes)) {
		t.Errorf("changed blocks %v, want %v", indexes(got), indexes(changes))
	}
}

func testResumeWriting(t *testing.T, w *World) {
	blocks := sample()
	w.LoseReplies()
	first := start(t, w.Provider, "token", "")
	w.LoseReplies()
	put(t, first, map[int64][]byte{0: blocks[0], 7: blocks[7]})
	second := start(t, w.Another(t), "token", "")
	if second.SnapshotID() != first.SnapshotID() {
		t.Errorf("the same token gives %s, then %s", first.SnapshotID(), second.SnapshotID())
	}
	put(t, second, blocks)
	s := complete(t, second, len(blocks))
	count(t, "snapshots", w.Snapshots(), 1)
	sameBlocks(t, contents(t, openBlocks(t, w, s.ID, "")), blocks)
}

func testResumeCompleted(t *testing.T, w *World) {
	blocks := sample()
	first := start(t, w.Provider, "token", "")
	late := start(t, w.Another(t), "token", "") // before it is completed
	put(t, first, blocks)
	id := complete(t, first, len(blocks)).ID
	after := start(t, w.Another(t), "token", "")
	for _, target := range []plugins.BlockTarget{late, after} {
		put(t, target, blocks)
		if s := complete(t, target, len(blocks)); s.ID != id {
			t.Errorf("the same token gives %s, then %s", id, s.ID)
		}
	}
	count(t, "snapshots", w.Snapshots(), 1)
	sameBlocks(t, contents(t, openBlocks(t, w, id, "")), blocks)
}

func testLostReplyOfCompletion(t *testing.T, w *World) {
	blocks := sample()
	target := start(t, w.Provider, "token", "")
	put(t, target, blocks)
	w.LoseReplies()
	id := complete(t, target, len(blocks)).ID
	sameBlocks(t, contents(t, openBlocks(t, w, id, "")), blocks)
}

func testWrongCount(t *testing.T, w *World) {
	blocks := sample()
	target := start(t, w.Provider, "token", "")
	put(t, target, blocks)
	if s, err := target.Complete(t.Context(), int64(len(blocks)+1)); err == nil {
		t.Errorf("Complete with one block too many gives %+v", s)
	}
	complete(t, target, len(blocks))
}

func testBadBlocks(t *testing.T, w *World) {
	target := start(t, w.Provider, "token", "")
	for what, err := range map[string]error{
		"before the volume": target.WriteBlock(t.Context(), -1, noise(1, block)),
		"behind the volume": target.WriteBlock(t.Context(), 1<<30/block, noise(1, block)),
		"that is too long":  target.WriteBlock(t.Context(), 0, noise(1, block+1)),
		"that is empty":     target.WriteBlock(t.Context(), 0, nil),
	} {
		want(t, "WriteBlock of a block "+what, err, plugins.ErrConfig)
	}
	want(t, "WriteBlock that is cancelled", target.WriteBlock(cancelled(t), 0, noise(1, block)), context.Canceled)
}
