package files

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// storedName is the name under which an entry stands in a snapshot. Names are JSON there, so those that are not UTF-8
// get another name, made from a hash and what can be read of them; so do those that could be taken for Kedge's own.
// The sidecar keeps the real one.
func storedName(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, reserved) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	head := escapedName + hex.EncodeToString(sum[:16]) + "-"
	readable := strings.ToValidUTF8(name, "_")
	// A restore by kopia's own program must be able to create it.
	for len(head)+len(readable) > maxName {
		_, size := utf8.DecodeLastRuneInString(readable)
		readable = readable[:len(readable)-size]
	}
	return head + readable
}

// checkName refuses names that are none in a directory: a snapshot could hold anything.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("refuse name %q: it is no entry of a folder", name)
	case len(name) > maxName:
		return fmt.Errorf("refuse name of %d bytes: %d is the longest", len(name), maxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("refuse name %q: it leads elsewhere", name)
	}
	return nil
}

// realName is the name of an entry in the file system, from the name under which it is stored and the one that its
// sidecar's record holds, if any.
func realName(stored string, raw []byte) (string, error) {
	name := stored
	if len(raw) > 0 {
		name = string(raw)
		if storedName(name) != stored {
			return "", fmt.Errorf("refuse name %q: it does not belong to the entry %q", name, stored)
		}
	}
	return name, checkName(name)
}

// splitPath gives the names of a path inside a copy. Empty, "." and "/" are the root.
func splitPath(path string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if len(names) > maxDepth {
		return nil, fmt.Errorf("refuse path: it has more than %d folders", maxDepth)
	}
	return names, nil
}

// joinPath appends a name to a path inside a tree; the root's is empty.
func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
