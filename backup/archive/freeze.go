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

	key string
}

const (
	freezePrefix = "freeze-"
	freezeSuffix = ".json"
	// maxFreezes bounds what an attempt that was killed may have left.
	maxFreezes = 10000
)

// Freeze notes that commands are about to run, and gives what forgets the note.
func (w *Writer) Freeze(ctx context.Context, f Freeze) (forget func(context.Context) error, err error) {
	doc, err := sealJSON(f)
	if err != nil {
		return nil, fmt.Errorf("note the pods that hooks run in: %w", err)
	}
	f.key = w.folder() + freezePrefix + strconv.FormatInt(w.freezes.Add(1), 10) + freezeSuffix
	// Without retention, since it is removed again. The folder is ours alone, so what is there can only be ours, its reply lost.
	if _, err := w.loc.store.Put(ctx, f.key, bytes.NewReader(doc), plugins.PutOptions{IfNoneMatch: true}); err != nil && !errors.Is(err, plugins.ErrExists) {
		return nil, fmt.Errorf("note the pods that hooks run in: %w", err)
	}
	return func(ctx context.Context) error { return w.loc.ForgetFreeze(ctx, f) }, nil
}

// Freezes gives what attempts at backups of that name in a cluster have noted and not forgotten: they were killed, or are under way. The error
// names notes that cannot be read; the others are given beside it.
func (l *Location) Freezes(ctx context.Context, name, cluster string) ([]Freeze, error) {
	if !validName(name) {
		return nil, fmt.Errorf("look for what an earlier attempt has frozen: %w: %q is no name", ErrInvalid, name)
	}
	var keys []string
	sealed := map[string]bool{} // folders of backups: what is left in them could not be removed
	err := l.store.List(ctx, backupsPrefix+name+"/", func(info plugins.ObjectInfo) error {
		_, uid, rest, ok := splitKey(info.Key)
		if ok && rest == recordName {
			sealed[backupFolder(name, uid)] = true
		}
		attempt, file, inside := strings.Cut(rest, "/")
		if ok && inside && isFreeze(file) && isHex(attempt, attemptDigits) && len(keys) < maxFreezes {
			keys = append(keys, info.Key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what an earlier attempt has frozen: %w", err)
	}
	var out []Freeze
	var unread []error
	for _, key := range keys {
		if _, uid, _, _ := splitKey(key); sealed[backupFolder(name, uid)] {
			continue
		}
		f := Freeze{key: key}
		doc, err := readAll(ctx, l.store, key, maxRecord)
		if err == nil {
			err = openJSON(doc, &f, false)
		}
		switch {
		case errors.Is(err, plugins.ErrNotFound): // forgotten since
		case err != nil:
			unread = append(unread, fmt.Errorf("read what an earlier attempt has frozen, in %s: %w", key, err))
		case f.Cluster == cluster:
			out = append(out, f)
		}
	}
	return out, errors.Join(unread...)
}

// ForgetFreeze removes a note: what the commands began is undone.
func (l *Location) ForgetFreeze(ctx context.Context, f Freeze) error {
	if err := l.store.Delete(ctx, f.key); err != nil {
		return fmt.Errorf("forget the pods that hooks ran in: %w", err)
	}
	return nil
}
