package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The plain JSON files of a location end in a field "sha256" over every byte before it, so that a flipped bit is
// found even where no signature is used. It is a checksum against accidents, not against people.
const (
	sealOpen  = `,"sha256":"`
	sealClose = "\"}\n"
	sealSize  = len(sealOpen) + 2*sha256.Size + len(sealClose)
)

// sealJSON encodes v, which must be a struct with at least one field that is never omitted, and adds the checksum.
func sealJSON(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	body = body[:len(body)-1]
	sum := sha256.Sum256(body)
	body = append(body, sealOpen...)
	body = hex.AppendEncode(body, sum[:])
	return append(body, sealClose...), nil
}

// openJSON checks the checksum and decodes what it covers into v. With strict, fields that v does not have are an error.
func openJSON(b []byte, v any, strict bool) error {
	body, err := unsealJSON(b)
	if err != nil {
		return err
	}
	return decodeJSON(body, v, strict)
}

// unsealJSON checks the checksum and returns the object without it.
func unsealJSON(b []byte) ([]byte, error) {
	cut := len(b) - sealSize
	if cut < 1 || b[0] != '{' || string(b[cut:cut+len(sealOpen)]) != sealOpen || string(b[len(b)-len(sealClose):]) != sealClose {
		return nil, errors.New("it does not end in a checksum")
	}
	sum := sha256.Sum256(b[:cut])
	if hex.EncodeToString(sum[:]) != string(b[cut+len(sealOpen):len(b)-len(sealClose)]) {
		return nil, errors.New("its checksum does not match")
	}
	return append(bytes.Clone(b[:cut]), '}'), nil
}

// decodeJSON decodes exactly one JSON value.
func decodeJSON(b []byte, v any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("data after the JSON value")
	}
	return nil
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
