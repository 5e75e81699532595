package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
)

// TestRefusals has the very first request refused in every way that is known, and looks at what the user is told.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, code, message string
		status              int
		header              map[string]string
		want                error // nil: none of the sentinels
		says                []string
		tries               int // 0: do not count
	}{
		{"no such bucket", "NoSuchBucket", "The specified bucket does not exist", 404, nil, plugins.ErrConfig, []string{"create the bucket, or correct its name"}, 1},
		{
			"other region, redirect", "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.", 301,
			map[string]string{"X-Amz-Bucket-Region": "ap-south-1"}, plugins.ErrConfig,
			[]string{"the bucket is in ap-south-1, the request went to eu-west-1", "(set the region to ap-south-1)"}, 1,
		},
		{
			"other region, signature", "AuthorizationHeaderMalformed", "The authorization header is malformed; the region 'eu-west-1' is wrong; expecting 'us-west-2'", 400,
			nil, plugins.ErrConfig, []string{"(set the region to us-west-2)"}, 1,
		},
		{"other region, unnamed", "AuthorizationHeaderMalformed", "The authorization header is malformed", 400, nil, plugins.ErrConfig, []string{"set the region that the endpoint"}, 1},
		{"unknown key", "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403, nil, plugins.ErrAccess, []string{"check which access key is used"}, 1},
		{"bad signature", "SignatureDoesNotMatch", "The request signature we calculated does not match", 403, nil, plugins.ErrAccess, []string{"check the secret access key"}, 1},
		{"expired token", "ExpiredToken", "The provided token has expired.", 400, nil, plugins.ErrAccess, []string{"log in again"}, 1},
		{"bad token", "InvalidToken", "The provided token is malformed", 400, nil, plugins.ErrAccess, []string{"check the session token"}, 1},
		{
			"clock", "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", 403,
			map[string]string{"Date": "Mon, 02 Jan 2006 15:04:05 GMT"}, plugins.ErrAccess,
			[]string{"set the clock of this machine: it says 2026-05-01T00:00:00Z, the server says 2006-01-02T15:04:05Z"}, 0,
		},
		{"key disabled", "KMS.DisabledException", "arn:aws:kms:… is disabled.", 400, nil, plugins.ErrConfig, []string{"enable the KMS key"}, 1},
		{"account", "AllAccessDisabled", "All access to this bucket has been disabled", 403, nil, nil, nil, 0},
		{"proxy", "", "", 407, nil, plugins.ErrConfig, []string{"proxy"}, 1},
		{"web page", "", "<html><body>Welcome</body></html>", 200, map[string]string{"Content-Type": "text/html; charset=utf-8", "Server": "nginx"}, plugins.ErrConfig,
			[]string{"the server (nginx) answered with a web page, status 200", "set the endpoint to the S3 API's address"}, 1},
		{"web page 404", "", "<html>404</html>", 404, map[string]string{"Content-Type": "text/html"}, plugins.ErrConfig, []string{"web page, status 404"}, 1},
		{"throttled", "SlowDown", "Please reduce your request rate.", 503, nil, nil, []string{"try again later"}, 3},
		{"server error", "InternalError", "We encountered an internal error.", 500, nil, nil, []string{"try again later"}, 3},
		{"gateway's page", "", "<html>502</html>", 502, map[string]string{"Content-Type": "text/html"}, nil, []string{"502"}, 3},
		{"nothing", "", "", 429, nil, nil, nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDouble(t)
			d.on("GetBucketVersioning", func(_ int, w http.ResponseWriter, _ *http.Request) {
				for name, value := range c.header {
					w.Header().Set(name, value)
				}
				if c.code != "" {
					refuse(w, c.status, c.code, c.message)
					return
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.message)
			})
			if c.name == "account" { // is refused like a lack of rights, and so looks whether versions can be listed
				d.on("ListObjectVersions", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, c.status, c.code, c.message) })
			}
			now := time.Now
			if c.name == "clock" {
				now = func() time.Time { return time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC) }
			}
			_, err := s3.New(t.Context(), doubleLocation(t, d.URL), s3.Options{Now: now})
			if c.name == "account" {
				if err != nil {
					t.Errorf("a store whose versions may not be asked for is opened without them, but: %v", err)
				}
				return
			}
			says := append([]string{"open s3://bucket/p: ", c.code}, c.says...)
			checkError(t, err, c.want, says)
			if got := len(d.sent("GetBucketVersioning")); c.tries > 0 && got != c.tries {
				t.Errorf("%d requests, want %d", got, c.tries)
			}
		})
	}
}

// checkError holds err against what it must wrap and say.
func checkError(t *testing.T, err, want error, says []string) {
	t.Helper()
	if _, ok := errors.AsType[*plugins.StoreError](err); !ok {
		t.Fatalf("%v is no *plugins.StoreError", err)
	}
	if want != nil && !errors.Is(err, want) || want == nil && plugins.Permanent(err) {
		t.Errorf("%v does not wrap %v", err, want)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q\ndoes not say %q", err, part)
		}
	}
	for _, secret := range []string{"topsecret", "operation error", "https response error"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q must not say %q", err, secret)
		}
	}
}

// TestRefusalsOfOperations has a good bucket refuse single operations.
func TestRefusalsOfOperations(t *testing.T) {
	put := func(ctx context.Context, s *s3.Store) error {
		_, err := s.Put(ctx, "key", strings.NewReader("x"), plugins.PutOptions{})
		return err
	}
	retain := func(ctx context.Context, s *s3.Store) error {
		_, err := s.Put(ctx, "key", strings.NewReader("x"), plugins.PutOptions{RetainUntil: time.Now().Add(time.Hour)})
		return err
	}
	get := func(ctx context.Context, s *s3.Store) error {
		_, err := s.Get(ctx, "key", 0, -1)
		return err
	}
	stat := func(ctx context.Context, s *s3.Store) error {
		_, err := s.Stat(ctx, "key")
		return err
	}
	list := func(ctx context.Context, s *s3.Store) error {
		return s.List(ctx, "", func(plugins.ObjectInfo) error { return nil })
	}
	remove := func(ctx context.Context, s *s3.Store) error { return s.Delete(ctx, "key") }
	for _, c := range []struct {
		name, op, code, message string
		status                  int
		do                      func(context.Context, *s3.Store) error
		want                    error
		says                    []string
	}{
		{"put", "PutObject", "AccessDenied", "Access Denied", 403, put, plugins.ErrAccess, []string{"put s3://bucket/p/key: access denied: AccessDenied: Access Denied (request REQ1)", "s3:PutObject"}},
		{"put, KMS", "PutObject", "AccessDenied", "User: arn is not authorized to perform: kms:GenerateDataKey on this resource", 403, put, plugins.ErrAccess, []string{"kms:Decrypt on the bucket's KMS key"}},
		{"put, no header", "PutObject", "NotImplemented", "A header you provided implies functionality that is not implemented", 501, put, plugins.ErrUnsupported, []string{"kedge doctor"}},
		{"put, quota", "PutObject", "QuotaExceeded", "full", 403, put, nil, []string{"raise the quota"}},
		{"put, folder", "PutObject", "XMinioParentIsObject", "Object-prefix is already an object", 400, put, plugins.ErrInvalidKey, nil},
		{"retain", "PutObject", "InvalidRequest", "Bucket is missing Object Lock Configuration", 400, retain, plugins.ErrUnsupported, []string{"enable object lock on the bucket"}},
		{"retain, no lock", "GetObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "none", 404, retain, plugins.ErrUnsupported, []string{"the bucket has no object lock (enable object lock"}},
		{"get", "GetObject", "AccessDenied", "Access Denied", 403, get, plugins.ErrAccess, []string{"s3:GetObject"}},
		{"get, archived", "GetObject", "InvalidObjectState", "The operation is not valid for the object's storage class", 403, get, plugins.ErrAccess, []string{"archive storage class"}},
		{"get, absent", "GetObject", "NoSuchKey", "The specified key does not exist.", 404, get, plugins.ErrNotFound, nil},
		{"stat", "HeadObject", "", "", 403, stat, plugins.ErrAccess, []string{"s3:ListBucket"}},
		{"stat, absent", "HeadObject", "", "", 404, stat, plugins.ErrNotFound, nil},
		{"list", "ListObjectsV2", "AccessDenied", "Access Denied", 403, list, plugins.ErrAccess, []string{"s3:ListBucket"}},
		{"list, bucket gone", "ListObjectsV2", "NoSuchBucket", "gone", 404, list, plugins.ErrConfig, []string{"create the bucket"}},
		{"delete", "DeleteObject", "AccessDenied", "Access Denied", 403, remove, plugins.ErrAccess, []string{"s3:DeleteObject"}},
		{"delete, locked", "DeleteObject", "AccessDenied", "Access Denied because object protected by object lock.", 403, remove, plugins.ErrRetained, []string{"wait until the retention ends"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDouble(t)
			store := d.open(t, s3.Options{})
			d.on(c.op, func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, c.status, c.code, c.message) })
			checkError(t, c.do(t.Context(), store), c.want, c.says)
			if got := len(d.sent(c.op)); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

// TestUnreachable has no S3 at the other end at all.
func TestUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(nil)
	t.Cleanup(plain.Close)
	for name, c := range map[string]struct {
		endpoint string
		change   func(*v1alpha1.S3Location)
		want     error
		says     []string
	}{
		"refused":        {closed.URL, nil, nil, []string{"connection to " + closed.URL + " was refused", "check that the service runs"}},
		"no such host":   {"https://s3.kedge.invalid", nil, plugins.ErrConfig, []string{"s3.kedge.invalid"}},
		"unknown CA":     {secure.URL, nil, plugins.ErrConfig, []string{"signed by an authority that this machine does not trust", "caBundle"}},
		"not TLS":        {"https" + strings.TrimPrefix(plain.URL, "http"), nil, plugins.ErrConfig, []string{"does not speak TLS", "http://"}},
		"TLS not spoken": {"http" + strings.TrimPrefix(secure.URL, "https"), nil, plugins.ErrConfig, []string{"https://"}},
		"virtual host":   {"http://s3.kedge.invalid", func(l *v1alpha1.S3Location) { l.PathStyle = false }, plugins.ErrConfig, []string{"path-style"}},
		"token endpoint": {plain.URL, func(l *v1alpha1.S3Location) { l.RoleARN = "arn:aws:iam::111122223333:role/kedge" }, plugins.ErrAccess, []string{"get credentials"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ENDPOINT_URL_STS", closed.URL)
			loc := doubleLocation(t, c.endpoint)
			if c.change != nil {
				c.change(&loc)
			}
			_, err := s3.New(t.Context(), loc, s3.Options{MaxAttempts: 2})
			if err != nil && strings.Contains(err.Error(), "look up host") {
				t.Skipf("no name server here: %v", err)
			}
			checkError(t, err, c.want, c.says)
		})
	}
}

func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file")
	t.Setenv("AWS_CONFIG_FILE", "/no/such/file")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	d := startDouble(t)
	loc := doubleLocation(t, d.URL)
	loc.CredentialsFile = ""
	_, err := s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrAccess, []string{"no AWS credentials were found", "set AWS_ACCESS_KEY_ID"})
	if len(d.requests) != 0 {
		t.Errorf("%d requests went out without credentials", len(d.requests))
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/kedge")
	_, err = s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrAccess, []string{"the web identity token cannot be read", "eks.amazonaws.com/role-arn"})
}

// TestBadLocations are refused before anything is asked.
func TestBadLocations(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1alpha1.S3Location)
		says   string
	}{
		"no bucket":       {func(l *v1alpha1.S3Location) { l.Bucket = "" }, "the bucket's name is empty (name a bucket)"},
		"URL":             {func(l *v1alpha1.S3Location) { l.Bucket = "s3://b/p" }, "is a URL (give the name alone"},
		"bucket path":     {func(l *v1alpha1.S3Location) { l.Bucket = "a/b" }, "is no name of a bucket"},
		"bucket blank":    {func(l *v1alpha1.S3Location) { l.Bucket = "my bucket" }, "is no name of a bucket"},
		"prefix slash":    {func(l *v1alpha1.S3Location) { l.Prefix = "a/" }, "cannot begin keys"},
		"prefix dots":     {func(l *v1alpha1.S3Location) { l.Prefix = "../a" }, "cannot begin keys"},
		"prefix long":     {func(l *v1alpha1.S3Location) { l.Prefix = strings.Repeat("p", 124) }, "longer than 123"},
		"endpoint":        {func(l *v1alpha1.S3Location) { l.Endpoint = "localhost:9000" }, "is no http or https URL (write it as https://host:port)"},
		"endpoint secret": {func(l *v1alpha1.S3Location) { l.Endpoint = "https://AKID:topsecret@s3" }, "has credentials in it"},
		"endpoint broken": {func(l *v1alpha1.S3Location) { l.Endpoint = "https://a:topsecret\x7f@s3" }, "the endpoint is no URL"},
		"endpoint query":  {func(l *v1alpha1.S3Location) { l.Endpoint = "https://s3?x=1" }, "has a query"},
		"CA":              {func(l *v1alpha1.S3Location) { l.CABundle = "-----BEGIN" }, "holds no certificate in PEM"},
		"credentials":     {func(l *v1alpha1.S3Location) { l.CredentialsFile = "/no/such/file" }, "read the credentials file"},
		"profile":         {func(l *v1alpha1.S3Location) { l.Profile = "nobody" }, `no profile "nobody"`},
		"external ID":     {func(l *v1alpha1.S3Location) { l.ExternalID = "x" }, "no role to assume"},
		"SSE":             {func(l *v1alpha1.S3Location) { l.ServerSideEncryption = "rot13" }, `"rot13" is not known`},
		"SSE key":         {func(l *v1alpha1.S3Location) { l.SSEKMSKeyID = "k" }, "without serverSideEncryption aws:kms"},
		"SSE key, no KMS": {func(l *v1alpha1.S3Location) { l.SSEKMSKeyID = "k"; l.ServerSideEncryption = "AES256" }, "without serverSideEncryption aws:kms"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			loc := doubleLocation(t, d.URL)
			c.change(&loc)
			_, err := s3.New(t.Context(), loc, s3.Options{})
			checkError(t, err, plugins.ErrConfig, []string{"open s3://", c.says})
			if len(d.requests) != 0 {
				t.Errorf("%d requests went out", len(d.requests))
			}
		})
	}
	for name, opts := range map[string]s3.Options{
		"part size": {PartSize: 1}, "concurrency": {Concurrency: -1}, "retention": {Retention: "FOREVER"},
	} {
		if _, err := s3.New(t.Context(), doubleLocation(t, "http://127.0.0.1:1"), opts); err == nil || !strings.Contains(err.Error(), name[:4]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
