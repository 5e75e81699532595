package kms_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/kms"
)

const (
	keyARN  = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"
	otherID = "arn:aws:kms:eu-west-1:111122223333:key/99999999-2222-3333-4444-555555555555"
	alias   = "alias/backups"
)

// double speaks the JSON 1.1 protocol of KMS for Encrypt and Decrypt, with real authenticated encryption under the encryption context.
type double struct {
	t        *testing.T
	requests atomic.Int64
	fail     func(n int64, w http.ResponseWriter) bool // answers itself where it returns true
}

func startKMS(t *testing.T, fail func(n int64, w http.ResponseWriter) bool) (endpoint string, d *double) {
	t.Helper()
	d = &double{t: t, fail: fail}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	return server.URL, d
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := d.requests.Add(1)
	if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/kms/aws4_request") {
		d.t.Errorf("the request is not signed for KMS in eu-west-1: %q", r.Header.Get("Authorization"))
	}
	if d.fail != nil && d.fail(n, w) {
		return
	}
	var in struct {
		KeyID             string            `json:"KeyId"`
		Plaintext         []byte            `json:"Plaintext"`
		CiphertextBlob    []byte            `json:"CiphertextBlob"`
		EncryptionContext map[string]string `json:"EncryptionContext"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&in); err != nil {
		d.t.Error(err)
	}
	if in.EncryptionContext["kedge.dev/purpose"] != "location-key" {
		d.t.Errorf("encryption context %v", in.EncryptionContext)
	}
	seal, err := aead(in.KeyID)
	if err != nil {
		refuse(w, 400, "NotFoundException", "Invalid keyId "+in.KeyID)
		return
	}
	aad := []byte(fmt.Sprint(in.EncryptionContext))
	out := map[string]any{"KeyId": keyARN}
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "TrentService.Encrypt":
		out["CiphertextBlob"] = seal.Seal(make([]byte, seal.NonceSize()), make([]byte, seal.NonceSize()), in.Plaintext, aad)
	case "TrentService.Decrypt":
		plain, err := seal.Open(nil, in.CiphertextBlob[:seal.NonceSize()], in.CiphertextBlob[seal.NonceSize():], aad)
		if err != nil {
			refuse(w, 400, "InvalidCiphertextException", "")
			return
		}
		out["Plaintext"] = plain
	default:
		d.t.Errorf("unexpected call of %s", target)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

// aead is the material of a key, by ARN or alias.
func aead(id string) (cipher.AEAD, error) {
	material := map[string]byte{keyARN: 1, alias: 1, otherID: 2}[id]
	if material == 0 {
		return nil, errors.New("no such key")
	}
	block, err := aes.NewCipher(bytes.Repeat([]byte{material}, 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

func options(t *testing.T, endpoint, keyID string) kms.Options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = AKID\naws_secret_access_key = topsecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return kms.Options{KeyID: keyID, Region: "eu-west-1", Endpoint: endpoint, CredentialsFile: path, MaxAttempts: 3}
}

func open(t *testing.T, opts kms.Options) *kms.Wrapper {
	t.Helper()
	w, err := kms.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRoundTrip(t *testing.T) {
	endpoint, _ := startKMS(t, nil)
	for _, id := range []string{keyARN, alias} {
		w := open(t, options(t, endpoint, id))
		if w.KeyID() != id {
			t.Errorf("KeyID is %s", w.KeyID())
		}
		secret := []byte("AGE-SECRET-KEY-1…")
		wrapped, err := w.Wrap(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(wrapped, secret) {
			t.Error("the wrapped secret shows")
		}
		got, err := w.Unwrap(t.Context(), wrapped)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("Unwrap gives %q, %v", got, err)
		}
		wrapped[len(wrapped)-1] ^= 1
		if _, err := w.Unwrap(t.Context(), wrapped); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("a changed secret gives %v", err)
		}
		if _, err := w.Wrap(t.Context(), make([]byte, 4097)); err == nil || !strings.Contains(err.Error(), "4097 bytes are more than the 4096") {
			t.Errorf("too much gives %v", err)
		}
	}
}

func TestOtherKey(t *testing.T) {
	endpoint, _ := startKMS(t, nil)
	wrapped, err := open(t, options(t, endpoint, keyARN)).Wrap(t.Context(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, options(t, endpoint, otherID)).Unwrap(t.Context(), wrapped)
	var known *plugins.KeyError
	if !errors.As(err, &known) || known.Op != "unwrap" || known.KeyID != otherID || !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("%v", err)
	}
}

func TestRefusals(t *testing.T) {
	for code, c := range map[string]struct {
		status int
		want   error
		remedy string
		tries  int64
	}{
		"AccessDeniedException":       {400, plugins.ErrAccess, "allow it to the identity in the key's policy", 1},
		"NotFoundException":           {400, plugins.ErrConfig, "correct the key's id and region", 1},
		"DisabledException":           {400, plugins.ErrConfig, "enable the key", 1},
		"KMSInvalidStateException":    {400, plugins.ErrConfig, "cancel the key's deletion", 1},
		"InvalidKeyUsageException":    {400, plugins.ErrConfig, "use a symmetric key", 1},
		"UnrecognizedClientException": {400, plugins.ErrAccess, "check which access key is used", 1},
		"ExpiredTokenException":       {400, plugins.ErrAccess, "log in again", 1},
		"InvalidSignatureException":   {400, plugins.ErrAccess, "check the secret access key", 1},
		"KMSInternalException":        {500, nil, "try again", 3},
		"ThrottlingException":         {400, nil, "try again later", 3},
	} {
		t.Run(code, func(t *testing.T) {
			endpoint, d := startKMS(t, func(_ int64, w http.ResponseWriter) bool {
				refuse(w, c.status, code, "the service's own words")
				return true
			})
			_, err := open(t, options(t, endpoint, keyARN)).Wrap(t.Context(), []byte("hidden"))
			if _, ok := errors.AsType[*plugins.KeyError](err); !ok {
				t.Fatalf("%v is no *plugins.KeyError", err)
			}
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && plugins.Permanent(err) {
				t.Errorf("%v does not wrap %v", err, c.want)
			}
			for _, part := range []string{"wrap with key " + keyARN, code, "the service's own words", c.remedy} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			for _, secret := range []string{"hidden", "topsecret"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q gives a secret away", err)
				}
			}
			if got := d.requests.Load(); got != c.tries {
				t.Errorf("%d requests, want %d", got, c.tries)
			}
		})
	}
}

func TestRetriesAndCancel(t *testing.T) {
	endpoint, _ := startKMS(t, func(n int64, w http.ResponseWriter) bool {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n < 3
	})
	w := open(t, options(t, endpoint, keyARN))
	if _, err := w.Wrap(t.Context(), []byte("x")); err != nil {
		t.Errorf("after two failures: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Wrap(ctx, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*kms.Options)
		want   string
	}{
		"no key":           {func(o *kms.Options) { o.KeyID = "" }, "the key's id is empty"},
		"blank in key":     {func(o *kms.Options) { o.KeyID = "alias/a b" }, `"alias/a b" is no id of a key`},
		"other ARN":        {func(o *kms.Options) { o.KeyID = "arn:aws:s3:::bucket" }, "is no ARN of a KMS key"},
		"other region":     {func(o *kms.Options) { o.KeyID = keyARN; o.Region = "us-east-1" }, "the key is in eu-west-1, but the region is set to us-east-1"},
		"endpoint":         {func(o *kms.Options) { o.Endpoint = "kms.example.com" }, "is no http or https URL"},
		"endpoint secrets": {func(o *kms.Options) { o.Endpoint = "https://me:pass@kms.example.com" }, "the endpoint has credentials in it"},
		"credentials file": {func(o *kms.Options) { o.CredentialsFile = "/no/such/file" }, "read the credentials file: open /no/such/file"},
		"profile":          {func(o *kms.Options) { o.Profile = "nobody" }, `there is no profile "nobody"`},
		"CA bundle":        {func(o *kms.Options) { o.CABundle = "not PEM" }, "the CA bundle holds no certificate"},
		"external ID":      {func(o *kms.Options) { o.ExternalID = "x" }, "an external ID is set, but no role"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t, "http://127.0.0.1:1", alias)
			c.change(&opts)
			_, err := kms.New(t.Context(), opts)
			if !errors.Is(err, plugins.ErrConfig) || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), ")") {
				t.Errorf("%v, want a misconfiguration that says %q and has a remedy", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "me:pass") {
				t.Errorf("%q gives a secret away", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	endpoint := server.URL
	server.Close()
	opts := options(t, endpoint, alias)
	opts.Now = func() time.Time { return time.Unix(0, 0) }
	_, err := open(t, opts).Wrap(t.Context(), []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "connection to "+endpoint+" was refused") {
		t.Errorf("%v", err)
	}
}
