package files

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
)

func TestBrowse(t *testing.T) {
	needRoot(t)
	r, dir := newRepo(t), t.TempDir()
	everything(t, dir)
	res := r.copyTree(t, newCopier(t), dir)
	tree, err := OpenTree(r, res.Manifest)
	must(t, err)

	state := treeState(t, dir)
	must(t, tree.Walk(r.ctx, "", func(e Entry) error {
		if _, ok := state[e.Path]; !ok {
			t.Errorf("%q is not in the tree", e.Path)
		}
		delete(state, e.Path)
		return nil
	}))
	if len(state) > 0 {
		t.Errorf("the walk did not come to %v", state)
	}

	var names []string
	must(t, tree.List(r.ctx, "/sub/", func(e Entry) error {
		names = append(names, e.Path)
		return nil
	}))
	if !slices.Equal(names, []string{"sub/deeper", "sub/again"}) {
		t.Errorf("sub has %q", names)
	}
	var skipped []string
	must(t, tree.Walk(r.ctx, "sub", func(e Entry) error {
		skipped = append(skipped, e.Path)
		if e.Path == "sub/deeper" {
			return SkipFolder
		}
		return nil
	}))
	if !slices.Equal(skipped, []string{"sub", "sub/deeper", "sub/again"}) {
		t.Errorf("without sub/deeper the walk is %q", skipped)
	}

	e, err := tree.Find(r.ctx, "suid")
	must(t, err)
	if e.Type != TypeFile || e.Mode != 0o6755 || e.UID != 12 || e.GID != 34 || e.Size != 2 || !slices.Equal(e.Attrs, []string{"security.capability"}) {
		t.Errorf("suid is %+v", e)
	}
	again, err := tree.Find(r.ctx, "sub/again")
	must(t, err)
	plain, err := tree.Find(r.ctx, "plain")
	must(t, err)
	if plain.Link == "" || plain.Link != again.Link {
		t.Errorf("the names of one file are linked as %q and %q", plain.Link, again.Link)
	}
	if e, err := tree.Find(r.ctx, "null"); err != nil || e.Type != TypeChar || e.Major != 1 || e.Minor != 3 {
		t.Errorf("null is %+v, %v", e, err)
	}
	if e, err := tree.Find(r.ctx, ""); err != nil || e.Path != "." || e.Type != TypeFolder {
		t.Errorf("the root is %+v, %v", e, err)
	}
	link, err := tree.Find(r.ctx, "link")
	must(t, err)
	if target, err := tree.Target(r.ctx, link); err != nil || target != "../nowhere/\xff" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	in, err := tree.ReadFile(r.ctx, filepath.Join("d\xff", "inside"))
	must(t, err)
	defer func() { _ = in.Close() }()
	if b, err := io.ReadAll(in); err != nil || string(b) != "x" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if _, err := tree.Find(r.ctx, "sub/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not there gives %v", err)
	}
	if _, err := tree.ReadFile(r.ctx, "sub"); err == nil {
		t.Error("a folder can be read as a file")
	}
}
