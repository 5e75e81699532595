//go:build unix

package s3_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/testbed"
)

// TestEncryptionAtRest asks a server that really encrypts, and looks at what it says of the objects: whole ones, and ones in parts.
func TestEncryptionAtRest(t *testing.T) {
	m := testbed.NewMinio(t, testbed.MinioOptions{})
	b, err := m.MakeBucket(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	client := m.Client()
	for name, c := range map[string]struct{ sse, key string }{
		"none": {}, "SSE-S3": {sse: "AES256"}, "SSE-KMS": {sse: "aws:kms", key: m.KMSKeyID},
	} {
		t.Run(name, func(t *testing.T) {
			loc := location(t, b)
			loc.Prefix, loc.ServerSideEncryption, loc.SSEKMSKeyID = strings.ToLower(name), c.sse, c.key
			store := open(t, loc, s3.Options{PartSize: 5 << 20})
			for key, data := range map[string]string{"whole": "secret", "parts": strings.Repeat("0123456789abcdef", 12<<16)} {
				if _, err := store.Put(t.Context(), key, strings.NewReader(data), plugins.PutOptions{IfNoneMatch: true}); err != nil {
					t.Fatal(err)
				}
				head, err := client.HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: &b.Name, Key: aws.String(loc.Prefix + "/" + key)})
				if err != nil {
					t.Fatal(err)
				}
				if string(head.ServerSideEncryption) != c.sse || !strings.HasSuffix(aws.ToString(head.SSEKMSKeyId), c.key) {
					t.Errorf("%s is encrypted by %q with key %q, want %q and %q", key, head.ServerSideEncryption, aws.ToString(head.SSEKMSKeyId), c.sse, c.key)
				}
				if multipart := strings.Contains(aws.ToString(head.ETag), "-"); multipart != (key == "parts") {
					t.Errorf("%s has the ETag %s", key, aws.ToString(head.ETag))
				}
				if got := read(t, store, key); got != data {
					t.Errorf("%s comes back as %d bytes, %d were put", key, len(got), len(data))
				}
			}
		})
	}
	loc := location(t, b)
	loc.ServerSideEncryption, loc.SSEKMSKeyID = "aws:kms", "no-such-key"
	store := open(t, loc, s3.Options{})
	if _, err := store.Put(t.Context(), "k", strings.NewReader("x"), plugins.PutOptions{}); err == nil {
		t.Error("a put with a key that does not exist succeeded")
	}
}

// issuer is an OpenID Connect issuer, as an EKS cluster is one.
type issuer struct {
	key *ecdsa.PrivateKey
	url string
}

const keyID = "key-1"

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	half := (len(point) - 1) / 2
	i := &issuer{key: key}
	mux := http.NewServeMux()
	answer := func(path string, body func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(body()) })
	}
	answer("/.well-known/openid-configuration", func() any {
		return map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/never",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"},
		}
	})
	answer("/keys", func() any {
		return map[string]any{"keys": []any{map[string]any{
			"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": keyID,
			"x": base64.RawURLEncoding.EncodeToString(point[1 : 1+half]), "y": base64.RawURLEncoding.EncodeToString(point[1+half:]),
		}}}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// token makes a service account's token, as the kubelet writes it into a pod.
func (i *issuer) token(t *testing.T, audience string, expires time.Time) string {
	t.Helper()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"alg": "ES256", "typ": "JWT", "kid": keyID}) + "." + part(map[string]any{
		"iss": i.url, "sub": "system:serviceaccount:kedge:kedge", "aud": []string{audience},
		"iat": time.Now().Add(-time.Minute).Unix(), "exp": expires.Unix(), "policy": "readwrite",
	})
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestWebIdentity goes the way of IRSA through a real STS: a token in a file, a role, credentials that end, and new ones for a new token.
func TestWebIdentity(t *testing.T) {
	const (
		audience = "sts.amazonaws.com"
		role     = "arn:aws:iam::111122223333:role/kedge-backup"
	)
	i := startIssuer(t)
	m := testbed.NewMinio(t, testbed.MinioOptions{Issuer: i.url + "/.well-known/openid-configuration", Audience: audience})
	b, err := m.MakeBucket(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ENDPOINT_URL_STS": m.Endpoint, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
		"AWS_SHARED_CREDENTIALS_FILE": "/no/such/file", "AWS_CONFIG_FILE": "/no/such/file",
	} {
		t.Setenv(name, value)
	}
	loc := location(t, b)
	loc.CredentialsFile = ""

	for name, token := range map[string]string{
		"expired":          i.token(t, audience, time.Now().Add(-time.Second)),
		"another audience": i.token(t, "somebody.else", time.Now().Add(time.Hour)),
		"another issuer":   startIssuer(t).token(t, audience, time.Now().Add(time.Hour)),
	} {
		write(token)
		if _, err := s3.New(t.Context(), loc, s3.Options{MaxAttempts: 1}); err == nil || !strings.Contains(err.Error(), "AssumeRoleWithWebIdentity") {
			t.Errorf("a token that is %s: %v", name, err)
		} else {
			t.Logf("a token that is %s: %v", name, err)
		}
	}

	const validity = 20 * time.Second
	expires := time.Now().Add(validity).Truncate(time.Second)
	write(i.token(t, audience, expires))
	store := open(t, loc, s3.Options{})
	put := func(key string) {
		t.Helper()
		if _, err := store.Put(t.Context(), key, bytes.NewReader([]byte(key)), plugins.PutOptions{IfNoneMatch: true}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, store, key); got != key {
			t.Errorf("%s comes back as %q", key, got)
		}
	}
	put("first")
	first := assumed(t, m, role, file)
	// The kubelet replaces a token long before it ends.
	write(i.token(t, audience, time.Now().Add(time.Hour)))
	old := func() error {
		opts := m.Client().Options()
		opts.Credentials = aws.CredentialsProviderFunc(first)
		_, err := awss3.New(opts).ListObjectsV2(t.Context(), &awss3.ListObjectsV2Input{Bucket: &b.Name})
		return err
	}
	for deadline := expires.Add(time.Minute); old() == nil; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server still takes credentials that have ended")
		}
	}
	put("second")
}

// assumed gives the credentials for the token that is in the file now, and the same for ever.
func assumed(t *testing.T, m *testbed.Minio, role, file string) func(context.Context) (aws.Credentials, error) {
	t.Helper()
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{Region: m.Region, CABundle: string(m.CA)})
	if err != nil {
		t.Fatal(err)
	}
	given, err := stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(cfg), role, stscreds.IdentityTokenFile(file)).Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	given.CanExpire = false
	return func(context.Context) (aws.Credentials, error) { return given, nil }
}
