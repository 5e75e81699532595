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
	r := headReader{cursor: cursor{b: raw}, annotations: annotations}
	if err := r.object(r.top); err != nil {
		return Head{}, err
	}
	if err := r.end(); err != nil {
		return Head{}, err
	}
	return r.head, nil
}

type headReader struct {
	cursor
	head        Head
	annotations []string
	topSeen     uint8
	metaSeen    uint32
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
			r.head.APIVersion, err = r.str()
		}
	case "kind":
		if err = once(&r.cursor, &r.topSeen, 2); err == nil {
			r.head.Kind, err = r.str()
		}
	case "metadata":
		if err = once(&r.cursor, &r.topSeen, 4); err == nil {
			err = r.nullOr(func() error { return r.object(r.meta) })
		}
	default:
		err = r.skip()
	}
	return err
}

func (r *headReader) nullOr(read func() error) error {
	if null, err := r.null(); null || err != nil {
		return err
	}
	return read()
}

// metaFields gives each field that is read its bit.
var metaFields = map[string]uint32{
	"name": 1, "namespace": 2, "generateName": 4, "uid": 8, "resourceVersion": 16, "creationTimestamp": 32,
	"deletionTimestamp": 64, "labels": 128, "annotations": 256, "ownerReferences": 512, "managedFields": 1024, "finalizers": 2048,
}

func (r *headReader) meta(quoted []byte) error {
	key := string(keyText(quoted))
	bit, read := metaFields[key]
	if !read {
		return r.skip()
	}
	if err := once(&r.cursor, &r.metaSeen, bit); err != nil {
		return err
	}
	return r.metaField(key)
}

func (r *headReader) metaField(key string) (err error) {
	h := &r.head
	switch key {
	case "name":
		h.Name, err = r.str()
	case "namespace":
		h.Namespace, err = r.str()
	case "generateName":
		h.GenerateName, err = r.str()
	case "uid":
		h.UID, err = r.str()
	case "resourceVersion":
		h.ResourceVersion, err = r.str()
	case "creationTimestamp":
		h.CreationTimestamp, err = r.str()
	case "deletionTimestamp":
		var at string
		at, err = r.str()
		h.Deleting = at != ""
	case "labels":
		err = r.nullOr(func() error { return r.object(r.label) })
	case "annotations":
		err = r.nullOr(func() error { return r.object(r.annotation) })
	case "finalizers":
		err = r.nullOr(func() error { return r.array(r.finalizer) })
	case "ownerReferences":
		err = r.nullOr(func() error { return r.array(r.owner) })
	case "managedFields":
		err = r.nullOr(func() error { return r.array(r.managed) })
	}
	return err
}

func (r *headReader) label(quoted []byte) error {
	key, err := text(quoted)
	if err != nil {
		return err
	}
	value, err := r.str()
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
	if len(r.annotations) == 0 {
		return r.skip()
	}
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
	var operation, subresource string
	err := r.object(func(quoted []byte) (err error) {
		switch string(keyText(quoted)) {
		case "operation":
			operation, err = r.str()
		case "subresource":
			subresource, err = r.str()
		default:
			err = r.skip()
		}
		return err
	})
	if operation == "Apply" && subresource != "status" {
		r.head.Applied = true
	}
	return err
}

// WithTypeMeta appends raw, one JSON object, to dst, with apiVersion and kind put in front where the object lacks them.
// An object that names another apiVersion or kind is an error.
func WithTypeMeta(dst, raw []byte, apiVersion, kind string) ([]byte, error) {
	r := headReader{cursor: cursor{b: raw}}
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
