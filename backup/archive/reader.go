package archive

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/plugins"
)

// ReadOptions say which backups may be read and how.
type ReadOptions struct {
	// TrustedKeys are those whose signatures count.
	TrustedKeys []ed25519.PublicKey
	// RequireSignature refuses, with ErrSignature, a backup that none of them signed.
	RequireSignature bool
	// AllowDeleting reads a backup whose deletion has begun, as far as its files are there still.
	AllowDeleting bool
	// Concurrency is how many requests Rows makes at once; zero means four.
	Concurrency int
}

// Reader reads one sealed backup. It is safe for concurrent use. Everything that it returns has been checked against the
// hashes that the commit record leads to.
type Reader struct {
	loc    *Location
	rec    *Record
	keys   *Keys
	signed bool
	opts   ReadOptions

	items *sealedFile
	index *sealedFile
	tools chan *tool
}

// tool is what one read of a frame needs.
type tool struct {
	buffers
	dec *zstd.Decoder
}

// OpenBackup checks record and signature, and reads the frame table.
//
// The error is a *DamageError where the bucket holds other bytes than were written, and wraps ErrSignature,
// ErrDeleting, ErrKeyMismatch or ErrNewerFormat as these say.
func (l *Location) OpenBackup(ctx context.Context, e Entry, keys *Keys, opts ReadOptions) (*Reader, error) {
	switch {
	case e.Err != nil:
		return nil, e.Err
	case e.Record == nil || keys == nil:
		return nil, fmt.Errorf("open backup %s: %w: record and keys are needed", e.ID(), ErrInvalid)
	case e.Deleting && !opts.AllowDeleting:
		return nil, fmt.Errorf("open backup %s: %w", e.ID(), ErrDeleting)
	case keys.PublicKey() != e.Record.PublicKey:
		return nil, fmt.Errorf("open backup %s: %w: it is encrypted to %s, the given key is %s", e.ID(), ErrKeyMismatch, e.Record.PublicKey, keys)
	}
	signed, err := l.authenticate(ctx, e.Record, opts.TrustedKeys, opts.RequireSignature)
	if err != nil {
		return nil, err
	}
	if opts.Concurrency < 1 {
		opts.Concurrency = 4
	}
	rec := *e.Record
	r := &Reader{
		loc: l, rec: &rec, keys: keys, signed: signed, opts: opts,
		tools: make(chan *tool, max(opts.Concurrency, runtime.GOMAXPROCS(0))),
	}
	r.items, r.index = r.sealed(FileItems), r.sealed(FileIndex)
	if err := r.loadTable(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Record is the commit record, with APIs and Frames. Do not change it.
func (r *Reader) Record() *Record { return r.rec }

// Signed says whether one of the trusted keys signed the backup.
func (r *Reader) Signed() bool { return r.signed }

func (r *Reader) fileKey(name string) string {
	return attemptFolder(r.rec.Name, r.rec.UID, r.rec.Attempt) + name
}

func (r *Reader) sealed(name string) *sealedFile {
	f, _ := r.rec.file(name) // parseRecord made sure that it is there
	return &sealedFile{store: r.loc.store, key: r.fileKey(name), size: f.Size, identity: r.keys.identity}
}

func (r *Reader) damage(file string, offset int64, detail string, err error) error {
	return &DamageError{Backup: r.rec.ID(), File: file, Offset: offset, Detail: detail, Err: err}
}

func (r *Reader) loadTable(ctx context.Context) error {
	raw, err := r.document(ctx, FileTable, maxTable)
	if err != nil {
		return err
	}
	t, err := parseTable(raw, r.rec.strict())
	if err != nil {
		return r.damage(FileTable, -1, "it contradicts itself", err)
	}
	items, size := 0, int64(0)
	for _, f := range t.Frames {
		items += f.Items
		size += f.Bytes
	}
	if items != r.rec.Counts.Items || size != r.rec.Counts.Bytes {
		return r.damage(FileTable, -1, fmt.Sprintf("it has %d items, the record says %d", items, r.rec.Counts.Items), nil)
	}
	r.rec.APIs, r.rec.Frames = t.APIs, t.Frames
	return nil
}

func parseTable(raw []byte, strict bool) (*table, error) {
	var t table
	if err := decodeJSON(raw, &t, strict); err != nil {
		return nil, err
	}
	return &t, t.validate()
}

// document reads a whole file that is one compressed JSON value, and checks it against the record.
func (r *Reader) document(ctx context.Context, name string, limit int64) ([]byte, error) {
	f, ok := r.rec.file(name)
	if !ok || f.Size > limit {
		return nil, r.damage(name, -1, fmt.Sprintf("its record gives it %d bytes", f.Size), nil)
	}
	sealed, err := readAll(ctx, r.loc.store, r.fileKey(name), f.Size)
	if errors.Is(err, ErrTooLarge) {
		return nil, r.damage(name, f.Size, "there are bytes after its end", nil)
	}
	if err != nil {
		return nil, fileError(r.rec.ID(), name, -1, err)
	}
	if int64(len(sealed)) < f.Size {
		return nil, r.damage(name, int64(len(sealed)), "it is cut short", nil)
	}
	if hexSum(sealed) != f.SHA256 {
		return nil, r.damage(name, -1, "its sha-256 is not the record's", nil)
	}
	plain, err := age.Decrypt(bytes.NewReader(sealed), r.keys.identity)
	if err != nil {
		return nil, r.damage(name, 0, "it does not decrypt", err)
	}
	raw, err := decompressAll(plain, limit)
	if err != nil {
		return nil, r.damage(name, -1, "it does not decompress", err)
	}
	return raw, nil
}

// decompressAll reads a zstd stream of unknown length within a limit.
func decompressAll(in io.Reader, limit int64) ([]byte, error) {
	dec, err := newStreamDecoder(in)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	raw, err := io.ReadAll(io.LimitReader(dec, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
	}
	return raw, nil
}

// Report reads what the backup had to say.
func (r *Reader) Report(ctx context.Context) (*Report, error) {
	raw, err := r.document(ctx, FileReport, maxReport)
	if err != nil {
		return nil, err
	}
	rep, err := parseReport(raw, r.rec.strict())
	if err != nil {
		return nil, r.damage(FileReport, -1, "it cannot be read", err)
	}
	return rep, nil
}

func parseReport(raw []byte, strict bool) (*Report, error) {
	var rep Report
	if err := decodeJSON(raw, &rep, strict); err != nil {
		return nil, err
	}
	return &rep, nil
}

// Log copies the backup's log, JSON lines, to w. Damage that only the whole file's hash shows is found at its end.
func (r *Reader) Log(ctx context.Context, w io.Writer) error {
	f, _ := r.rec.file(FileLog)
	in, err := r.loc.store.Get(ctx, r.fileKey(FileLog), 0, -1)
	if err != nil {
		return fileError(r.rec.ID(), FileLog, -1, err)
	}
	defer in.Close()
	h := &hashReader{r: io.LimitReader(in, f.Size+1), sum: sha256.New()}
	broken := copyLog(h, w, r.keys.identity)
	if callback := (*callbackError)(nil); errors.As(broken, &callback) {
		return fmt.Errorf("copy the log of backup %s: %w", r.rec.ID(), callback.err)
	}
	if _, err := io.Copy(io.Discard, h); err != nil {
		return fmt.Errorf("backup %s: read %s: %w", r.rec.ID(), FileLog, err)
	}
	switch {
	case h.n != f.Size:
		return r.damage(FileLog, -1, fmt.Sprintf("it has not the %d bytes that the record gives it", f.Size), nil)
	case hex.EncodeToString(h.sum.Sum(nil)) != f.SHA256:
		return r.damage(FileLog, -1, "its sha-256 is not the record's", nil)
	case broken != nil:
		return r.damage(FileLog, -1, "it cannot be read", broken)
	}
	return nil
}

func copyLog(sealed io.Reader, w io.Writer, id age.Identity) error {
	plain, err := age.Decrypt(sealed, id)
	if err != nil {
		return err
	}
	dec, err := newStreamDecoder(plain)
	if err != nil {
		return err
	}
	defer dec.Close()
	n, err := io.Copy(callbackWriter{w}, io.LimitReader(dec, maxLog))
	if err == nil && n == maxLog {
		return ErrTooLarge
	}
	return err
}

// callbackWriter marks the errors of a caller's writer.
type callbackWriter struct{ w io.Writer }

// Write implements io.Writer.
func (c callbackWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err != nil {
		err = &callbackError{err}
	}
	return n, err
}

func (r *Reader) take() (*tool, error) {
	select {
	case t := <-r.tools:
		return t, nil
	default:
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &tool{dec: dec}, nil
}

func (r *Reader) give(t *tool) {
	select {
	case r.tools <- t:
	default:
		t.dec.Close()
	}
}

// frame reads one frame of the items and decompresses it into the tool's buffers.
func (r *Reader) frame(ctx context.Context, f *Frame, t *tool) ([]byte, error) {
	comp, err := r.items.read(ctx, f.Offset, f.Size, &t.buffers)
	if err != nil {
		return nil, fileError(r.rec.ID(), FileItems, f.Offset, err)
	}
	return r.unpack(FileItems, f.items(), f.RawSize, comp, t)
}

// unpack checks and decompresses one frame.
func (r *Reader) unpack(file string, at Range, rawSize int64, comp []byte, t *tool) ([]byte, error) {
	if hexSum(comp) != at.SHA256 {
		return nil, r.damage(file, at.Offset, "the frame's sha-256 is not the table's", nil)
	}
	raw, err := decompress(t.dec, comp, t.raw, rawSize)
	if err != nil {
		return nil, r.damage(file, at.Offset, "the frame does not decompress", err)
	}
	t.raw = raw[:0]
	return raw, nil
}

// Items calls fn for each item of one frame, an index into Record().Frames. raw is valid until fn returns. That the
// JSON names the same object as ref is for the caller to check, who decodes it.
func (r *Reader) Items(ctx context.Context, frame int, fn func(ref plugins.Ref, raw []byte) error) error {
	if frame < 0 || frame >= len(r.rec.Frames) {
		return fmt.Errorf("read backup %s: %w: frame %d of %d", r.rec.ID(), ErrInvalid, frame, len(r.rec.Frames))
	}
	t, err := r.take()
	if err != nil {
		return err
	}
	defer r.give(t)
	f := &r.rec.Frames[frame]
	data, err := r.frame(ctx, f, t)
	if err != nil {
		return err
	}
	err = walkTar(f, data, func(_ int64, ref plugins.Ref, raw []byte) error { return fn(ref, raw) })
	return r.walked(FileItems, f.Offset, err)
}

// walked tells what a caller's function returned from damage.
func (r *Reader) walked(file string, offset int64, err error) error {
	var callback *callbackError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &callback):
		return callback.err
	}
	return r.damage(file, offset, "the frame is not what the table says", err)
}

// Read calls fn for the given rows of one frame, in the archive's order, with each item checked against its row. raw is
// valid until fn returns. A row that the frame does not hold is an error that wraps ErrItemNotFound.
func (r *Reader) Read(ctx context.Context, frame int, rows []Row, fn func(row Row, raw []byte) error) error {
	want := make(map[string]*Row, len(rows))
	for i := range rows {
		want[rows[i].Key()] = &rows[i]
	}
	err := r.Items(ctx, frame, func(ref plugins.Ref, raw []byte) error {
		row, ok := want[Key(ref.Namespace, ref.Name)]
		if !ok || row.Ref != ref {
			return nil
		}
		delete(want, row.Key())
		if row.Size != int64(len(raw)) || row.SHA256 != hexSum(raw) {
			return r.damage(FileItems, r.rec.Frames[frame].Offset, fmt.Sprintf("%s is another object than its row says", ref), nil)
		}
		return fn(*row, raw)
	})
	if err != nil {
		return err
	}
	for _, row := range want {
		return fmt.Errorf("read %s in backup %s: %w", row.Ref, r.rec.ID(), ErrItemNotFound)
	}
	return nil
}

// Item reads one object. An empty version takes whichever the backup holds. The error wraps ErrItemNotFound where it
// holds none.
func (r *Reader) Item(ctx context.Context, ref plugins.Ref) ([]byte, error) {
	key := Key(ref.Namespace, ref.Name)
	for i := range r.rec.Frames {
		f := &r.rec.Frames[i]
		if f.Group != ref.Group || f.Resource != ref.Resource || ref.Version != "" && f.Version != ref.Version || !f.MayHoldKey(key) {
			continue
		}
		var found []byte
		err := r.Items(ctx, i, func(have plugins.Ref, raw []byte) error {
			if have.Namespace == ref.Namespace && have.Name == ref.Name {
				found = slices.Clone(raw)
			}
			return nil
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, fmt.Errorf("read %s in backup %s: %w", ref, r.rec.ID(), ErrItemNotFound)
}
