package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// Errors of a Tree.
var (
	// ErrNotFound: the copy has no such file or folder.
	ErrNotFound = errors.New("no such file or folder in the copy")
	// SkipFolder is what a callback of Walk returns to leave out what is in the folder that it was called for.
	SkipFolder = iofs.SkipDir
)

// Tree is a copy that is read by path. It is safe for concurrent use.
type Tree struct {
	repo repo.Repository
	root snapshot.DirEntry
}

// OpenTree opens the copy that a manifest is of. Unfinished copies can be read too.
func OpenTree(rep repo.Repository, man *snapshot.Manifest) (*Tree, error) {
	if man == nil || man.RootEntry == nil || man.RootEntry.Type != snapshot.EntryTypeDirectory {
		return nil, fmt.Errorf("open copy: %w: its manifest names no folder", ErrDamaged)
	}
	return &Tree{repo: rep, root: *man.RootEntry}, nil
}

// Types of entries.
const (
	TypeFile    = "file"
	TypeFolder  = "folder"
	TypeSymlink = "symlink"
	TypeFIFO    = typeFIFO
	TypeChar    = typeChar
	TypeBlock   = typeBlock
)

// Entry is one file or folder of a copy.
type Entry struct {
	// Path is relative to the copy's root, which itself is "."; it may hold any bytes but zero.
	Path string `json:"path"`
	Type string `json:"type"`
	// Mode has the twelve bits of chmod(2).
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// Size is in bytes; of a folder, that of all files below.
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	// Link is the same for entries that are one file under several names.
	Link string `json:"link,omitempty"`
	// Attrs are the names of the extended attributes, ACLs among them; a folder's are known once it is listed.
	Attrs []string `json:"attrs,omitempty"`
	// Sparse is set for files with holes.
	Sparse bool `json:"sparse,omitempty"`
	// Major and Minor are of devices.
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`

	object object.ID
}

// describe makes an Entry of what a folder holds.
func describe(n *node, path string) Entry {
	if path == "" {
		path = "."
	}
	m := metaOf(n)
	e := Entry{Path: path, Type: n.kind(), Mode: m.mode, UID: m.uid, GID: m.gid, ModTime: time.Unix(m.time.Sec, m.time.Nsec).UTC()}
	for i := range m.attrs {
		e.Attrs = append(e.Attrs, m.attrs[i].name())
	}
	if n.rec != nil {
		e.Link, e.Sparse = n.rec.Link, n.rec.Sparse
		if s := n.rec.Special; s != nil {
			e.Major, e.Minor = s.Major, s.Minor
		}
	}
	if n.entry != nil {
		e.Size, e.object = n.entry.FileSize, n.entry.ObjectID
		if n.entry.DirSummary != nil {
			e.Size = n.entry.DirSummary.TotalFileSize
		}
	}
	return e
}

// Find gives the entry at a path; "" and "." are the root.
func (t *Tree) Find(ctx context.Context, path string) (Entry, error) {
	n, path, err := t.find(ctx, path)
	if err != nil {
		return Entry{}, err
	}
	return describe(&n, path), nil
}

// find gives the node at a path, and the path as it is written.
func (t *Tree) find(ctx context.Context, path string) (node, string, error) {
	names, err := splitPath(path)
	if err != nil {
		return node{}, "", fmt.Errorf("find %q: %w", path, err)
	}
	root := t.root
	n := node{key: key{classDir, root.Name}, entry: &root}
	at := ""
	for _, name := range names {
		if n.kind() != TypeFolder {
			return node{}, "", fmt.Errorf("find %q: %w: %q is no folder", path, ErrNotFound, at)
		}
		if n, err = t.child(ctx, n.entry.ObjectID, name); err != nil {
			return node{}, "", fmt.Errorf("find %q: %w", path, err)
		}
		at = joinPath(at, name)
	}
	return n, at, nil
}

// child looks for a name in a folder.
func (t *Tree) child(ctx context.Context, id object.ID, name string) (node, error) {
	in, err := openFolder(ctx, t.repo, id)
	if err != nil {
		return node{}, err
	}
	defer in.close()
	stored := storedName(name)
	for {
		n, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return node{}, ErrNotFound
		case err != nil:
			return node{}, err
		case n.key.name == stored:
			return n, nil
		}
		if err := ctx.Err(); err != nil {
			return node{}, err
		}
	}
}

// List calls fn for each entry of a folder: folders first, then the others, each in the order of their stored names. It
// returns fn's first error as it is. A file's list is the file itself.
func (t *Tree) List(ctx context.Context, path string, fn func(Entry) error) error {
	n, path, err := t.find(ctx, path)
	if err != nil {
		return err
	}
	if n.kind() != TypeFolder {
		return fn(describe(&n, path))
	}
	return t.each(ctx, n.entry.ObjectID, path, func(n *node, path string) error { return fn(describe(n, path)) })
}

// Walk calls fn for the entry at a path and for all that is below, a folder before what is in it. fn may return
// SkipFolder for a folder; any other error ends the walk and is returned as it is.
func (t *Tree) Walk(ctx context.Context, path string, fn func(Entry) error) error {
	n, path, err := t.find(ctx, path)
	if err != nil {
		return err
	}
	return t.walk(ctx, &n, path, 0, fn)
}

func (t *Tree) walk(ctx context.Context, n *node, path string, depth int, fn func(Entry) error) error {
	err := fn(describe(n, path))
	switch {
	case n.kind() == TypeFolder && errors.Is(err, SkipFolder):
		return nil
	case err != nil || n.kind() != TypeFolder:
		return err
	case depth >= maxDepth:
		return fmt.Errorf("walk %q: %w: it is more than %d folders deep", path, ErrDamaged, maxDepth)
	}
	return t.each(ctx, n.entry.ObjectID, path, func(n *node, path string) error {
		return t.walk(ctx, n, path, depth+1, fn)
	})
}

// each calls fn for each entry of a folder.
func (t *Tree) each(ctx context.Context, id object.ID, path string, fn func(n *node, path string) error) error {
	in, err := openFolder(ctx, t.repo, id)
	if err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	defer in.close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %q: %w", path, err)
		}
		name, err := n.name()
		if err != nil {
			return fmt.Errorf("list %q: %w: %w", path, ErrDamaged, err)
		}
		if err := fn(&n, joinPath(path, name)); err != nil {
			return err
		}
	}
}

// ReadFile opens the content of a file of the copy, which the caller closes.
func (t *Tree) ReadFile(ctx context.Context, path string) (io.ReadSeekCloser, error) {
	n, path, err := t.find(ctx, path)
	if err != nil {
		return nil, err
	}
	if n.kind() != TypeFile {
		return nil, fmt.Errorf("read %q: it is a %s", path, n.kind())
	}
	obj, err := t.repo.OpenObject(ctx, n.entry.ObjectID)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return obj, nil
}

// Target reads where a symbolic link leads, as the bytes that it had.
func (t *Tree) Target(ctx context.Context, e Entry) (string, error) {
	if e.Type != TypeSymlink {
		return "", fmt.Errorf("read link %q: it is a %s", e.Path, e.Type)
	}
	return readTarget(ctx, t.repo, e.object)
}

func readTarget(ctx context.Context, rep repo.Repository, id object.ID) (string, error) {
	obj, err := rep.OpenObject(ctx, id)
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	defer func() { _ = obj.Close() }()
	b, err := io.ReadAll(io.LimitReader(obj, maxTarget+1))
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	target := string(b)
	if target == "" || len(target) > maxTarget || strings.Contains(target, "\x00") {
		return "", damaged("a symbolic link's target is none")
	}
	return target, nil
}

// kind is the type of a node.
func (n *node) kind() string {
	if n.entry == nil {
		return n.rec.Special.Type
	}
	switch n.entry.Type {
	case snapshot.EntryTypeDirectory:
		return TypeFolder
	case snapshot.EntryTypeSymlink:
		return TypeSymlink
	case snapshot.EntryTypeFile:
		return TypeFile
	case snapshot.EntryTypeUnknown:
	}
	return string(n.entry.Type)
}

// meta is all of an entry but its name and content.
type meta struct {
	mode     uint32 // the twelve bits of chmod(2)
	uid, gid uint32
	time     stamp
	attrs    []attr
}

func metaOf(n *node) meta {
	var m meta
	if e := n.entry; e != nil {
		m.mode, m.uid, m.gid = unixMode(e.Permissions), e.UserID, e.GroupID
		t := e.ModTime.ToTime()
		m.time = stamp{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	}
	if rec := n.rec; rec != nil {
		m.attrs = rec.Attrs
		if rec.Time != nil {
			m.time = *rec.Time
		}
		if s := rec.Special; s != nil {
			m.mode, m.uid, m.gid, m.time = s.Mode&0o7777, s.UID, s.GID, s.Time
		}
	}
	return m
}
