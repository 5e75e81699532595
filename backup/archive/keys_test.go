package archive_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// wrapper is a key service whose "encryption" shows which key was used.
type wrapper struct {
	id     string
	broken error
}

func (w wrapper) Wrap(_ context.Context, plain []byte) ([]byte, error) {
	return append([]byte(w.id+":"), plain...), nil
}

func (w wrapper) Unwrap(_ context.Context, sealed []byte) ([]byte, error) {
	plain, ours := bytes.CutPrefix(sealed, []byte(w.id+":"))
	if w.broken != nil || !ours {
		return nil, errors.Join(errors.New("the service refuses"), w.broken)
	}
	return plain, nil
}

func (w wrapper) KeyID() string { return w.id }

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKeys(t *testing.T) {
	store := newMemory()
	mine, yours, stranger := identity(t), identity(t), identity(t)
	kms, other := wrapper{id: "arn:aws:kms:eu-west-1:1:key/a"}, wrapper{id: "arn:aws:kms:eu-west-1:1:key/b"}
	l, keys, err := archive.Init(t.Context(), store, archive.InitOptions{
		Recipients: []age.Recipient{mine.Recipient()}, Wrappers: []plugins.KeyWrapper{kms}, Now: now, Rand: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	opens := func(what string, opts archive.UnlockOptions, want bool) {
		t.Helper()
		got, err := l.Unlock(t.Context(), opts)
		if want && (err != nil || got.PublicKey() != keys.PublicKey()) || !want && !errors.Is(err, archive.ErrNoKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	by := func(ids ...age.Identity) archive.UnlockOptions { return archive.UnlockOptions{Identities: ids} }
	with := func(w ...plugins.KeyWrapper) archive.UnlockOptions { return archive.UnlockOptions{Wrappers: w} }
	opens("mine", by(mine), true)
	opens("one of several", by(stranger, mine), true)
	opens("the key service", with(kms), true)
	opens("one of two key services", with(other, kms), true)
	opens("the other key service", with(other), false)
	opens("the key service is down, and mine", archive.UnlockOptions{Identities: []age.Identity{mine}, Wrappers: []plugins.KeyWrapper{wrapper{kms.id, errDead}}}, true)
	opens("stranger", by(stranger), false)
	opens("nothing", archive.UnlockOptions{}, false)
	opens("yours, too early", by(yours), false)

	_, err = l.Unlock(t.Context(), with(wrapper{kms.id, plugins.ErrAccess}))
	for _, part := range []string{"AGE-SECRET-KEY", "arn:aws:kms:eu-west-1:1:key/a", "the service refuses"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %q: %v", part, err)
		}
	}
	if err := l.Rewrap(t.Context(), keys, archive.RewrapOptions{Recipients: []age.Recipient{yours.Recipient()}}); err != nil {
		t.Fatal(err)
	}
	opens("yours", by(yours), true)
	opens("mine, by the older file", by(mine), true)
	delete(store.objects, "keys/1.age")
	opens("mine, its file is gone", by(mine), false)
	opens("yours still", by(yours), true)

	// An intruder who can write the bucket wraps a key of his own to us.
	theirs := newMemory()
	foreign, foreignKeys := location(t, theirs)
	if err := foreign.Rewrap(t.Context(), foreignKeys, archive.RewrapOptions{Recipients: []age.Recipient{yours.Recipient()}}); err != nil {
		t.Fatal(err)
	}
	store.objects["keys/3.age"] = theirs.objects["keys/2.age"]
	opens("an intruder's key file is passed over", by(yours), true)
	store.objects["keys/4.age"] = []byte("age-encryption.org/v1\nbroken")
	opens("a damaged key file is passed over", by(yours), true)
	store.objects["kedge.json"] = theirs.objects["kedge.json"]
	evil, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	opts := writeOptions(t, "b", "uid")
	opts.PublicKey = keys.PublicKey()
	if _, err := evil.Write(t.Context(), opts, smallSample(1).fill); !errors.Is(err, archive.ErrKeyMismatch) {
		t.Errorf("the public key was replaced: %v", err)
	}
	delete(store.objects, "keys/3.age")
	if _, err := evil.Unlock(t.Context(), by(yours)); !errors.Is(err, archive.ErrKeyMismatch) {
		t.Errorf("the public key was replaced, unlock: %v", err)
	}
	for _, text := range []string{keys.String(), fmt.Sprintf("%v %+v %#v %s", keys, keys, keys, keys)} {
		if strings.Contains(text, "SECRET") {
			t.Errorf("keys print as %q", text)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	store := newMemory()
	opts := archive.InitOptions{Now: now, Rand: rand.Reader}
	if _, _, err := archive.Init(t.Context(), store, opts); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("for nobody: %v", err)
	}
	opts.Wrappers = []plugins.KeyWrapper{wrapper{"key", plugins.ErrAccess}}
	if _, _, err := archive.Init(t.Context(), store, opts); !errors.Is(err, plugins.ErrAccess) {
		t.Errorf("a key service that does not unwrap: %v", err)
	}
	opts.Wrappers = []plugins.KeyWrapper{wrapper{id: "with space"}}
	if _, _, err := archive.Init(t.Context(), store, opts); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("a key id with a space: %v", err)
	}
	if len(store.keys("")) > 0 {
		t.Errorf("stored: %v", store.keys(""))
	}
	if _, err := archive.Open(t.Context(), store); !errors.Is(err, archive.ErrNotALocation) {
		t.Errorf("open: %v", err)
	}
	location(t, store)
	opts.Wrappers = []plugins.KeyWrapper{wrapper{id: "key"}}
	if _, _, err := archive.Init(t.Context(), store, opts); !errors.Is(err, archive.ErrInitialized) {
		t.Errorf("twice: %v", err)
	}
	before := store.keys("")
	// Somebody else was quicker, between our look and our write.
	raced := newMemory()
	raced.before = func(op, key string) error {
		if op == "put" && key == "kedge.json" {
			raced.mu.Lock()
			raced.objects[key] = store.objects[key]
			raced.objects["keys/9.age"] = store.objects["keys/1.age"]
			raced.mu.Unlock()
		}
		return nil
	}
	if _, _, err := archive.Init(t.Context(), raced, opts); !errors.Is(err, archive.ErrInitialized) || len(raced.keys("")) != len(before) {
		t.Errorf("raced: %v, %v", err, raced.keys(""))
	}
}

func TestSignature(t *testing.T) {
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, strangersKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	store := newMemory()
	l, keys := location(t, store)
	for name, key := range map[string]ed25519.PrivateKey{"ours": private, "theirs": strangersKey, "unsigned": nil} {
		opts := writeOptions(t, name, "uid-"+name)
		if key != nil {
			opts.Signer = key
		}
		write(t, l, opts, smallSample(1))
	}
	ours := []ed25519.PublicKey{stranger[:0:0], pub}[1:]
	for _, c := range []struct {
		name           string
		trusted        []ed25519.PublicKey
		require        bool
		refused, count bool
	}{
		{"ours", ours, true, false, true},
		{"ours", ours, false, false, true},
		{"ours", nil, false, false, false},
		{"ours", nil, true, true, false},
		{"theirs", ours, true, true, false},
		{"theirs", ours, false, false, false},
		{"theirs", []ed25519.PublicKey{pub, stranger}, true, false, true},
		{"unsigned", ours, true, true, false},
		{"unsigned", ours, false, false, false},
	} {
		r, err := l.OpenBackup(t.Context(), find(t, l, c.name), keys, archive.ReadOptions{TrustedKeys: c.trusted, RequireSignature: c.require})
		if c.refused != errors.Is(err, archive.ErrSignature) || !c.refused && (err != nil || r.Signed() != c.count) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// Whoever takes the signature away must change the record, and whoever changes the record breaks the signature.
	e := find(t, l, "ours")
	delete(store.objects, "backups/ours/uid-ours/"+e.Record.Attempt+"/signature.dsse.json")
	if _, err := l.OpenBackup(t.Context(), e, keys, archive.ReadOptions{}); !errors.Is(err, archive.ErrSignature) {
		t.Errorf("the signature is gone: %v", err)
	}
}

func TestSigningKeys(t *testing.T) {
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pubText, err := archive.MarshalPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	privateText, err := archive.MarshalPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pubs, err := archive.ParsePublicKeys(append(bytes.Clone(pubText), pubText...))
	if err != nil || len(pubs) != 2 || !pubs[1].Equal(pub) {
		t.Errorf("public keys: %v", err)
	}
	back, err := archive.ParsePrivateKey(privateText)
	if err != nil || !back.Equal(private) {
		t.Errorf("private key: %v", err)
	}
	for name, text := range map[string][]byte{"empty": nil, "words": []byte("none"), "the other": privateText, "cut": pubText[:60]} {
		if _, err := archive.ParsePublicKeys(text); !errors.Is(err, archive.ErrInvalid) {
			t.Errorf("public %s: %v", name, err)
		}
	}
	for name, text := range map[string][]byte{"empty": nil, "the other": pubText, "broken": bytes.Replace(privateText, []byte("MC4"), []byte("MC5"), 1)} {
		if _, err := archive.ParsePrivateKey(text); !errors.Is(err, archive.ErrInvalid) || strings.Contains(err.Error(), "MC") {
			t.Errorf("private %s: %v", name, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	good := writeOptions(t, "b", "uid")
	for name, change := range map[string]func(*archive.WriteOptions){
		"no name":       func(o *archive.WriteOptions) { o.Name = "" },
		"path":          func(o *archive.WriteOptions) { o.Name = "../b" },
		"slash":         func(o *archive.WriteOptions) { o.Name = "a/b" },
		"upper case":    func(o *archive.WriteOptions) { o.Name = "Nightly" },
		"long":          func(o *archive.WriteOptions) { o.Name = strings.Repeat("a", 254) },
		"no uid":        func(o *archive.WriteOptions) { o.UID = "" },
		"uid up":        func(o *archive.WriteOptions) { o.UID = ".." },
		"no spool":      func(o *archive.WriteOptions) { o.SpoolDir = "" },
		"no clock":      func(o *archive.WriteOptions) { o.Now = nil },
		"no random":     func(o *archive.WriteOptions) { o.Rand = nil },
		"little random": func(o *archive.WriteOptions) { o.Rand = strings.NewReader("abc") },
	} {
		opts := good
		change(&opts)
		_, err := l.Write(t.Context(), opts, smallSample(1).fill)
		if err == nil || name != "little random" && !errors.Is(err, archive.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if keys := store.keys("backups/"); len(keys) > 0 {
		t.Errorf("stored: %v", keys)
	}
}
