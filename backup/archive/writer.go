package archive

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

const (
	attemptDigits = 16
	nonceDigits   = 32
	// sealWindow is how long an attempt may take from its first upload to its commit. The sweeper waits longer
	// (MinSweepAge), so that it never takes the files of an attempt that may yet be sealed.
	sealWindow = 24 * time.Hour
	// cleanupTime bounds what a failed or cancelled Write still does to remove its files.
	cleanupTime = 30 * time.Second
	maxWorkers  = 4
)

var errStopped = errors.New("the archive's writer has stopped")

// WriteOptions say which backup is written and how.
type WriteOptions struct {
	// Name and UID identify the backup: those of the Backup object.
	Name string
	UID  string
	// PublicKey pins what the backup is encrypted to; Write refuses with ErrKeyMismatch where the location says
	// another. Empty trusts the location.
	PublicKey string
	// Signer signs the commit record, with an Ed25519 key. Nil leaves the backup unsigned.
	Signer crypto.Signer
	// RetainUntil asks the store to protect every object of the backup until then.
	RetainUntil time.Time
	// Concurrency is how many frames are compressed at once; zero means one per processor, at most four.
	Concurrency int
	// SpoolDir is a folder for what waits to be uploaded: about the compressed size of the backup, encrypted with a key that
	// is never written anywhere.
	SpoolDir string
	// Level is zstd's; zero is its default.
	Level int
	// Kedge is the version of the program.
	Kedge string
	Now   func() time.Time
	Rand  io.Reader
}

// Summary is what the writer of a backup knows of it and the archive does not.
type Summary struct {
	Labels    map[string]string
	Spec      v1alpha1.BackupSpec
	Cluster   v1alpha1.ClusterInfo
	Phase     v1alpha1.Phase
	Revision  string
	Started   time.Time
	Completed time.Time // zero means now
	Expires   *time.Time
	APIs      []API
	// Volumes are the volumes whose data was taken, in any order.
	Volumes []Volume
	// SnapshotPlaces are where copies of the volumes' snapshots are.
	SnapshotPlaces []plugins.Place
	// Report gives also the counts of errors, warnings and skipped objects.
	Report Report
}

// Writer takes the contents of one backup. It lives within a call of Write.
type Writer struct {
	loc       *Location
	opts      WriteOptions
	recipient age.Recipient
	signedBy  string
	attempt   string
	nonce     string

	spool   *spool
	log     *logSpool
	jobs    chan job
	stopped <-chan struct{}
	free    chan *pending

	items   atomic.Int64
	bytes   atomic.Int64
	freezes atomic.Int64 // that were noted

	mu       sync.Mutex
	sections map[sectionID]*Section
}

// Write makes a backup. fill registers sections and fills them, with as many goroutines as it likes and under the
// context that it is given; compressed frames wait in the spool. When fill returns, everything is uploaded into a folder
// of this attempt's own, signed, and made visible by the commit record, which is written last and only where there is
// none. Whatever fails before that leaves no backup; its remains are removed, or left to Sweep where that fails too.
//
// The error wraps ErrSealed where the uid has a record already, ErrLostRace where another writer was quicker,
// ErrDeleting where the backup is being deleted, ErrUncertain where nobody can tell yet.
func (l *Location) Write(ctx context.Context, opts WriteOptions, fill func(context.Context, *Writer) (*Summary, error)) (*Record, error) {
	w, err := l.newWriter(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("write backup %s/%s: %w", opts.Name, opts.UID, err)
	}
	defer w.spool.close()
	summary, err := w.collect(ctx, fill)
	if err != nil {
		return nil, err
	}
	rec, err := w.seal(ctx, summary)
	if err != nil {
		return nil, fmt.Errorf("write backup %s/%s: %w", opts.Name, opts.UID, err)
	}
	return rec, nil
}

func (l *Location) newWriter(ctx context.Context, opts WriteOptions) (*Writer, error) {
	if err := l.checkOptions(opts); err != nil {
		return nil, err
	}
	if opts.Concurrency < 1 {
		opts.Concurrency = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	w := &Writer{
		loc: l, opts: opts,
		jobs:     make(chan job),
		free:     make(chan *pending, opts.Concurrency+1),
		sections: map[sectionID]*Section{},
	}
	var err error
	if w.recipient, err = age.ParseX25519Recipient(l.info.PublicKey); err != nil {
		return nil, err
	}
	if opts.Signer != nil {
		if w.signedBy, err = signerKey(opts.Signer); err != nil {
			return nil, err
		}
	}
	if w.attempt, err = randomHex(opts.Rand, attemptDigits); err != nil {
		return nil, err
	}
	if w.nonce, err = randomHex(opts.Rand, nonceDigits); err != nil {
		return nil, err
	}
	if err := l.checkWritable(ctx, opts.Name, opts.UID); err != nil {
		return nil, err
	}
	if w.spool, err = newSpool(opts.SpoolDir, opts.Rand); err != nil {
		return nil, err
	}
	w.log, err = newLogSpool(w.spool, opts.Now)
	return w, err
}

func (l *Location) checkOptions(opts WriteOptions) error {
	switch {
	case !validName(opts.Name):
		return fmt.Errorf("%w: the name must be a DNS subdomain in lower case", ErrInvalid)
	case !validUID(opts.UID):
		return fmt.Errorf("%w: the uid must be of letters, digits and dashes", ErrInvalid)
	case opts.Now == nil || opts.Rand == nil:
		return fmt.Errorf("%w: Now and Rand are needed", ErrInvalid)
	case opts.PublicKey != "" && opts.PublicKey != l.info.PublicKey:
		return fmt.Errorf("%w: the bucket says %s, pinned is %s (find out who changed kedge.json before you trust it)", ErrKeyMismatch, l.info.PublicKey, opts.PublicKey)
	}
	return nil
}

// checkWritable saves the work where the backup is there already or is going away.
func (l *Location) checkWritable(ctx context.Context, name, uid string) error {
	return both(func() error {
		_, err := l.store.Stat(ctx, recordKey(name, uid))
		switch {
		case err == nil:
			return ErrSealed
		case errors.Is(err, plugins.ErrNotFound):
			return nil
		}
		return err
	}, func() error { return l.checkNotDeleting(ctx, uid) })
}

// both runs two questions to the store at once. Where both fail, the first one's answer counts, so that errors do not depend on
// which was quicker.
func both(first, second func() error) error {
	var group errgroup.Group
	var later error
	group.Go(func() error { later = second(); return nil })
	err := first()
	_ = group.Wait()
	if err != nil {
		return err
	}
	return later
}

func (l *Location) checkNotDeleting(ctx context.Context, uid string) error {
	_, err := l.store.Stat(ctx, tombstoneKey(uid))
	if err == nil {
		return ErrDeleting
	}
	if errors.Is(err, plugins.ErrNotFound) {
		return nil
	}
	return err
}

// collect runs fill with the compressors at work, and returns when every frame is in the spool.
func (w *Writer) collect(ctx context.Context, fill func(context.Context, *Writer) (*Summary, error)) (*Summary, error) {
	group, groupCtx := errgroup.WithContext(ctx)
	w.stopped = groupCtx.Done()
	for range w.opts.Concurrency {
		enc, err := newEncoder(w.opts.Level)
		if err != nil {
			return nil, err
		}
		c := &compressor{w: w, enc: enc, out: make([]byte, 0, frameTarget/2)}
		group.Go(c.run)
	}
	var summary *Summary
	group.Go(func() error {
		var err error
		if summary, err = fill(groupCtx, w); err != nil {
			return err
		}
		close(w.jobs)
		return w.checkClosed()
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	w.free = nil // the upload needs the memory
	if summary == nil {
		return nil, fmt.Errorf("write backup %s/%s: %w: no summary", w.opts.Name, w.opts.UID, ErrInvalid)
	}
	return summary, ctx.Err()
}

func (w *Writer) checkClosed() error {
	for _, s := range w.sections {
		if !s.closed {
			return fmt.Errorf("write backup %s/%s: %w: section %s was not closed", w.opts.Name, w.opts.UID, ErrInvalid, s.name())
		}
	}
	return nil
}

// Section registers a resource in one version; the archive's order does not depend on the order of these calls.
func (w *Writer) Section(opts SectionOptions) (*Section, error) {
	s := &Section{w: w, opts: opts}
	if !validGVR(opts.Group, opts.Version, opts.Resource) {
		return nil, fmt.Errorf("archive %s: %w: no path can be made of that", s.name(), ErrInvalid)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sections[opts.id()] != nil {
		return nil, fmt.Errorf("archive %s: section: %w", s.name(), ErrDuplicate)
	}
	w.sections[opts.id()] = s
	return s, nil
}

func (w *Writer) drop(s *Section) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sections[s.opts.id()] != s {
		return
	}
	delete(w.sections, s.opts.id())
	w.items.Add(-int64(s.count))
	w.bytes.Add(-s.size)
}

// Attempt names this attempt's folder: 16 random hex digits that no other attempt of any backup has.
func (w *Writer) Attempt() string { return w.attempt }

// Log adds a line to the backup's log. An error of the spool comes out of Write.
func (w *Writer) Log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	w.log.add(ctx, level, msg, attrs)
}

// Stored is how many items were added so far, and their bytes.
func (w *Writer) Stored() (items, bytes int64) { return w.items.Load(), w.bytes.Load() }

// acquire gives an empty frame, with the buffers of one that is done where there is one.
func (w *Writer) acquire() *pending {
	select {
	case p := <-w.free:
		return p
	default:
		return &pending{}
	}
}

// release takes a frame's buffers back. Buffers that one huge item blew up are left to the garbage collector.
func (w *Writer) release(p *pending) {
	if cap(p.items) > 2*frameTarget || cap(p.rows) > 2*frameTarget {
		return
	}
	p.items, p.rows, p.frame = p.items[:0], p.rows[:0], Frame{}
	select {
	case w.free <- p:
	default:
	}
}

// sorted returns the packed frames of all sections in the archive's order.
func (w *Writer) sorted() []packed {
	sections := make([]*Section, 0, len(w.sections))
	n := 0
	for _, s := range w.sections {
		sections = append(sections, s)
		n += len(s.packed)
	}
	slices.SortFunc(sections, func(a, b *Section) int { return a.opts.id().compare(b.opts.id()) })
	out := make([]packed, 0, n)
	for _, s := range sections {
		slices.SortFunc(s.packed, func(a, b packedAt) int { return a.seq - b.seq })
		for _, p := range s.packed {
			out = append(out, p.packed)
		}
	}
	return out
}
