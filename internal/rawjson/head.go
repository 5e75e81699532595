package rawjson

import (
	"fmt"
)

// Head is what selection and index need to know of an object.
type Head struct {
	APIVersion, Kind string // empty where the object lacks them, as the items of a typed list do

	Name, Namespace, GenerateName string
	UID, ResourceVersion          string
	CreationTimestamp             string // RFC 3339, as the server wrote it
	Deleting                      bool   // a deletionTimestamp is set
	Labels                        map[string]string
	Annotations                   map[string]string // only those that were asked for
	Finalizers                    []string
	Owners                        []Owner
	// Applied says that managedFields has an entry of operation Apply that is not about the status.
	Applied bool
}

// Owner is one of metadata.ownerReferences.
type Owner struct {
	APIVersion, Kind, Name, UID string
	Controller                  bool
	BlockOwnerDeletion          *bool
}

// ReadHead reads the head of one object, with the values of the annotations named. It checks that raw is one JSON object
// and nothing else, and refuses a key that stands twice where it reads (RFC 8259 leaves open which of them would count).
// The result holds no reference to raw.
func ReadHead(raw []byte, annotations ...string) (Head, error) {
	r := newHeadReader()
	r.annotations = annotations
	r.reset(raw)
	if err := r.object(r.onTop); err != nil {
		return Head{}, err
	}
	if err := r.end(); err != nil {
		return Head{}, err
	}
	return r.head, nil
}

// headReader reads one head after the other. It keeps what it needs for that, as millions of objects pass through it.
type headReader struct {
	cursor
	head        Head
	annotations []string
	topSeen     uint8
	metaSeen    uint32
	onTop       func(key []byte) error
	onMeta      func(key []byte) error
	onLabel     func(key []byte) error
	onManaged   func() error
	names       map[string]string // strings that were read before, for those that come again and again; nil keeps none
}

// maxNames and maxNameSize bound the strings that a reader keeps.
const (
	maxNames    = 2048
	maxNameSize = 128
)

func newHeadReader() *headReader {
	r := &headReader{}
	r.onTop, r.onMeta, r.onLabel, r.onManaged = r.top, r.meta, r.label, r.managed
	return r
}

// reset makes the reader ready for another object.
func (r *headReader) reset(raw []byte) {
	r.cursor = cursor{b: raw}
	r.head, r.topSeen, r.metaSeen = Head{}, 0, 0
}

// shared decodes a string that was passed with its quotes, one that probably was read before.
func (r *headReader) shared(quoted []byte) (string, error) {
	if s, known := r.names[string(quoted)]; known {
		return s, nil
	}
	s, err := text(quoted)
	if r.names == nil || err != nil || len(quoted) > maxNameSize {
		return s, err
	}
	if len(r.names) == maxNames {
		clear(r.names)
	}
	r.names[string(quoted)] = s
	return s, nil
}

// sharedStr is str for strings that probably were read before.
func (r *headReader) sharedStr() (string, error) {
	if null, err := r.null(); null || err != nil {
		return "", err
	}
	if r.space() != '"' {
		return "", r.fail("a string is missing")
	}
	quoted, err := r.rawString()
	if err != nil {
		return "", err
	}
	return r.shared(quoted)
}

// once marks a key as seen and refuses a second one.
func once[T uint8 | uint32](c *cursor, seen *T, bit T) error {
	if *seen&bit != 0 {
		return c.fail("a key stands twice")
	}
	*seen |= bit
	return nil
}

func (r *headReader) top(key []byte) error {
	var err error
	switch string(keyText(key)) {
	case "apiVersion":
		if err = once(&r.cursor, &r.topSeen, 1); err == nil {
			r.head.APIVersion, err = r.sharedStr()
		}
	case "kind":
		if err = once(&r.cursor, &r.topSeen, 2); err == nil {
			r.head.Kind, err = r.sharedStr()
		}
	case "metadata":
		if err = once(&r.cursor, &r.topSeen, 4); err == nil {
			err = r.objectOrNull(r.onMeta)
		}
	default:
		err = r.skip()
	}
	return err
}

// objectOrNull and arrayOrNull pass what may be null.
func (r *headReader) objectOrNull(field func(key []byte) error) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	return r.object(field)
}

func (r *headReader) arrayOrNull(elem func() error) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	return r.array(elem)
}

func (r *headReader) nullOr(read func() error) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	return read()
}

// metaFields gives each field that is read its bit.
var metaFields = map[string]uint32{
	"name": fieldName, "namespace": fieldNamespace, "generateName": fieldGenerateName, "uid": fieldUID, "resourceVersion": fieldResourceVersion,
	"creationTimestamp": fieldCreationTimestamp, "deletionTimestamp": fieldDeletionTimestamp, "labels": fieldLabels,
	"annotations": fieldAnnotations, "ownerReferences": fieldOwners, "managedFields": fieldManaged, "finalizers": fieldFinalizers,
}

const (
	fieldName uint32 = 1 << iota
	fieldNamespace
	fieldGenerateName
	fieldUID
	fieldResourceVersion
	fieldCreationTimestamp
	fieldDeletionTimestamp
	fieldLabels
	fieldAnnotations
	fieldOwners
	fieldManaged
	fieldFinalizers
)

func (r *headReader) meta(quoted []byte) error {
	key := keyText(quoted)
	bit, read := metaFields[string(key)]
	if !read {
		return r.skip()
	}
	if err := once(&r.cursor, &r.metaSeen, bit); err != nil {
		return err
	}
	return r.metaField(bit)
}

func (r *headReader) metaField(bit uint32) (err error) {
	h := &r.head
	switch bit {
	case fieldName:
		h.Name, err = r.str()
	case fieldNamespace:
		h.Namespace, err = r.sharedStr()
	case fieldGenerateName:
		h.GenerateName, err = r.str()
	case fieldUID:
		h.UID, err = r.str()
	case fieldResourceVersion:
		h.ResourceVersion, err = r.str()
	case fieldCreationTimestamp:
		h.CreationTimestamp, err = r.str()
	case fieldDeletionTimestamp:
		var at string
		at, err = r.str()
		h.Deleting = at != ""
	case fieldLabels:
		err = r.objectOrNull(r.onLabel)
	case fieldAnnotations:
		if len(r.annotations) == 0 {
			return r.skip()
		}
		err = r.objectOrNull(r.annotation)
	case fieldFinalizers:
		err = r.arrayOrNull(r.finalizer)
	case fieldOwners:
		err = r.arrayOrNull(r.owner)
	case fieldManaged:
		err = r.arrayOrNull(r.onManaged)
	}
	return err
}

func (r *headReader) label(quoted []byte) error {
	key, err := r.shared(quoted)
	if err != nil {
		return err
	}
	value, err := r.sharedStr()
	if err != nil {
		return err
	}
	if r.head.Labels == nil {
		r.head.Labels = make(map[string]string, 4)
	}
	if _, twice := r.head.Labels[key]; twice {
		return r.fail("a label stands twice")
	}
	r.head.Labels[key] = value
	return nil
}

func (r *headReader) annotation(quoted []byte) error {
	key := string(keyText(quoted))
	for _, want := range r.annotations {
		if want != key {
			continue
		}
		value, err := r.str()
		if err != nil {
			return err
		}
		if r.head.Annotations == nil {
			r.head.Annotations = make(map[string]string, len(r.annotations))
		}
		if _, twice := r.head.Annotations[key]; twice {
			return r.fail("an annotation stands twice")
		}
		r.head.Annotations[key] = value
		return nil
	}
	return r.skip()
}

func (r *headReader) finalizer() error {
	s, err := r.str()
	r.head.Finalizers = append(r.head.Finalizers, s)
	return err
}

func (r *headReader) owner() error {
	var o Owner
	err := r.object(func(quoted []byte) (err error) {
		switch string(keyText(quoted)) {
		case "apiVersion":
			o.APIVersion, err = r.str()
		case "kind":
			o.Kind, err = r.str()
		case "name":
			o.Name, err = r.str()
		case "uid":
			o.UID, err = r.str()
		case "controller":
			o.Controller, err = r.boolean()
		case "blockOwnerDeletion":
			err = r.nullOr(func() error {
				b, err := r.boolean()
				o.BlockOwnerDeletion = &b
				return err
			})
		default:
			err = r.skip()
		}
		return err
	})
	r.head.Owners = append(r.head.Owners, o)
	return err
}

func (r *headReader) managed() error {
	var apply, status bool
	err := r.object(func(quoted []byte) (err error) {
		switch string(keyText(quoted)) {
		case "operation":
			apply, err = r.isString("Apply")
		case "subresource":
			status, err = r.isString("status")
		default:
			err = r.skip()
		}
		return err
	})
	if apply && !status {
		r.head.Applied = true
	}
	return err
}

// isString passes a string or a null and compares it.
func (r *headReader) isString(want string) (bool, error) {
	if null, err := r.null(); null || err != nil {
		return false, err
	}
	if r.space() != '"' {
		return false, r.fail("a string is missing")
	}
	quoted, err := r.rawString()
	return err == nil && string(keyText(quoted)) == want, err
}

// WithTypeMeta appends raw, one JSON object, to dst, with apiVersion and kind put in front where the object lacks them.
// An object that names another apiVersion or kind is an error.
func WithTypeMeta(dst, raw []byte, apiVersion, kind string) ([]byte, error) {
	r := newHeadReader()
	r.reset(raw)
	err := r.object(func(quoted []byte) error {
		switch string(keyText(quoted)) {
		case "apiVersion", "kind":
			return r.top(quoted)
		}
		return r.skip()
	})
	if err != nil {
		return dst, err
	}
	if err := r.end(); err != nil {
		return dst, err
	}
	return r.head.WithTypeMeta(dst, raw, apiVersion, kind)
}

// WithTypeMeta does the same for an object whose head is known, without reading it again.
func (h *Head) WithTypeMeta(dst, raw []byte, apiVersion, kind string) ([]byte, error) {
	switch {
	case h.APIVersion == apiVersion && h.Kind == kind:
		return append(dst, raw...), nil
	case h.APIVersion != "" || h.Kind != "":
		return dst, fmt.Errorf("object is %q %q, not %q %q", h.APIVersion, h.Kind, apiVersion, kind)
	}
	c := cursor{b: raw}
	c.space()
	dst = append(dst, `{"apiVersion":`...)
	dst = appendQuoted(dst, apiVersion)
	dst = append(dst, `,"kind":`...)
	dst = appendQuoted(dst, kind)
	rest := cursor{b: raw, i: c.i + 1}
	if rest.space() != '}' {
		dst = append(dst, ',')
	}
	return append(dst, raw[rest.i:]...), nil
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
