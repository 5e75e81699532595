package files

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// seal stores a folder whose entries are complete.
func (r *copyRun) seal(ctx context.Context, f *unfinished) (*snapshot.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	entry, err := r.store(ctx, f, nil, f.tally, "")
	if err != nil {
		return nil, fmt.Errorf("store folder %q: %w", f.path, err)
	}
	f.done = entry
	f.entries.close()
	f.records.close()
	return entry, nil
}

// store writes a folder's sidecar and object: its entries so far, then more, which are folders. Where nothing differs from
// the first earlier snapshot, its object is used again, and nothing is written but the sidecar. The caller holds f.mu.
func (r *copyRun) store(ctx context.Context, f *unfinished, more []byte, t tally, incomplete string) (*snapshot.DirEntry, error) {
	var sidecar []byte
	if f.records.size > 0 {
		e, err := r.storeSidecar(ctx, f)
		if err != nil {
			return nil, err
		}
		t.sum.FailedEntries = slices.Clone(t.sum.FailedEntries)
		t.add(e)
		if sidecar, err = appendEntry(nil, e); err != nil {
			return nil, err
		}
	}
	entry := f.meta
	entry.DirSummary = t.summary(f.meta.ModTime, incomplete)
	summary, err := json.Marshal(entry.DirSummary)
	if err != nil {
		return nil, fmt.Errorf("encode summary: %w", err)
	}
	if f.same && incomplete == "" {
		p := f.prev[0]
		if p.finished() && bytes.Equal(p.sidecar, sidecar) && bytes.Equal(p.entries.summary, summary) {
			entry.ObjectID = p.id
			return &entry, nil
		}
	}
	entry.ObjectID, err = r.storeEntries(ctx, f, more, sidecar, summary)
	return &entry, err
}

// storeSidecar writes what kopia's entries cannot hold, as a file of its own.
func (r *copyRun) storeSidecar(ctx context.Context, f *unfinished) (*snapshot.DirEntry, error) {
	w := r.repo.NewObjectWriter(ctx, object.WriterOptions{
		Description: "SIDECAR", Compressor: metadataCompressor, MetadataCompressor: metadataCompressor,
	})
	defer func() { _ = w.Close() }()
	size, err := io.Copy(w, f.records.section(0, f.records.size))
	if err != nil {
		return nil, err
	}
	id, err := w.Result()
	if err != nil {
		return nil, err
	}
	// No time of its own: what does not change is stored once.
	return &snapshot.DirEntry{Name: sidecarName, Type: snapshot.EntryTypeFile, Permissions: 0o600, FileSize: size, ObjectID: id}, nil
}

// storeEntries writes a folder's object as kopia would.
func (r *copyRun) storeEntries(ctx context.Context, f *unfinished, more, sidecar, summary []byte) (object.ID, error) {
	w := r.repo.NewObjectWriter(ctx, object.WriterOptions{
		Description: "DIR", Prefix: "k", Compressor: metadataCompressor, MetadataCompressor: metadataCompressor,
	})
	defer func() { _ = w.Close() }()
	cut := f.sidecarAt
	if cut < 0 {
		cut = f.entries.size
	}
	if sidecar != nil {
		sidecar = append(sidecar, ',')
	}
	rest := f.entries.size - cut
	size := cut + int64(len(more)+len(sidecar)) + rest
	entries := io.MultiReader(
		f.entries.section(0, cut), bytes.NewReader(more), bytes.NewReader(sidecar), f.entries.section(cut, f.entries.size))
	parts := io.MultiReader(strings.NewReader(`{"stream":"`+folderStream+`","entries":`), strings.NewReader("null"))
	if size > 0 { // without the last comma
		parts = io.MultiReader(strings.NewReader(`{"stream":"`+folderStream+`","entries":[`), io.LimitReader(entries, size-1), strings.NewReader("]"))
	}
	end := append(append([]byte(`,"summary":`), summary...), '}', '\n')
	if _, err := io.Copy(w, io.MultiReader(parts, bytes.NewReader(end))); err != nil {
		return object.EmptyID, err
	}
	return w.Result()
}

// checkpoint saves what is copied so far as an unfinished snapshot, in place of the one before.
func (r *copyRun) checkpoint(ctx context.Context, reason string) error {
	if r.root == nil {
		return nil
	}
	entry, err := r.partial(ctx, r.root, reason)
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	id, err := snapshot.SaveSnapshot(ctx, r.repo, r.manifest(entry, reason))
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	var old manifest.ID
	old, r.saved = r.saved, id
	if old != "" {
		if err := r.repo.DeleteManifest(ctx, old); err != nil {
			return fmt.Errorf("save checkpoint: %w", err)
		}
	}
	if err := r.repo.Flush(ctx); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	r.counts.checkpoints.Add(1)
	return nil
}

// partial stores a folder as far as it is, with those that were begun in it.
func (r *copyRun) partial(ctx context.Context, f *unfinished, reason string) (*snapshot.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done != nil {
		return f.done, nil
	}
	t := f.tally
	t.sum.FailedEntries = slices.Clone(t.sum.FailedEntries)
	var names []string
	for name := range f.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	var more []byte
	for _, name := range names {
		entry, err := r.partial(ctx, f.kids[name], reason)
		if err != nil {
			return nil, err
		}
		t.add(entry)
		if more, err = appendEntry(more, entry); err != nil {
			return nil, err
		}
		more = append(more, ',')
	}
	return r.store(ctx, f, more, t, reason)
}
