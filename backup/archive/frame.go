package archive

import (
	"cmp"
	"fmt"
	"strings"

	"kedge.dev/kedge/plugins"
)

// API describes one resource that the cluster served when the backup was taken.
type API struct {
	Group      string   `json:"group,omitempty"`
	Resource   string   `json:"resource"`
	Kind       string   `json:"kind"`
	Namespaced bool     `json:"namespaced,omitempty"`
	Versions   []string `json:"versions"`
	// Preferred is the version that the server prefers, Archived the one that the backup holds ("" for none).
	Preferred string `json:"preferred,omitempty"`
	Archived  string `json:"archived,omitempty"`
}

// Range is a part of a decrypted file.
type Range struct {
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Frame is one zstd frame of the items file: items of one resource and version, in the order of their keys, each as a
// whole tar entry. Offset, Size and SHA256 are those of the compressed frame within the decrypted file.
type Frame struct {
	Group    string `json:"group,omitempty"`
	Version  string `json:"version"`
	Resource string `json:"resource"`
	// First and Last are the keys of its first and last item.
	First string `json:"first"`
	Last  string `json:"last"`
	// Namespace is set where all items are in one.
	Namespace  string `json:"namespace,omitempty"`
	Namespaces int    `json:"namespaces,omitempty"`
	Items      int    `json:"items"`
	Bytes      int64  `json:"bytes"` // sum of the items' JSON
	Offset     int64  `json:"offset"`
	Size       int64  `json:"size"`
	RawSize    int64  `json:"rawSize"`
	SHA256     string `json:"sha256"`
	// Index is the frame's shard of the index file, IndexRawSize its length decompressed.
	Index        Range `json:"index"`
	IndexRawSize int64 `json:"indexRawSize"`
}

// table is the content of FileTable.
type table struct {
	APIs   []API   `json:"apis"`
	Frames []Frame `json:"frames"`
}

// GroupResource is "<resource>" for the core API and "<resource>.<group>" elsewhere.
func (f *Frame) GroupResource() string {
	return plugins.Ref{Group: f.Group, Resource: f.Resource}.GroupResource()
}

// MayHold says whether the frame's range of keys touches a namespace; "" asks for cluster-scoped items.
func (f *Frame) MayHold(namespace string) bool {
	if namespace == "" {
		return f.Namespaces == 0
	}
	if f.Namespaces == 0 {
		return false
	}
	if f.Namespaces == 1 {
		return f.Namespace == namespace
	}
	// '0' is the byte after '/', so these two bound every key of the namespace.
	return f.Last >= namespace+"/" && f.First < namespace+"0"
}

// MayHoldKey says whether a key is within the frame's range.
func (f *Frame) MayHoldKey(key string) bool { return f.First <= key && key <= f.Last }

// sectionID is one resource in one version.
type sectionID struct {
	group, resource, version string
}

func (f *Frame) section() sectionID { return sectionID{f.Group, f.Resource, f.Version} }

// compare orders sections in the archive.
func (a sectionID) compare(b sectionID) int {
	return cmp.Or(cmp.Compare(a.resource, b.resource), cmp.Compare(a.group, b.group), cmp.Compare(a.version, b.version))
}

// checkMember says why ref cannot be in the frame after the key last.
func (f *Frame) checkMember(ref plugins.Ref, last string, first bool) error {
	key := Key(ref.Namespace, ref.Name)
	switch {
	case ref.Group != f.Group || ref.Version != f.Version || ref.Resource != f.Resource:
		return fmt.Errorf("%s in a frame of %s", ref, f.GroupResource())
	case !validItem(ref):
		return fmt.Errorf("impossible name %q", key)
	case first && key != f.First:
		return fmt.Errorf("the frame begins with %q, its table says %q", key, f.First)
	case !first && key == last:
		return fmt.Errorf("%s is there twice", ref)
	case !first && key < last:
		return fmt.Errorf("%q after %q", key, last)
	case !f.spans(ref.Namespace):
		return fmt.Errorf("%s is in another namespace than the frame", ref)
	}
	return nil
}

// spans says whether an item of the namespace fits what the table says of the frame.
func (f *Frame) spans(namespace string) bool {
	switch f.Namespaces {
	case 0:
		return namespace == ""
	case 1:
		return namespace == f.Namespace
	}
	return namespace != ""
}

func (f *Frame) checkEnd(last string, n int) error {
	if n != f.Items || last != f.Last {
		return fmt.Errorf("it ends after %d items at %q, its table says %d and %q", n, last, f.Items, f.Last)
	}
	return nil
}

// validate checks the numbers of one frame by themselves.
func (f *Frame) validate() error {
	switch {
	case !validGVR(f.Group, f.Version, f.Resource):
		return fmt.Errorf("impossible resource %q", f.GroupResource())
	case f.First == "" || f.First > f.Last:
		return fmt.Errorf("keys %q to %q", f.First, f.Last)
	case f.Items < 1 || f.Bytes < 0 || f.Namespaces < 0 || f.Namespaces > f.Items || (f.Namespaces == 1) != (f.Namespace != ""):
		return fmt.Errorf("%d items in %d namespaces", f.Items, f.Namespaces)
	}
	return f.validateSizes()
}

func (f *Frame) validateSizes() error {
	switch {
	case f.RawSize < tarBlock || f.RawSize > maxFrameRaw || f.Bytes > f.RawSize || int64(f.Items) > f.RawSize/tarBlock:
		return fmt.Errorf("%d items of %d bytes, %d as tar", f.Items, f.Bytes, f.RawSize)
	case f.IndexRawSize < 1 || f.IndexRawSize > maxFrameRaw || int64(f.Items) > f.IndexRawSize:
		return fmt.Errorf("%d bytes of rows", f.IndexRawSize)
	case f.Size < 1 || f.Size > maxFrameRaw || f.Index.Size < 1 || f.Index.Size > maxFrameRaw:
		return fmt.Errorf("compressed sizes %d and %d", f.Size, f.Index.Size)
	case !isHex(f.SHA256, 64) || !isHex(f.Index.SHA256, 64):
		return fmt.Errorf("no sha256")
	}
	return nil
}

// validate checks that frames follow one another in the files, and items in their sections, so that none can be
// there twice.
func (t *table) validate() error {
	if len(t.Frames) > maxFrames {
		return fmt.Errorf("%d frames", len(t.Frames))
	}
	items, index := int64(0), int64(0)
	for i := range t.Frames {
		f := &t.Frames[i]
		if err := f.validate(); err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		if !follows(items, f.Offset) || !follows(index, f.Index.Offset) {
			return fmt.Errorf("frame %d lies at %d and %d, the one before ends at %d and %d", i, f.Offset, f.Index.Offset, items, index)
		}
		items, index = f.Offset+f.Size, f.Index.Offset+f.Index.Size
		if i == 0 {
			continue
		}
		before := &t.Frames[i-1]
		order := before.section().compare(f.section())
		if order > 0 || order == 0 && before.Last >= f.First {
			return fmt.Errorf("frame %d is out of order", i)
		}
	}
	return nil
}

// follows says whether a frame may begin at offset where the one before ended at end: at once, or after padding.
func follows(end, offset int64) bool {
	gap := offset - end
	return gap == 0 || gap >= skippableHeader && gap <= maxPadding
}

// validGVR accepts what a path can be made of.
func validGVR(group, version, resource string) bool {
	return isPlain(resource) && len(resource) <= 253 && !strings.Contains(resource, ".") &&
		isPlain(version) && len(version) <= 63 && version[0] != '.' &&
		(group == "" || isPlain(group) && len(group) <= 253 && group[0] != '.')
}
