package files

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestSymlinkRace restores while somebody swaps folders of the target for symbolic links that lead outside, as fast as they
// can. Whatever the restore then says, nothing outside changes.
func TestSymlinkRace(t *testing.T) {
	r, dir, target, outside := newRepo(t), t.TempDir(), t.TempDir(), t.TempDir()
	for i := range 30 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("folder/sub/%d", i)), fmt.Sprint("copied ", i))
	}
	res := r.copyTree(t, newCopier(t), dir)
	writeFile(t, filepath.Join(outside, "sub/1"), "precious")
	writeFile(t, filepath.Join(outside, "precious"), "x")
	before := treeState(t, outside)

	done := make(chan struct{})
	var attacker errgroup.Group
	attacker.Go(func() error {
		swapped := filepath.Join(target, "folder")
		aside := filepath.Join(target, "aside")
		for {
			select {
			case <-done:
				return nil
			default:
			}
			// Each may fail: the restore makes and removes the same names.
			_ = os.Rename(swapped, aside)
			_ = os.Symlink(outside, swapped)
			_ = os.Remove(swapped)
			_ = os.Rename(aside, swapped)
		}
	})
	for _, deleteExtra := range []bool{false, true, false, true, false, true} {
		s := newRestorer(t)
		s.DeleteExtra, s.Overwrite = deleteExtra, OverwriteAlways
		if _, err := s.Restore(r.ctx, r, RestoreRequest{Manifest: res.Manifest, Target: target}); err != nil {
			t.Errorf("restore: %v", err)
		}
	}
	close(done)
	must(t, attacker.Wait())
	compareTrees(t, before, treeState(t, outside))

	// Left alone, it ends as it should.
	s := newRestorer(t)
	s.DeleteExtra = true
	r.restoreTree(t, s, res, target)
	compareTrees(t, treeState(t, dir), treeState(t, target))
}
