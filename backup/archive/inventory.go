package archive

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/plugins"
)

// Inventory is what one listing of a location to its end found. Whoever needs several things of it, as retention does, lists it once: a listing
// costs a request for each thousand objects.
type Inventory struct {
	// Backups are those that have a record, sorted by name and uid.
	Backups []Listed

	attempts []remains
	deleting []string // uids of the deletions that have begun
}

// remains is one attempt's folder, which a record may name or not. Its keys are not kept: of thousands of attempts few are ever removed.
type remains struct {
	name, uid, attempt string
	newest             time.Time
}

// Inventory lists the location to its end.
func (l *Location) Inventory(ctx context.Context) (*Inventory, error) {
	return l.inventory(ctx, func(found) {})
}

// inventory is Inventory that tells of each backup as soon as all of its keys were listed; its deletion may have begun.
func (l *Location) inventory(ctx context.Context, each func(found)) (*Inventory, error) {
	inventory := &Inventory{}
	have, err := l.scanKeys(ctx, backupsPrefix, inventory.note, each)
	if err == nil {
		inventory.deleting, err = l.tombstones(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("list the backups of %s: %w", l.store, err)
	}
	mark(have, inventory.deleting)
	inventory.Backups = make([]Listed, len(have))
	for i, f := range have {
		inventory.Backups[i] = Listed{f}
	}
	return inventory, nil
}

// note takes the folders of attempts out of a listing.
func (i *Inventory) note(name, uid, rest string, info plugins.ObjectInfo) {
	attempt, _, inside := strings.Cut(rest, "/")
	if !inside || !isHex(attempt, attemptDigits) {
		return
	}
	if n := len(i.attempts); n == 0 || i.attempts[n-1].name != name || i.attempts[n-1].uid != uid || i.attempts[n-1].attempt != attempt {
		i.attempts = append(i.attempts, remains{name: name, uid: uid, attempt: strings.Clone(attempt)})
	}
	if last := &i.attempts[len(i.attempts)-1]; info.LastModified.After(last.newest) {
		last.newest = info.LastModified
	}
}

// scan lists keys and returns the backups among them that have a record, sorted by name and uid.
func (l *Location) scan(ctx context.Context, prefix string) ([]found, error) {
	out, err := l.scanKeys(ctx, prefix, func(string, string, string, plugins.ObjectInfo) {}, func(found) {})
	if err != nil || len(out) == 0 {
		return nil, err
	}
	deleting, err := l.tombstones(ctx)
	mark(out, deleting)
	return out, err
}

// scanKeys is scan without a look for deletions. each is told of every object of a backup, with or without a record, and whole of every backup with
// one, once all of its objects were listed.
func (l *Location) scanKeys(ctx context.Context, prefix string, each func(name, uid, rest string, info plugins.ObjectInfo), whole func(found)) ([]found, error) {
	var out []found
	leave := func() { // the folder that was listed last
		if n := len(out); n > 0 && out[n-1].record {
			whole(out[n-1])
		} else if n > 0 {
			out = out[:n-1]
		}
	}
	err := l.store.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		name, uid, rest, ok := splitKey(info.Key)
		if !ok {
			return nil
		}
		if n := len(out); n == 0 || out[n-1].name != name || out[n-1].uid != uid {
			leave()
			out = append(out, found{name: name, uid: uid})
		}
		last := &out[len(out)-1]
		each(last.name, last.uid, rest, info)
		if rest == recordName {
			last.record = true
		} else if file, ok := strings.CutPrefix(rest, expiryFolder+"/"); ok {
			if n, ok := seriesNumber(file, ".json"); ok {
				last.expiry = max(last.expiry, n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	leave()
	slices.SortFunc(out, func(a, b found) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.uid, b.uid)) })
	return out, nil
}

// tombstones gives the uids of the backups whose deletion has begun.
func (l *Location) tombstones(ctx context.Context) ([]string, error) {
	var uids []string
	err := l.store.List(ctx, tombstonePrefix, func(info plugins.ObjectInfo) error {
		uid, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, tombstonePrefix), ".json")
		if ok && validUID(uid) {
			uids = append(uids, uid)
		}
		return nil
	})
	return uids, err
}

func mark(have []found, deleting []string) {
	dying := make(map[string]bool, len(deleting))
	for _, uid := range deleting {
		dying[uid] = true
	}
	for i := range have {
		have[i].deleting = dying[have[i].uid]
	}
}
