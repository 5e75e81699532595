package plugins

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheckKey finds that a key that passes stays within any folder, and that all its beginnings can be listed.
func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"", "a", "a/b", "/a", "a/", "a//b", "../a", "a/..", "a\\b", "a\x00", "\xff", ".kedge-x", "日本", strings.Repeat("k", 256)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if err := CheckKey(key); err != nil {
			if !errors.Is(err, ErrInvalidKey) {
				t.Errorf("%q gives %v", key, err)
			}
			return
		}
		if path.Clean(key) != key || !filepath.IsLocal(key) || path.Join("/root", key) != "/root/"+key || !utf8.ValidString(key) {
			t.Errorf("%q passes", key)
		}
		for i := range key {
			if err := CheckPrefix(key[:i]); err != nil {
				t.Errorf("%q passes, and its beginning %q gives %v", key, key[:i], err)
			}
		}
	})
}

func TestStoreErrorText(t *testing.T) {
	for want, e := range map[string]*StoreError{
		"get s3://b/k: no such object":                               {Op: "get", Store: "s3://b", Key: "k", Err: ErrNotFound},
		"open s3://b: access denied (set the clock)":                 {Op: "open", Store: "s3://b", Err: ErrAccess, Remedy: "set the clock"},
		"put file:///f/a/b: object is protected by retention (wait)": {Op: "put", Store: "file:///f", Key: "a/b", Err: ErrRetained, Remedy: "wait"},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
	key := &KeyError{Op: "wrap", KeyID: "alias/a", Err: ErrAccess, Remedy: "allow it"}
	if got := key.Error(); got != "wrap with key alias/a: access denied (allow it)" || !errors.Is(key, ErrAccess) {
		t.Errorf("%q", got)
	}
}

func TestNewFinding(t *testing.T) {
	if f := NewFinding("write", "fine", nil); f.Level != LevelOK || f.Detail != "fine" || f.Remedy != "" {
		t.Errorf("%+v", f)
	}
	f := NewFinding("write", "fine", &StoreError{Op: "put", Store: "s", Err: ErrAccess, Remedy: "mend it"})
	if f.Level != LevelFailed || f.Detail != "put s: access denied" || f.Remedy != "mend it" {
		t.Errorf("%+v", f)
	}
}
