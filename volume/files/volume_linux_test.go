package files

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

const volumePassword = "a password for tests"

var testVolume = repository.Volume{Cluster: "3f1c6f0e", Provider: "efs", Handle: "fs-0123456789abcdef0"}

// volumes is a repository in memory, with a clock of its own that runs ahead of that of the files.
type volumes struct {
	*repository.Repository
	store *repositorytest.Store
	clock *repositorytest.Clock
}

func newVolumes(t *testing.T) *volumes {
	t.Helper()
	clock := repositorytest.NewClock(time.Now().Add(time.Hour))
	v := &volumes{store: repositorytest.NewStore(clock.Now), clock: clock}
	var err error
	v.Repository, err = repository.OpenOrCreate(t.Context(), v.store, volumePassword, repository.CreateOptions{}, repository.Options{Now: clock.Now})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close(context.Background())) })
	return v
}

func (v *volumes) copy(t *testing.T, c *Copier, dir string) *VolumeResult {
	t.Helper()
	res, err := c.CopyVolume(t.Context(), v.Repository, testVolume, dir)
	must(t, err)
	return res
}

// list gives the copies of the volume, whole or begun.
func (v *volumes) list(t *testing.T, begun bool) []repository.Copy {
	t.Helper()
	copies, err := v.Copies(t.Context(), repository.Filter{Volume: testVolume, Kind: Kind, Incomplete: begun})
	must(t, err)
	return copies
}

// check restores a copy and compares it with the state that it is of.
func (v *volumes) check(t *testing.T, c repository.Copy, want map[string]string) {
	t.Helper()
	target := t.TempDir()
	_, err := newRestorer(t).RestoreVolume(t.Context(), v.Repository, c, "", target)
	must(t, err)
	compareTrees(t, want, treeState(t, target))
	damages, err := Verify(t.Context(), v.Repository, []repository.Copy{c}, VerifyOptions{SpoolDir: t.TempDir()})
	must(t, err)
	if len(damages) > 0 {
		t.Errorf("verified: %v", damages)
	}
}

// TestVolume copies a volume twice. The repository lists both copies, as what they are; the second reads what changed; both come back.
func TestVolume(t *testing.T) {
	v, c, dir := newVolumes(t), newCopier(t), t.TempDir()
	grove(t, dir, 40)
	before := treeState(t, dir)
	first := v.copy(t, c, dir)
	if first.ReadFiles != first.Files || first.Uploaded == 0 || first.Copy.Base != "" {
		t.Errorf("the first copy: %+v", first)
	}
	writeFile(t, filepath.Join(dir, "new"), "content")
	after := treeState(t, dir)
	second := v.copy(t, c, dir)
	if second.ReadFiles != 1 || second.Files != first.Files+1 || second.Copy.Base != first.Copy.ID {
		t.Errorf("the second copy: %+v", second)
	}
	listed := v.list(t, false)
	if len(listed) != 2 || len(v.list(t, true)) > 0 {
		t.Fatalf("the repository has the copies %+v", listed)
	}
	for i, made := range []repository.Copy{first.Copy, second.Copy} {
		found := listed[i]
		if found.ID != made.ID || found.Kind != Kind || found.Volume != testVolume || found.SizeBytes != made.SizeBytes || found.Base != made.Base ||
			!found.Completed.Equal(made.Completed) || found.Files != made.Files {
			t.Errorf("made %+v, found %+v", made, found)
		}
	}
	v.check(t, listed[0], before)
	v.check(t, listed[1], after)
	v.clock.Advance(30 * time.Hour)
	done, err := v.Maintain(t.Context(), repository.MaintainOptions{Keep: func(c repository.Copy) bool { return c.ID == first.Copy.ID }})
	if err != nil || done.Kept != 1 || done.Forgotten != 1 {
		t.Errorf("maintained: %+v, %v", done, err)
	}
	if left := v.list(t, false); len(left) != 1 || left[0].ID != first.Copy.ID {
		t.Errorf("after maintenance: %+v", left)
	}
}

// TestVolumeOfAnotherKind: what is no whole copy of files is refused.
func TestVolumeOfAnotherKind(t *testing.T) {
	v := newVolumes(t)
	for _, c := range []repository.Copy{{ID: "a", Kind: "blocks"}, {ID: "b", Kind: Kind, Incomplete: "checkpoint"}} {
		if _, err := newRestorer(t).RestoreVolume(t.Context(), v.Repository, c, "", t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a whole copy") {
			t.Errorf("restored %+v: %v", c, err)
		}
	}
}

// TestVolumeStopped: a copy that was stopped leaves how far it came, the next one reads the rest only, and nothing unfinished stays after it.
func TestVolumeStopped(t *testing.T) {
	v, dir := newVolumes(t), t.TempDir()
	grove(t, dir, 60)
	want := treeState(t, dir)
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		var mu sync.Mutex
		c := newCopier(t)
		c.Parallel = 1
		c.Skip = func(_ string, isDir bool) bool {
			mu.Lock()
			defer mu.Unlock()
			if seen++; !isDir && seen > 25+10*round {
				cancel()
			}
			return false
		}
		_, err := c.CopyVolume(ctx, v.Repository, testVolume, dir)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the stopped copy ends with %v", err)
		}
		if len(v.list(t, true)) == 0 {
			t.Error("a stopped copy left nothing")
		}
	}
	res := v.copy(t, newCopier(t), dir)
	if res.ReadFiles == res.Files {
		t.Errorf("the copy read all %d files again", res.ReadFiles)
	}
	if left := v.list(t, true); len(left) > 0 {
		t.Errorf("unfinished copies are left: %+v", left)
	}
	v.check(t, res.Copy, want)
}

// TestVolumeBaseForgotten: while a copy runs, the one that it is compared with is forgotten, and maintenance does all that it ever will. The
// copy is whole all the same.
func TestVolumeBaseForgotten(t *testing.T) {
	v, dir := newVolumes(t), t.TempDir()
	random := rand.New(rand.NewPCG(1, 9))
	for i := range 20 {
		content := make([]byte, 4000)
		for j := range content {
			content[j] = byte(random.Uint32())
		}
		writeFile(t, filepath.Join(dir, fmt.Sprint(i%3), fmt.Sprint(i)), string(content))
	}
	want := treeState(t, dir)
	base := v.copy(t, newCopier(t), dir)
	v.clock.Advance(30 * time.Hour)
	maintainer, err := repository.Open(t.Context(), v.store, volumePassword, repository.Options{Now: v.clock.Now})
	must(t, err)
	defer func() { must(t, maintainer.Close(context.Background())) }()
	var once sync.Once
	c := newCopier(t)
	c.Skip = func(string, bool) bool {
		once.Do(func() {
			for range 5 {
				_, err := maintainer.Maintain(context.Background(), repository.MaintainOptions{Force: true, Keep: func(repository.Copy) bool { return false }})
				must(t, err)
				v.clock.Advance(30 * time.Hour)
			}
		})
		return false
	}
	res := v.copy(t, c, dir)
	if res.ReadFiles > 0 {
		t.Errorf("the copy read %d files", res.ReadFiles)
	}
	if left := v.list(t, false); len(left) != 1 || left[0].ID != res.Copy.ID || left[0].ID == base.Copy.ID {
		t.Errorf("after the copy: %+v", left)
	}
	v.check(t, res.Copy, want)
}

// TestVerifyVolume damages every pack, one after another: a verification names the copies and files that are concerned, or the byte was nobody's.
func TestVerifyVolume(t *testing.T) {
	v, dir := newVolumes(t), t.TempDir()
	grove(t, dir, 10)
	special := filepath.Join(dir, "special")
	writeFile(t, filepath.Join(special, "linked"), strings.Repeat("content ", 1000))
	must(t, os.Link(filepath.Join(special, "linked"), filepath.Join(special, "other")))
	must(t, os.Symlink("linked", filepath.Join(special, "symlink")))
	must(t, unix.Mkfifo(filepath.Join(special, "fifo"), 0o600))
	one := v.copy(t, newCopier(t), dir).Copy
	writeFile(t, filepath.Join(dir, "plain/alone"), strings.Repeat("other content ", 1000))
	two := v.copy(t, newCopier(t), dir).Copy
	copies := []repository.Copy{one, two}
	var files, bytes int64
	options := VerifyOptions{SpoolDir: t.TempDir(), Parallel: 1, Progress: func(f, b int64) { files, bytes = f, b }}
	damages, err := Verify(t.Context(), v.Repository, copies, options)
	if err != nil || len(damages) > 0 || files == 0 || bytes <= one.StoredBytes {
		t.Fatalf("verified a good repository: %v, %v; %d files, %d bytes", damages, err, files, bytes)
	}
	options.Progress = nil
	random := rand.New(rand.NewPCG(2, 9))
	found := map[string]bool{}
	for _, key := range slices.Concat(v.store.Keys("volumes/p"), v.store.Keys("volumes/q")) {
		for range 3 {
			at := random.IntN(v.store.Size(key))
			v.store.Flip(key, at)
			damages, err := Verify(t.Context(), v.Repository, copies, options)
			v.store.Flip(key, at)
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("flipped %s at %d: %v", key, at, err)
			}
			for _, d := range damages {
				if !errors.Is(d, ErrDamaged) || !strings.Contains(d.Error(), testVolume.String()) || d.Path == "" {
					t.Errorf("flipped %s at %d: %v", key, at, d)
				}
				found[d.Path] = true
			}
		}
	}
	t.Logf("found damages of %v", found)
	for _, key := range v.store.Keys("volumes/p") {
		v.store.Drop(key)
	}
	damages, err = Verify(t.Context(), v.Repository, copies, options)
	must(t, err)
	paths := map[string]int{}
	for _, d := range damages {
		paths[d.Path]++
		if d.Path == "plain/alone" && d.Copy.ID != two.ID {
			t.Errorf("a file of the second copy is missed in the first: %v", d)
		}
	}
	if paths["special"] != 2 || paths["plain/alone"] != 1 || paths["d0/e0/f0"] != 2 { // the sidecar of links and FIFOs is gone, so their folder is
		t.Errorf("without packs: %v", paths)
	}
}
