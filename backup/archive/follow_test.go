package archive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// pausing is a store whose listing of backups comes to keys with a prefix only once it may.
type pausing struct {
	*memory
	at  string
	may <-chan struct{}
}

func (p *pausing) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	return p.memory.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		if strings.HasPrefix(info.Key, p.at) {
			select {
			case <-p.may:
			case <-time.After(time.Minute):
				return errors.New("nobody read what was listed")
			}
		}
		return fn(info)
	})
}

// TestFollow reads the records that are wanted while the rest is still being listed: the listing stands still until they are. What has no record is
// none, be it in the middle or at the end, and a deletion that began after the first record was read is in the inventory.
func TestFollow(t *testing.T) {
	may := make(chan struct{})
	store := &pausing{memory: newMemory(), at: "backups/d/", may: may}
	l, _ := location(t, store.memory)
	for i, name := range []string{"a", "b", "d"} {
		write(t, l, writeOptions(t, name, name+"-uid"), smallSample(uint64(i)))
	}
	for _, name := range []string{"c", "e"} {
		store.objects["backups/"+name+"/uid/0123456789abcdef/items.tar.zst.age"] = []byte("remains")
	}
	l, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	var read []string
	inventory, err := l.Follow(t.Context(), func(b archive.Listed) bool { return b.Name() != "a" }, func(b archive.Listed, e archive.Entry) error {
		if e.Err != nil || e.UID != b.UID() || e.Deleting {
			t.Errorf("%s: read %s, deleting %t, %v", b.Name(), e.ID(), e.Deleting, e.Err)
		}
		if read = append(read, b.Name()); b.Name() == "b" {
			store.mu.Lock()
			store.objects["tombstones/b-uid.json"] = []byte("{}")
			store.mu.Unlock()
			close(may)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, b := range inventory.Backups {
		all = append(all, b.Name())
		if b.Deleting() != (b.Name() == "b") {
			t.Errorf("%s: deleting %t", b.Name(), b.Deleting())
		}
	}
	if !slices.Equal(read, []string{"b", "d"}) || !slices.Equal(all, []string{"a", "b", "d"}) {
		t.Errorf("read %v of %v", read, all)
	}

	// Whoever reads can end it, and so does a listing that fails.
	stop := errors.New("enough")
	if _, err := l.Follow(t.Context(), func(archive.Listed) bool { return true }, func(archive.Listed, archive.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ended by its reader: %v", err)
	}
	store.before = func(op, _ string) error {
		if op == "list" {
			return errDead
		}
		return nil
	}
	if _, err := l.Follow(t.Context(), func(archive.Listed) bool { return true }, func(archive.Listed, archive.Entry) error { return nil }); !errors.Is(err, errDead) {
		t.Errorf("a store that dies: %v", err)
	}
}
