package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

// deep reads every file of the backup.
func (v *verification) deep(ctx context.Context) error {
	entry := Entry{Name: v.rec.Name, UID: v.rec.UID, Record: v.rec}
	r, err := v.loc.OpenBackup(ctx, entry, v.keys, ReadOptions{Concurrency: v.opts.Concurrency})
	if err != nil && !errors.Is(err, ErrSignature) { // which run has noted already
		if err := v.note(ctx, err); err != nil {
			return err
		}
	}
	if err := v.expiryFiles(ctx); err != nil {
		return err
	}
	var frames []Frame
	if r != nil {
		frames = r.rec.Frames
		if _, err := r.Report(ctx); err != nil {
			if err := v.note(ctx, err); err != nil {
				return err
			}
		}
		if _, err := r.Volumes(ctx); err != nil {
			if err := v.note(ctx, err); err != nil {
				return err
			}
		}
	}
	for _, f := range v.rec.Files {
		if f.Name == FileItems || f.Name == FileIndex {
			continue
		}
		err := v.stream(ctx, f, func(plain io.Reader) error { return drain(f.Name, plain) })
		if err != nil {
			return err
		}
	}
	return v.framed(ctx, r, frames)
}

// drain decompresses a file to its end.
func drain(name string, plain io.Reader) error {
	dec, err := newStreamDecoder(plain)
	if err != nil {
		return err
	}
	defer dec.Close()
	limit := int64(maxReport)
	if name == FileLog {
		limit = maxLog
	}
	n, err := io.Copy(io.Discard, io.LimitReader(dec, limit+1))
	if err == nil && n > limit {
		return ErrTooLarge
	}
	return err
}

// stream reads one stored file to its end: its hash, its encryption, and what read finds in the plaintext.
func (v *verification) stream(ctx context.Context, f File, read func(plain io.Reader) error) error {
	key := attemptFolder(v.rec.Name, v.rec.UID, v.rec.Attempt) + f.Name
	in, err := v.loc.store.Get(ctx, key, 0, -1)
	if err != nil {
		return v.note(ctx, fileError(v.rec.ID(), f.Name, -1, err))
	}
	defer in.Close()
	src := &sourceReader{r: io.LimitReader(in, f.Size+1), progress: v.progress}
	h := &hashReader{r: src, sum: sha256.New()}
	broken := v.decrypted(h, read)
	if broken == nil || src.err == nil {
		_, _ = io.Copy(io.Discard, h)
	}
	if src.err != nil {
		return fmt.Errorf("read %s: %w", f.Name, src.err)
	}
	if damage, ok := errors.AsType[*DamageError](broken); ok {
		v.add(damage.File, damage.Offset, problemText(damage))
	} else if broken != nil {
		v.add(f.Name, -1, broken.Error())
	}
	switch {
	case h.n < f.Size:
		v.add(f.Name, -1, fmt.Sprintf("it ends after %d of %d bytes", h.n, f.Size))
	case h.n > f.Size:
		v.add(f.Name, -1, fmt.Sprintf("there are bytes after its end at %d", f.Size))
	case hex.EncodeToString(h.sum.Sum(nil)) != f.SHA256:
		v.add(f.Name, -1, "its sha-256 is not the record's")
	}
	return ctx.Err()
}

func problemText(d *DamageError) string {
	if d.Err == nil {
		return d.Detail
	}
	return d.Detail + ": " + d.Err.Error()
}

func (v *verification) decrypted(sealed io.Reader, read func(io.Reader) error) error {
	plain, err := age.Decrypt(sealed, v.keys.identity)
	if err != nil {
		return fmt.Errorf("it does not decrypt: %w", err)
	}
	if err := read(plain); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, plain)
	if err != nil {
		return fmt.Errorf("it does not decrypt: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("%d bytes after the end of its content", n)
	}
	return nil
}

func (v *verification) progress(n int) {
	v.progressMu.Lock()
	defer v.progressMu.Unlock()
	v.done += int64(n)
	v.opts.OnProgress(v.done, v.total)
}

// sourceReader remembers what the store failed with, to tell it from what the bytes are wrong with.
type sourceReader struct {
	r        io.Reader
	err      error
	progress func(int)
}

// Read implements io.Reader.
func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	s.progress(n)
	return n, err
}

// pair is one frame as it comes from the streams of items and index; a side is nil where its stream broke before.
type pair struct {
	index int
	items []byte
	rows  []byte
}

// framed reads the items and the index side by side, each once from its beginning to its end, and checks every frame.
func (v *verification) framed(ctx context.Context, r *Reader, frames []Frame) error {
	items, _ := v.rec.file(FileItems)
	index, _ := v.rec.file(FileIndex)
	group, ctx := errgroup.WithContext(ctx)
	itemFrames, rowFrames := make(chan []byte), make(chan []byte)
	pairs := make(chan pair)
	group.Go(func() error {
		defer close(itemFrames)
		return v.stream(ctx, items, func(plain io.Reader) error {
			return v.split(ctx, &splitter{FileItems, frames, itemFrames, (*Frame).items, tarEnd()}, plain)
		})
	})
	group.Go(func() error {
		defer close(rowFrames)
		return v.stream(ctx, index, func(plain io.Reader) error {
			return v.split(ctx, &splitter{FileIndex, frames, rowFrames, (*Frame).rows, nil}, plain)
		})
	})
	group.Go(func() error {
		defer close(pairs)
		for i := range frames {
			select {
			case pairs <- pair{i, <-itemFrames, <-rowFrames}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range v.opts.Concurrency {
		group.Go(func() error {
			t, err := r.takeFor(frames)
			if err != nil {
				return err
			}
			for p := range pairs {
				if err := v.checkPair(ctx, r, &frames[p.index], p, t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// takeFor gives a tool where there are frames to check.
func (r *Reader) takeFor(frames []Frame) (*tool, error) {
	if len(frames) == 0 {
		return nil, nil
	}
	return r.take()
}

// splitter says how a decrypted file is cut: at the places of its frames, up to an end that decompresses to tail.
type splitter struct {
	file   string
	frames []Frame
	out    chan<- []byte
	at     func(*Frame) Range
	tail   []byte
}

func (f *Frame) items() Range { return Range{f.Offset, f.Size, f.SHA256} }
func (f *Frame) rows() Range  { return f.Index }

// split cuts a decrypted file at the places that the table names. Between frames there may be padding, of which each
// byte is known; after the last there must be the end, which may have padding before it.
func (v *verification) split(ctx context.Context, s *splitter, plain io.Reader) error {
	damage := func(offset int64, detail string, err error) error {
		return &DamageError{Backup: v.rec.ID(), File: s.file, Offset: offset, Detail: detail, Err: err}
	}
	var pos int64
	for i := range s.frames {
		where := s.at(&s.frames[i])
		if err := expectPadding(plain, where.Offset-pos); err != nil {
			return damage(pos, "padding", err)
		}
		buf := make([]byte, where.Size)
		if _, err := io.ReadFull(plain, buf); err != nil {
			return damage(where.Offset, "it does not decrypt", err)
		}
		pos = where.Offset + where.Size
		select {
		case s.out <- buf:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if v.tableUnknown(s.frames) {
		return drain(s.file, plain)
	}
	rest, err := io.ReadAll(io.LimitReader(plain, ageChunk))
	if err != nil {
		return damage(pos, "it does not decrypt", err)
	}
	rest, err = withoutPadding(rest)
	if err == nil {
		err = expectTail(rest, s.tail)
	}
	if err != nil {
		return damage(pos, "after the last frame", err)
	}
	return nil
}

// withoutPadding takes off the padding that may stand before the end of a file.
func withoutPadding(rest []byte) ([]byte, error) {
	if len(rest) < skippableHeader || binary.LittleEndian.Uint32(rest) != skippableMagic {
		return rest, nil
	}
	n := skippableHeader + int64(binary.LittleEndian.Uint32(rest[4:]))
	if n > int64(len(rest)) {
		return nil, io.ErrUnexpectedEOF
	}
	return rest[n:], expectPadding(bytes.NewReader(rest), n)
}

// tableUnknown says that the frame table could not be read, so that only the outside of a file can be checked.
func (v *verification) tableUnknown(frames []Frame) bool {
	return len(frames) == 0 && v.rec.Counts.Items > 0
}

func expectPadding(plain io.Reader, n int64) error {
	if n == 0 {
		return nil
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(plain, buf); err != nil {
		return err
	}
	if !bytes.Equal(buf, skippable(n)) {
		return errors.New("there is something else")
	}
	return nil
}

func expectTail(rest, tail []byte) error {
	dec, err := newDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(rest, make([]byte, 0, len(tail)+1))
	if err != nil {
		return err
	}
	if len(rest) == 0 || !bytes.Equal(raw, tail) {
		return errors.New("there is not the end that belongs there")
	}
	return nil
}

// checkPair checks one frame, its shard, and that both are about the same objects. What did not come from a stream,
// because the stream broke before it, is read by itself, so that the result says how far the damage goes.
func (v *verification) checkPair(ctx context.Context, r *Reader, f *Frame, p pair, t *tool) error {
	rows, err := v.shardRows(ctx, r, f, p, t)
	if err != nil {
		return err
	}
	if p.items == nil {
		if p.items, err = r.items.read(ctx, f.Offset, f.Size, &t.buffers); err != nil {
			return v.note(ctx, fileError(r.rec.ID(), FileItems, f.Offset, err))
		}
	}
	raw, err := r.unpack(FileItems, f.items(), f.RawSize, p.items, t)
	if !v.noted(err) {
		return nil
	}
	n, size := 0, int64(0)
	err = walkTar(f, raw, func(offset int64, ref plugins.Ref, item []byte) error {
		if err := checkItem(ref, item, rows, n); err != nil {
			v.add(FileItems, f.Offset, fmt.Sprintf("item at byte %d of the frame: %v", offset, err))
		}
		n++
		size += int64(len(item))
		return nil
	})
	if err != nil {
		v.add(FileItems, f.Offset, err.Error())
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.res.Items += n
	v.res.Bytes += size
	return nil
}

// shardRows gives the rows of one frame; nil where the shard is damaged, which is noted.
func (v *verification) shardRows(ctx context.Context, r *Reader, f *Frame, p pair, t *tool) ([]Row, error) {
	comp, err := p.rows, error(nil)
	if comp == nil {
		if comp, err = r.index.read(ctx, f.Index.Offset, f.Index.Size, &t.buffers); err != nil {
			return nil, v.note(ctx, fileError(r.rec.ID(), FileIndex, f.Index.Offset, err))
		}
	}
	raw, err := r.unpack(FileIndex, f.rows(), f.IndexRawSize, comp, t)
	if !v.noted(err) {
		return nil, nil
	}
	rows := make([]Row, 0, f.Items)
	err = parseRows(f, raw, v.rec.strict(), func(row Row) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		v.add(FileIndex, f.Index.Offset, err.Error())
		return nil, nil
	}
	return rows, nil
}

// noted makes a problem of damage to one frame, and says whether there was none.
func (v *verification) noted(err error) bool {
	if damage, ok := errors.AsType[*DamageError](err); ok {
		v.add(damage.File, damage.Offset, problemText(damage))
	}
	return err == nil
}

// checkItem compares an item with its row, and with what its own JSON says that it is.
func checkItem(ref plugins.Ref, item []byte, rows []Row, n int) error {
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(item, &object); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	m := object.Metadata
	if object.APIVersion != ref.APIVersion() || m.Namespace != ref.Namespace || m.Name != ref.Name {
		return fmt.Errorf("%s holds %s %s %q", ref, object.APIVersion, object.Kind, Key(m.Namespace, m.Name))
	}
	if rows == nil {
		return nil
	}
	row := rows[n]
	if row.Ref != ref || row.Kind != object.Kind || row.Size != int64(len(item)) || row.SHA256 != hexSum(item) {
		return fmt.Errorf("%s is another object than its row says", ref)
	}
	return nil
}

// expiryFiles checks every file of the series, not only the newest that counts.
func (v *verification) expiryFiles(ctx context.Context) error {
	folder := backupFolder(v.rec.Name, v.rec.UID)
	files, err := v.loc.series(ctx, folder+expiryFolder+"/", ".json")
	if err != nil {
		return err
	}
	for i, f := range slices.All(files) {
		name := expiryFolder + "/" + strconv.Itoa(f.n) + ".json"
		raw, err := readAll(ctx, v.loc.store, f.key, maxSmall)
		if err == nil {
			_, err = parseExpiry(raw)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			v.add(name, -1, err.Error())
		}
		if f.n != i+1 {
			v.add(name, -1, "a file before it is missing")
		}
	}
	return nil
}
