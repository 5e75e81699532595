package archive

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"

	"kedge.dev/kedge/plugins"
)

// payloadType is what the signature's envelope (DSSE, protocol v1) says of the record that it covers.
const payloadType = "application/vnd.kedge.backup.v1+json"

// envelope is FileSignature.
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     []byte              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// preAuth is what is signed: DSSE's pre-authentication encoding.
func preAuth(payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// signerKey is the public half of a signer, as records keep it.
func signerKey(signer crypto.Signer) (string, error) {
	pub, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("%w: the signing key is a %T, only Ed25519 is used", ErrInvalid, signer.Public())
	}
	return encodePublic(pub), nil
}

func encodePublic(pub ed25519.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil { // an Ed25519 key always has that form
		return ""
	}
	return base64.StdEncoding.EncodeToString(der)
}

func keyID(encoded string) string {
	sum := sha256.Sum256([]byte(encoded))
	return hex.EncodeToString(sum[:8])
}

func signRecord(signer crypto.Signer, rand io.Reader, record []byte, signedBy string) ([]byte, error) {
	sig, err := signer.Sign(rand, preAuth(record), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("sign the record: %w", err)
	}
	return json.Marshal(envelope{
		PayloadType: payloadType, Payload: record,
		Signatures: []envelopeSignature{{KeyID: keyID(signedBy), Sig: sig}},
	})
}

// parseEnvelope reads a signature file. Only the one form that Kedge writes is taken, so that every flipped byte shows.
func parseEnvelope(doc []byte) (*envelope, error) {
	if len(doc) > maxSigned {
		return nil, fmt.Errorf("it has %d bytes", len(doc))
	}
	var env envelope
	if err := decodeJSON(doc, &env, true); err != nil {
		return nil, err
	}
	if env.PayloadType != payloadType || len(env.Signatures) != 1 {
		return nil, fmt.Errorf("payload %q with %d signatures", env.PayloadType, len(env.Signatures))
	}
	canonical, err := json.Marshal(env)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(canonical, doc) {
		return nil, errors.New("it is not in the form in which it was written")
	}
	return &env, nil
}

// checkSignature verifies the envelope over the record by the key that the record names. Whether that key is trusted
// is for the caller.
func checkSignature(doc []byte, rec *Record) error {
	env, err := parseEnvelope(doc)
	if err != nil {
		return err
	}
	der, err := base64.StdEncoding.Strict().DecodeString(rec.SignedBy)
	if err != nil {
		return fmt.Errorf("the record's signedBy is no base64: %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return fmt.Errorf("the record's signedBy is no key: %w", err)
	}
	pub, ok := key.(ed25519.PublicKey)
	switch {
	case !ok:
		return fmt.Errorf("the record's signedBy is a %T", key)
	case !bytes.Equal(env.Payload, rec.raw):
		return errors.New("it was made for another record")
	case env.Signatures[0].KeyID != keyID(rec.SignedBy):
		return errors.New("it names another key than the record")
	case !ed25519.Verify(pub, preAuth(env.Payload), env.Signatures[0].Sig):
		return errors.New("it does not match")
	}
	return nil
}

// authenticate checks a backup's signature as far as the caller asks: a signature that is there must be right; with
// trusted keys it must be by one of them to count; with require it must count. It returns whether it counts.
func (l *Location) authenticate(ctx context.Context, rec *Record, trusted []ed25519.PublicKey, require bool) (bool, error) {
	refuse := func(why string) error {
		return fmt.Errorf("backup %s: %w: %s", rec.ID(), ErrSignature, why)
	}
	if rec.SignedBy == "" {
		if require {
			return false, refuse("it is not signed (sign backups with a signing key, or do not require a signature)")
		}
		return false, nil
	}
	doc, err := readAll(ctx, l.store, attemptFolder(rec.Name, rec.UID, rec.Attempt)+FileSignature, maxSigned)
	if err == nil {
		err = checkSignature(doc, rec)
	} else if !errors.Is(err, plugins.ErrNotFound) && !errors.Is(err, ErrTooLarge) {
		return false, fmt.Errorf("backup %s: %w", rec.ID(), err)
	}
	if err != nil {
		damage := &DamageError{Backup: rec.ID(), File: FileSignature, Offset: -1, Detail: "the signature is refused", Err: err}
		return false, fmt.Errorf("%w: %w", ErrSignature, damage)
	}
	known := slices.ContainsFunc(trusted, func(k ed25519.PublicKey) bool { return encodePublic(k) == rec.SignedBy })
	if require && !known {
		return false, refuse("it is signed by a key that is not trusted here (add the key " + keyID(rec.SignedBy) + " to the trusted keys if it is yours)")
	}
	return known, nil
}

// ParsePublicKeys reads Ed25519 public keys in PEM (SPKI, "PUBLIC KEY"), one or more.
func ParsePublicKeys(text []byte) ([]ed25519.PublicKey, error) {
	var out []ed25519.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("read public keys: %w: PEM block %q, want PUBLIC KEY", ErrInvalid, block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read public keys: %w: %w", ErrInvalid, err)
		}
		pub, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("read public keys: %w: %T, want Ed25519", ErrInvalid, key)
		}
		out = append(out, pub)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read public keys: %w: no PEM block", ErrInvalid)
	}
	return out, nil
}

// ParsePrivateKey reads one Ed25519 private key in PEM (PKCS #8, "PRIVATE KEY").
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("read private key: %w: no PEM block PRIVATE KEY", ErrInvalid)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w: not PKCS #8", ErrInvalid)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read private key: %w: %T, want Ed25519", ErrInvalid, key)
	}
	return private, nil
}

// MarshalPublicKey is the reverse of ParsePublicKeys, for one key.
func MarshalPublicKey(pub ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// MarshalPrivateKey is the reverse of ParsePrivateKey.
func MarshalPrivateKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
