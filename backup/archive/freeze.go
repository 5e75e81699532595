package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kedge.dev/kedge/plugins"
)

// isFreeze knows the names of notes in an attempt's folder.
func isFreeze(file string) bool {
	number, ok := strings.CutPrefix(file, freezePrefix)
	_, numbered := seriesNumber(number, freezeSuffix)
	return ok && numbered
}

// Freeze says in which pods of a cluster an attempt is about to run commands that later ones undo. It lies in the attempt's folder from before
// the first command until after the last, so that what is found there is left of an attempt that was killed. It is in the clear, since who
// writes backups may not be able to read them: uids tell nobody anything.
type Freeze struct {
	Cluster string   `json:"cluster"`        // uid of the namespace kube-system
	Pods    []string `json:"pods,omitempty"` // their uids
	// Thawing says that another attempt has begun to run the post hooks.
	Thawing bool `json:"thawing,omitempty"`

	key string
}

const (
	freezePrefix = "freeze-"
	freezeSuffix = ".json"
	// What is read is bounded, since whoever writes to the bucket may have left it: so many keys, of which so many notes, each so large, pods in all.
	maxFreezeKeys  = 10000
	maxFreezes     = 1000
	maxFreeze      = 1 << 20
	maxFreezePods  = 100000
	maxFreezeFlaws = 5 // that are named
)

// Freeze notes that commands are about to run, and gives the note.
func (w *Writer) Freeze(ctx context.Context, f Freeze) (*FreezeNote, error) {
	doc, err := sealJSON(f)
	if err != nil {
		return nil, fmt.Errorf("note the pods that hooks run in: %w", err)
	}
	if len(doc) > maxFreeze {
		return nil, fmt.Errorf("note the pods that hooks run in: %d pods are more than one freeze group may have: divide it", len(f.Pods))
	}
	f.key = w.folder() + freezePrefix + strconv.FormatInt(w.freezes.Add(1), 10) + freezeSuffix
	// Without retention, since it is removed again. The folder is ours alone, so what is there can only be ours, its reply lost.
	if _, err := w.loc.store.Put(ctx, f.key, bytes.NewReader(doc), plugins.PutOptions{IfNoneMatch: true}); err != nil && !errors.Is(err, plugins.ErrExists) {
		return nil, fmt.Errorf("note the pods that hooks run in: %w", err)
	}
	return &FreezeNote{loc: w.loc, freeze: f, doc: doc}, nil
}

// FreezeNote is a note of an attempt that is under way.
type FreezeNote struct {
	loc    *Location
	freeze Freeze
	doc    []byte
}

// Held says whether the note is as it was put. If not, another attempt at a backup of this name took this one for dead, and runs the post hooks or has run
// them.
func (n *FreezeNote) Held(ctx context.Context) (bool, error) {
	doc, err := readAll(ctx, n.loc.store, n.freeze.key, maxFreeze)
	if errors.Is(err, plugins.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the note of the pods that hooks run in: %w", err)
	}
	return bytes.Equal(doc, n.doc), nil
}

// Forget removes the note.
func (n *FreezeNote) Forget(ctx context.Context) error { return n.loc.ForgetFreeze(ctx, n.freeze) }

// Freezes gives what attempts at backups of that name in a cluster have noted and not forgotten: they were killed, or are under way. The error
// names notes that cannot be read, or are too many; the others are given beside it.
func (l *Location) Freezes(ctx context.Context, name, cluster string) ([]Freeze, error) {
	if !validName(name) {
		return nil, fmt.Errorf("look for what an earlier attempt has frozen: %w: %q is no name", ErrInvalid, name)
	}
	var keys []string
	var flaws flaws
	sealed := map[string]bool{} // folders of backups: what is left in them could not be removed
	err := l.store.List(ctx, backupsPrefix+name+"/", func(info plugins.ObjectInfo) error {
		_, uid, rest, ok := splitKey(info.Key)
		if ok && rest == recordName {
			sealed[backupFolder(name, uid)] = true
		}
		attempt, file, inside := strings.Cut(rest, "/")
		if ok && inside && isFreeze(file) && isHex(attempt, attemptDigits) {
			if len(keys) < maxFreezeKeys {
				keys = append(keys, info.Key)
			} else {
				flaws.add(info.Key, fmt.Errorf("%w: there are more than %d", ErrInvalid, maxFreezeKeys))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what an earlier attempt has frozen: %w", err)
	}
	var out []Freeze
	pods, read := 0, 0
	for _, key := range keys {
		if _, uid, _, _ := splitKey(key); sealed[backupFolder(name, uid)] {
			continue
		}
		if read++; read > maxFreezes {
			flaws.add(key, fmt.Errorf("%w: there are more than %d", ErrInvalid, maxFreezes))
			continue
		}
		f := Freeze{key: key}
		doc, err := readAll(ctx, l.store, key, maxFreeze)
		if err == nil {
			err = openJSON(doc, &f, false)
		}
		if err == nil && f.Cluster == cluster && pods+len(f.Pods) > maxFreezePods {
			err = fmt.Errorf("%w: the notes name more than %d pods", ErrInvalid, maxFreezePods)
		}
		switch {
		case errors.Is(err, plugins.ErrNotFound): // forgotten since
		case err != nil:
			flaws.add(key, err)
		case f.Cluster == cluster:
			pods += len(f.Pods)
			out = append(out, f)
		}
	}
	return out, flaws.err()
}

// flaws are notes that are passed over.
type flaws struct {
	named []error
	more  int
}

func (f *flaws) add(key string, err error) {
	if len(f.named) == maxFreezeFlaws {
		f.more++
		return
	}
	f.named = append(f.named, fmt.Errorf("read what an earlier attempt has frozen, in %s: %w", key, err))
}

func (f *flaws) err() error {
	if f.more > 0 {
		return errors.Join(append(f.named, fmt.Errorf("and %d more such notes", f.more))...)
	}
	return errors.Join(f.named...)
}

// ThawFreeze says in a note, before the first post hook is run for it, that they are run now: the attempt that put it may live.
func (l *Location) ThawFreeze(ctx context.Context, f Freeze) error {
	f.Thawing = true
	doc, err := sealJSON(f)
	if err == nil {
		_, err = l.store.Put(ctx, f.key, bytes.NewReader(doc), plugins.PutOptions{})
	}
	if err != nil {
		return fmt.Errorf("note that what hooks have frozen is let go: %w", err)
	}
	return nil
}

// ForgetFreeze removes a note: what the commands began is undone.
func (l *Location) ForgetFreeze(ctx context.Context, f Freeze) error {
	if err := l.store.Delete(ctx, f.key); err != nil {
		return fmt.Errorf("forget the pods that hooks ran in: %w", err)
	}
	return nil
}
