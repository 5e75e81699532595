package pbjson

import (
	"bytes"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status reads the error that a server answers to who asked for protobuf; ok is false for anything else.
func Status(answer []byte) (st metav1.Status, ok bool) {
	envelope, ok := bytes.CutPrefix(answer, []byte(magic))
	if !ok {
		return st, false
	}
	var raw []byte
	isStatus := false
	err := each(envelope, func(num int32, b []byte, _ uint64) error {
		switch num {
		case unknownTypeMeta:
			isStatus = checkType(b, &Kind{APIVersion: "v1", Kind: "Status"}, "") == nil
		case unknownRaw:
			raw = b
		}
		return nil
	})
	if err != nil || !isStatus || st.Unmarshal(raw) != nil {
		return metav1.Status{}, false
	}
	return st, true
}
