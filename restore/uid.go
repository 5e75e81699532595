package restore

import (
	"crypto/sha256"
	"encoding/hex"
)

// uid is an object's uid in 16 bytes; the zero value stands for none.
type uid [16]byte

// parseUID packs a uid. One that is not written as a UUID (RFC 9562) is packed as a hash, which compares like it but cannot
// be written back; servers make UUIDs only.
func parseUID(s string) uid {
	var u uid
	if s == "" {
		return u
	}
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		var digits [32]byte
		n := 0
		for i := range len(s) {
			if s[i] != '-' && n < len(digits) {
				digits[n] = s[i]
				n++
			}
		}
		if n == len(digits) {
			if _, err := hex.Decode(u[:], digits[:]); err == nil {
				return u
			}
		}
	}
	sum := sha256.Sum256([]byte(s))
	copy(u[:], sum[:])
	return u
}

// String writes the uid as the server does; "" for none.
func (u uid) String() string {
	if u == (uid{}) {
		return ""
	}
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], u[10:16])
	return string(b[:])
}
