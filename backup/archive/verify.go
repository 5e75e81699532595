package archive

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"kedge.dev/kedge/plugins"
)

// maxProblems bounds what a verification lists; one is enough to refuse a backup.
const maxProblems = 1000

// VerifyOptions say how thoroughly a backup is checked.
type VerifyOptions struct {
	// Deep reads every byte; it needs the location's keys. Without it the record, the signature, and the presence and
	// size of every file are checked.
	Deep             bool
	TrustedKeys      []ed25519.PublicKey
	RequireSignature bool
	// Concurrency is how many frames are checked at once; zero means four.
	Concurrency int
	// OnProgress is called again and again with the stored bytes checked so far, by one goroutine at a time.
	OnProgress func(done, total int64)
}

// VerifyResult says what a verification found.
type VerifyResult struct {
	Deep   bool
	Signed bool // by a trusted key
	Items  int  // deep only: items that are whole
	Bytes  int64
	// Problems are sorted by file and offset; empty means that the backup is whole.
	Problems []Problem
}

// Problem is one thing that is wrong with a backup.
type Problem struct {
	File    string // relative to the attempt's folder; backup.json and expiry/… to the backup's
	Offset  int64  // in the decrypted, still compressed file; -1 where there is none to name
	Message string
}

// String is what a person reads.
func (p Problem) String() string {
	if p.Offset < 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s at byte %d: %s", p.File, p.Offset, p.Message)
}

// OK says that nothing is wrong.
func (v *VerifyResult) OK() bool { return len(v.Problems) == 0 }

// verification collects the problems of one backup.
type verification struct {
	loc   *Location
	rec   *Record
	keys  *Keys
	opts  VerifyOptions
	total int64

	progressMu sync.Mutex
	done       int64

	mu  sync.Mutex
	res VerifyResult
}

// Verify checks a backup and lists what is wrong with it. The error says that it could not look; what it saw is in the
// result.
func Verify(ctx context.Context, l *Location, e Entry, keys *Keys, opts VerifyOptions) (*VerifyResult, error) {
	if opts.Deep && keys == nil {
		return nil, fmt.Errorf("verify backup %s: %w: a deep check needs the location's keys", e.ID(), ErrInvalid)
	}
	if opts.Concurrency < 1 {
		opts.Concurrency = 4
	}
	if opts.OnProgress == nil {
		opts.OnProgress = func(int64, int64) {}
	}
	v := &verification{loc: l, rec: e.Record, keys: keys, opts: opts, res: VerifyResult{Deep: opts.Deep}}
	if err := v.run(ctx, e); err != nil {
		return nil, fmt.Errorf("verify backup %s: %w", e.ID(), err)
	}
	slices.SortFunc(v.res.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Message, b.Message))
	})
	v.res.Problems = slices.Compact(v.res.Problems)
	return &v.res, nil
}

func (v *verification) run(ctx context.Context, e Entry) error {
	if e.Err != nil {
		return v.note(ctx, e.Err)
	}
	if e.Record == nil {
		return ErrInvalid
	}
	if e.Deleting {
		v.add(recordName, -1, ErrDeleting.Error())
	}
	var err error
	if v.res.Signed, err = v.loc.authenticate(ctx, v.rec, v.opts.TrustedKeys, v.opts.RequireSignature); err != nil {
		if err := v.note(ctx, err); err != nil {
			return err
		}
	}
	if err := v.presence(ctx); err != nil {
		return err
	}
	if !v.opts.Deep {
		return nil
	}
	return v.deep(ctx)
}

// note makes a problem of damage and of refusals, and gives back what means that the check itself failed.
func (v *verification) note(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	var damage *DamageError
	switch {
	case errors.As(err, &damage):
		msg := damage.Detail
		if damage.Err != nil {
			msg += ": " + damage.Err.Error()
		}
		v.add(damage.File, damage.Offset, msg)
	case errors.Is(err, ErrSignature):
		v.add(FileSignature, -1, err.Error())
	case errors.Is(err, ErrKeyMismatch):
		v.add(recordName, -1, err.Error())
	default:
		return err
	}
	return nil
}

func (v *verification) add(file string, offset int64, message string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.res.Problems) < maxProblems {
		v.res.Problems = append(v.res.Problems, Problem{file, offset, message})
	}
}

// presence compares the attempt's folder with the record: every file, its size, and nothing else.
func (v *verification) presence(ctx context.Context) error {
	want := map[string]int64{}
	for _, f := range v.rec.Files {
		want[f.Name] = f.Size
		v.total += f.Size
	}
	signed := v.rec.SignedBy != ""
	folder := attemptFolder(v.rec.Name, v.rec.UID, v.rec.Attempt)
	err := v.loc.store.List(ctx, folder, func(info plugins.ObjectInfo) error {
		name := strings.TrimPrefix(info.Key, folder)
		size, known := want[name]
		switch {
		case name == FileSignature && signed:
		case isFreeze(name): // left where nothing may be removed; nobody reads it
		case !known:
			v.add(name, -1, "the record does not know this file")
		case size != info.Size:
			v.add(name, -1, fmt.Sprintf("it has %d bytes, the record says %d", info.Size, size))
		}
		delete(want, name)
		return nil
	})
	if err != nil {
		return err
	}
	for name := range want {
		v.add(name, -1, "it is missing")
	}
	return nil
}
