package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// content is what will be uploaded: the plaintext of every file, still in pieces.
type content struct {
	files map[string]sizedReader
	table table
	items int
	bytes int64
}

// sizedReader is a reader that knows how many bytes are left in it.
type sizedReader interface {
	io.Reader
	Len() int
}

// seal uploads everything and commits. Files of an attempt that surely did not become a backup are removed.
func (w *Writer) seal(ctx context.Context, sum *Summary) (*Record, error) {
	began := w.opts.Now()
	c, err := w.layout(sum)
	if err != nil {
		return nil, err
	}
	rec, err := w.uploadAndCommit(ctx, sum, c, began)
	if err != nil && !errors.Is(err, ErrUncertain) {
		w.discard(ctx)
	}
	return rec, err
}

func (w *Writer) uploadAndCommit(ctx context.Context, sum *Summary, c *content, began time.Time) (*Record, error) {
	files, err := w.upload(ctx, c.files)
	if err != nil {
		return nil, err
	}
	rec := w.record(sum, c, files)
	if rec.raw, err = sealJSON(rec); err != nil {
		return nil, err
	}
	if len(rec.raw) > maxRecord {
		return nil, fmt.Errorf("commit record of %d bytes: %w", len(rec.raw), ErrTooLarge)
	}
	if w.opts.Signer != nil {
		sig, err := signRecord(w.opts.Signer, w.opts.Rand, rec.raw, w.signedBy)
		if err != nil {
			return nil, err
		}
		if err := w.put(ctx, FileSignature, bytes.NewReader(sig), int64(len(sig))); err != nil {
			return nil, err
		}
	}
	if err := w.checkCommittable(ctx, rec); err != nil {
		return nil, err
	}
	if took := w.opts.Now().Sub(began); took > sealWindow {
		return nil, fmt.Errorf("the upload took %s, more than %s: a sweep may have begun to remove it (start the backup anew)", took, sealWindow)
	}
	if err := w.commit(ctx, rec); err != nil {
		return nil, err
	}
	return rec, w.confirm(ctx, rec)
}

// checkCommittable makes sure before the commit that nobody deletes the backup and that every file is there in full. Both questions
// are asked at once: a deletion that begins between the answers and the commit is what confirm looks for.
func (w *Writer) checkCommittable(ctx context.Context, rec *Record) error {
	return both(
		func() error { return w.loc.checkNotDeleting(ctx, w.opts.UID) },
		func() error { return w.checkUploaded(ctx, rec) },
	)
}

// confirm looks once more after the commit: a deletion that began at the same moment may have taken the files. Where
// the store does not answer now, the commit stands.
func (w *Writer) confirm(ctx context.Context, rec *Record) error {
	var uploaded error
	deleting := both(
		func() error { return w.loc.checkNotDeleting(ctx, rec.UID) },
		func() error { uploaded = w.checkUploaded(ctx, rec); return nil },
	)
	if errors.Is(deleting, ErrDeleting) {
		return deleting // whoever deletes finds the record too
	}
	var gone *missingError
	if !errors.As(uploaded, &gone) {
		return nil
	}
	return errors.Join(fmt.Errorf("%w: %w", ErrDeleting, gone), w.loc.store.Delete(ctx, recordKey(rec.Name, rec.UID)))
}

// missingError says that a file that was stored is not there, or not whole.
type missingError struct {
	file       string
	size, want int64
}

func (e *missingError) Error() string {
	return fmt.Sprintf("%s has %d of %d bytes in the store (another program removes or changes objects there: find it, and start the backup anew)", e.file, e.size, e.want)
}

// layout decides where every frame lies and puts the files together.
func (w *Writer) layout(sum *Summary) (*content, error) {
	enc, err := newEncoder(w.opts.Level)
	if err != nil {
		return nil, err
	}
	c := &content{table: table{APIs: slices.Clone(sum.APIs), Frames: []Frame{}}}
	slices.SortFunc(c.table.APIs, func(a, b API) int {
		return sectionID{a.Group, a.Resource, ""}.compare(sectionID{b.Group, b.Resource, ""})
	})
	var items, index []part
	var itemsEnd, indexEnd int64
	for _, p := range w.sorted() {
		f := p.frame
		pad := padding(itemsEnd, f.Size)
		f.Offset = itemsEnd + pad
		itemsEnd = f.Offset + f.Size
		items = append(items, part{padding: pad, blob: p.items})
		pad = padding(indexEnd, f.Index.Size)
		f.Index.Offset = indexEnd + pad
		indexEnd = f.Index.Offset + f.Index.Size
		index = append(index, part{padding: pad, blob: p.rows})
		c.table.Frames = append(c.table.Frames, f)
		c.items += f.Items
		c.bytes += f.Bytes
	}
	if int64(c.items) != w.items.Load() {
		return nil, fmt.Errorf("lay out the archive: %d of %d items are there", c.items, w.items.Load())
	}
	if err := c.table.validate(); err != nil {
		return nil, fmt.Errorf("lay out the archive: %w", err)
	}
	items = append(items, endPart(itemsEnd, enc.EncodeAll(tarEnd(), nil)))
	index = append(index, endPart(indexEnd, enc.EncodeAll(nil, nil)))
	logParts, err := w.log.close()
	if err != nil {
		return nil, err
	}
	tableJSON, err := json.Marshal(c.table)
	if err != nil {
		return nil, err
	}
	reportJSON, err := json.Marshal(sum.Report)
	if err != nil {
		return nil, err
	}
	if len(tableJSON) > maxTable || len(reportJSON) > maxReport {
		return nil, fmt.Errorf("table of %d bytes, report of %d: %w", len(tableJSON), len(reportJSON), ErrTooLarge)
	}
	c.files = map[string]sizedReader{
		FileItems:  &assembly{spool: w.spool, parts: items},
		FileIndex:  &assembly{spool: w.spool, parts: index},
		FileLog:    &assembly{spool: w.spool, parts: logParts},
		FileTable:  bytes.NewReader(enc.EncodeAll(tableJSON, nil)),
		FileReport: bytes.NewReader(enc.EncodeAll(reportJSON, nil)),
	}
	if len(sum.Volumes) > 0 {
		rows, err := encodeVolumes(sum.Volumes)
		if err != nil {
			return nil, err
		}
		c.files[FileVolumes] = bytes.NewReader(enc.EncodeAll(rows, nil))
	}
	return c, nil
}

// endPart is the end of a file whose frames end at offset.
func endPart(offset int64, end []byte) part {
	return part{padding: endPadding(offset, int64(len(end))), literal: end}
}

func (w *Writer) record(sum *Summary, c *content, files []File) *Record {
	completed := sum.Completed
	if completed.IsZero() {
		completed = w.opts.Now()
	}
	rec := &Record{
		FormatVersion: FormatVersion, FormatMinor: FormatMinor,
		Name: w.opts.Name, UID: w.opts.UID, Attempt: w.attempt, Nonce: w.nonce,
		Labels: sum.Labels, Spec: sum.Spec, Cluster: sum.Cluster, Phase: sum.Phase, Revision: sum.Revision,
		Started: sum.Started.UTC().Round(0), Completed: completed.UTC().Round(0),
		Counts: v1alpha1.Counts{
			Items: c.items, Bytes: c.bytes,
			Errors: len(sum.Report.Errors), Warnings: len(sum.Report.Warnings), Skipped: len(sum.Report.Skipped),
			Volumes: len(sum.Volumes), Snapshots: snapshots(sum.Volumes), ClusterSnapshots: clusterSnapshots(sum.Volumes), VolumeBytes: volumeBytes(sum.Volumes),
		},
		SnapshotPlaces: sum.SnapshotPlaces,
		Files:          files, PublicKey: w.loc.info.PublicKey, SignedBy: w.signedBy, Kedge: w.opts.Kedge,
		APIs: c.table.APIs, Frames: c.table.Frames,
	}
	if sum.Expires != nil {
		t := sum.Expires.UTC().Round(0)
		rec.Expires = &t
	}
	return rec
}

// upload encrypts and stores all files at once.
func (w *Writer) upload(ctx context.Context, plain map[string]sizedReader) ([]File, error) {
	group, ctx := errgroup.WithContext(ctx)
	names := slices.Sorted(maps.Keys(plain))
	files := make([]File, len(names))
	for i, name := range names {
		group.Go(func() error {
			h := &hashReader{sum: sha256.New(), about: sealedSize(plain[name].Len())}
			var err error
			if h.r, err = age.EncryptReader(plain[name], w.recipient); err != nil {
				return fmt.Errorf("encrypt %s: %w", name, err)
			}
			if err := w.put(ctx, name, h, -1); err != nil {
				return err
			}
			files[i] = File{Name: name, Size: h.n, SHA256: hex.EncodeToString(h.sum.Sum(nil))}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return files, nil
}

// put stores one file of the attempt. The folder is ours alone, so a file that is there already can only be what we
// sent in a call whose reply was lost; checkUploaded looks at its size.
func (w *Writer) put(ctx context.Context, name string, r io.Reader, size int64) error {
	key := w.folder() + name
	_, err := w.loc.store.Put(ctx, key, r, plugins.PutOptions{IfNoneMatch: true, RetainUntil: w.opts.RetainUntil})
	if errors.Is(err, plugins.ErrExists) {
		if h, ok := r.(*hashReader); size >= 0 || ok && h.eof {
			return nil
		}
	}
	return err
}

func (w *Writer) folder() string { return attemptFolder(w.opts.Name, w.opts.UID, w.attempt) }

// checkUploaded makes sure before the commit that every file is there in full.
func (w *Writer) checkUploaded(ctx context.Context, rec *Record) error {
	sizes := map[string]int64{}
	err := w.loc.store.List(ctx, w.folder(), func(info plugins.ObjectInfo) error {
		sizes[info.Key] = info.Size
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range rec.Files {
		if size, ok := sizes[w.folder()+f.Name]; !ok || size != f.Size {
			return &missingError{f.Name, size, f.Size}
		}
	}
	return nil
}

// commit writes the record where there is none. A lost reply is told from a lost race by reading back.
func (w *Writer) commit(ctx context.Context, rec *Record) error {
	key := recordKey(rec.Name, rec.UID)
	_, err := w.loc.store.Put(ctx, key, bytes.NewReader(rec.raw), plugins.PutOptions{IfNoneMatch: true, RetainUntil: w.opts.RetainUntil})
	if err == nil {
		return nil
	}
	if refusedBeforeStart(err) {
		return fmt.Errorf("commit: %w", err)
	}
	// The call may have been cancelled while it was under way: ask all the same.
	askCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	there, readErr := readAll(askCtx, w.loc.store, key, maxRecord)
	switch {
	case readErr == nil && bytes.Equal(there, rec.raw):
		return nil
	case readErr == nil:
		return fmt.Errorf("commit: %w", ErrLostRace)
	case errors.Is(err, plugins.ErrExists):
		return fmt.Errorf("commit: %w: %w", ErrUncertain, readErr)
	}
	return fmt.Errorf("commit: %w: %w", ErrUncertain, err)
}

// refusedBeforeStart recognizes errors after which the record is surely not there.
func refusedBeforeStart(err error) bool {
	for _, refusal := range []error{plugins.ErrAccess, plugins.ErrConfig, plugins.ErrInvalidKey, plugins.ErrUnsupported} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// discard removes what this attempt has stored. What cannot be removed is left to Sweep.
func (w *Writer) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	for _, name := range []string{FileSignature, FileItems, FileIndex, FileTable, FileLog, FileReport, FileVolumes} {
		_ = w.loc.store.Delete(ctx, w.folder()+name)
	}
}

// hashReader hashes and counts what passes.
type hashReader struct {
	r     io.Reader
	sum   hash.Hash
	about int // bytes that will pass, or a little less
	n     int64
	eof   bool
}

// Len is about how much is left: a store that collects it makes room once.
func (h *hashReader) Len() int { return max(0, h.about-int(h.n)) }

// sealedSize is the size that n bytes have encrypted, rounded up: a header with one recipient (about 200 bytes), and a tag of 16 bytes for
// each chunk (the age file format, C2SP).
func sealedSize(n int) int { return 512 + n + 16*(n/ageChunk+1) }

// Read implements io.Reader.
func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	h.n += int64(n)
	if errors.Is(err, io.EOF) {
		h.eof = true
	}
	return n, err
}
