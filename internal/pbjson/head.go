package pbjson

import (
	"fmt"

	"kedge.dev/kedge/internal/rawjson"
)

// The fields of metav1.ObjectMeta and of what is in it that a head is made of.
const (
	objectMetadata = 1

	metaName, metaGenerateName, metaNamespace, metaUID, metaResourceVersion = 1, 2, 3, 5, 6
	metaCreated, metaDeleted, metaLabels, metaOwners, metaFinalizers        = 8, 9, 11, 13, 14
	metaManaged                                                             = 17

	ownerKind, ownerName, ownerUID, ownerAPIVersion, ownerController, ownerBlocks = 1, 3, 4, 5, 6, 7

	managedOperation, managedSubresource = 2, 8
)

// names keeps strings that come again and again.
type names map[string]string

const (
	maxNames    = 2048
	maxNameSize = 128
)

func (n names) text(b []byte) string {
	if s, known := n[string(b)]; known {
		return s
	}
	s := string(b)
	if len(b) <= maxNameSize {
		if len(n) == maxNames {
			clear(n)
		}
		n[s] = s
	}
	return s
}

// each calls fn for each field of a message: b is the value of one that is length-delimited, v that of a number.
func each(msg []byte, fn func(num int32, b []byte, v uint64) error) error {
	for i := 0; i < len(msg); {
		num, wire, end, err := tag(msg, i)
		if err != nil {
			return err
		}
		from, to, v := end, 0, uint64(0)
		switch wire {
		case wireVarint:
			if v, to = varint(msg, end); to == 0 {
				return fmt.Errorf("%w: a number is cut off", ErrUnsupported)
			}
			from = to
		case wireBytes:
			if from, to, err = chunk(msg, end); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: field %d has wire type %d", ErrUnsupported, num, wire)
		}
		if err := fn(num, msg[from:to], v); err != nil {
			return err
		}
		i = to
	}
	return nil
}

// head reads what rawjson.ReadHead reads of the same object's JSON.
func (n names) head(object []byte) (rawjson.Head, error) {
	var h rawjson.Head
	err := each(object, func(num int32, b []byte, _ uint64) error {
		if num != objectMetadata {
			return nil
		}
		return each(b, func(num int32, b []byte, _ uint64) error { return n.meta(&h, num, b) })
	})
	return h, err
}

func (n names) meta(h *rawjson.Head, num int32, b []byte) (err error) {
	switch num {
	case metaName:
		h.Name = string(b)
	case metaGenerateName:
		h.GenerateName = string(b)
	case metaNamespace:
		h.Namespace = n.text(b)
	case metaUID:
		h.UID = string(b)
	case metaResourceVersion:
		h.ResourceVersion = string(b)
	case metaCreated:
		var at []byte
		if at, err = appendTime(nil, b); err == nil && at[0] == '"' {
			h.CreationTimestamp = string(at[1 : len(at)-1])
		}
	case metaDeleted:
		h.Deleting = len(b) > 0
	case metaLabels:
		name, value, err := entry(b)
		if err != nil {
			return err
		}
		if h.Labels == nil {
			h.Labels = make(map[string]string, 4)
		}
		h.Labels[n.text(name)] = n.text(value)
	case metaFinalizers:
		h.Finalizers = append(h.Finalizers, n.text(b))
	case metaOwners:
		err = n.owner(h, b)
	case metaManaged:
		err = managed(h, b)
	}
	return err
}

func (n names) owner(h *rawjson.Head, msg []byte) error {
	var o rawjson.Owner
	err := each(msg, func(num int32, b []byte, v uint64) error {
		switch num {
		case ownerKind:
			o.Kind = n.text(b)
		case ownerName:
			o.Name = string(b)
		case ownerUID:
			o.UID = string(b)
		case ownerAPIVersion:
			o.APIVersion = n.text(b)
		case ownerController:
			o.Controller = v != 0
		case ownerBlocks:
			blocks := v != 0
			o.BlockOwnerDeletion = &blocks
		}
		return nil
	})
	h.Owners = append(h.Owners, o)
	return err
}

func managed(h *rawjson.Head, msg []byte) error {
	apply, status := false, false
	err := each(msg, func(num int32, b []byte, _ uint64) error {
		switch num {
		case managedOperation:
			apply = string(b) == "Apply"
		case managedSubresource:
			status = string(b) == "status"
		}
		return nil
	})
	if apply && !status {
		h.Applied = true
	}
	return err
}
