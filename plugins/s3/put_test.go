package s3_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
)

// TestHeaders looks at what goes with an object, whole and in parts.
func TestHeaders(t *testing.T) {
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	d := startDouble(t)
	loc := doubleLocation(t, d.URL)
	loc.ServerSideEncryption, loc.SSEKMSKeyID = "aws:kms", "alias/bucket"
	store := open(t, loc, s3.Options{PartSize: 5 << 20, WholeSize: -1, Retention: types.ObjectLockModeGovernance})
	opts := plugins.PutOptions{IfNoneMatch: true, RetainUntil: until}
	if _, err := store.Put(t.Context(), "small", strings.NewReader("123456789"), opts); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "large", bytes.NewReader(make([]byte, 12<<20)), opts); err != nil {
		t.Fatal(err)
	}
	protection := map[string]string{
		"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/bucket",
		"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": "2030-01-02T02:04:05Z",
		"Content-Type": "application/octet-stream",
	}
	checkHeaders(t, d, "PutObject", 1, protection, map[string]string{
		"If-None-Match": "*", "X-Amz-Checksum-Crc32c": "4waSgw==", "Content-Length": "9", "Content-Encoding": "", "X-Amz-Trailer": "",
	})
	checkHeaders(t, d, "CreateMultipartUpload", 1, protection, map[string]string{"X-Amz-Checksum-Algorithm": "CRC32C", "If-None-Match": ""})
	checkHeaders(t, d, "UploadPart", 3, map[string]string{"X-Amz-Server-Side-Encryption": "", "X-Amz-Trailer": ""})
	checkHeaders(t, d, "CompleteMultipartUpload", 1, map[string]string{"If-None-Match": "*"})
	for _, r := range d.sent("UploadPart") {
		if r.Header.Get("X-Amz-Checksum-Crc32c") == "" {
			t.Error("a part went without a checksum")
		}
	}
	complete := string(d.sent("CompleteMultipartUpload")[0].Body)
	if strings.Count(complete, "<ChecksumCRC32C>") != 3 || !strings.Contains(complete, "<PartNumber>3</PartNumber>") {
		t.Errorf("completed with %s", complete)
	}
	if got := crc32.Checksum([]byte("123456789"), crc32.MakeTable(crc32.Castagnoli)); got != 0xe3069283 { // the check value of CRC-32C
		t.Errorf("CRC-32C is %x", got)
	}
}

// checkHeaders wants n requests of an operation, each with these headers; an empty value means without.
func checkHeaders(t *testing.T, d *double, op string, n int, want ...map[string]string) {
	t.Helper()
	sent := d.sent(op)
	if len(sent) != n {
		t.Errorf("%d requests of %s, want %d", len(sent), op, n)
	}
	for _, r := range sent {
		for _, headers := range want {
			for name, value := range headers {
				if got := r.Header.Get(name); got != value {
					t.Errorf("%s has %s: %q, want %q", op, name, got, value)
				}
			}
		}
	}
}

// TestPlainHeaders finds nothing sent that was not asked for.
func TestPlainHeaders(t *testing.T) {
	t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
	d := startDouble(t)
	store := d.open(t, s3.Options{})
	if _, err := store.Put(t.Context(), "small", strings.NewReader("x"), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	checkHeaders(t, d, "PutObject", 1, map[string]string{
		"X-Amz-Server-Side-Encryption": "", "X-Amz-Object-Lock-Mode": "", "If-None-Match": "", "X-Amz-Checksum-Crc32c": "", "X-Amz-Sdk-Checksum-Algorithm": "",
	})
	if sent := d.sent("PutObject")[0]; sent.Path != "/bucket/p/small" || string(sent.Body) != "x" {
		t.Errorf("PUT of %q to %s", sent.Body, sent.Path)
	}
}

// TestHeld sends what is in memory already in one request, again after a failure, and only what is left of it; what is larger goes in parts.
func TestHeld(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{PartSize: 5 << 20, WholeSize: 12 << 20})
	data := make([]byte, 12<<20+1)
	for i := range data {
		data[i] = byte(i % 251)
	}
	d.on("PutObject", func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	in := bytes.NewReader(data)
	if _, err := in.Seek(1, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	info, err := store.Put(t.Context(), "held", in, plugins.PutOptions{})
	if err != nil || info.Size != 12<<20 {
		t.Fatalf("%+v, %v", info, err)
	}
	sent := d.sent("PutObject")
	if len(sent) != 2 || len(d.sent("CreateMultipartUpload")) != 0 {
		t.Fatalf("%d PUTs and %d uploads in parts", len(sent), len(d.sent("CreateMultipartUpload")))
	}
	for i, r := range sent {
		if !bytes.Equal(r.Body, data[1:]) {
			t.Errorf("attempt %d has %d other bytes", i+1, len(r.Body))
		}
	}
	if _, err := store.Put(t.Context(), "larger", bytes.NewReader(data), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := len(d.sent("UploadPart")); n != 3 {
		t.Errorf("%d parts of what is larger", n)
	}
}

// TestOnePart sends an object of exactly one part's size in one request.
func TestOnePart(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{PartSize: 5 << 20, WholeSize: -1})
	for _, size := range []int{5<<20 - 1, 5 << 20} {
		if _, err := store.Put(t.Context(), "k", bytes.NewReader(make([]byte, size)), plugins.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.sent("CreateMultipartUpload")); n != 0 {
		t.Errorf("%d uploads in parts", n)
	}
}

func TestRetries(t *testing.T) {
	flaky := func(status int, code string) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, _ *http.Request) {
			if n <= 2 {
				refuse(w, status, code, "try again")
				return
			}
			w.Header().Set("ETag", `"etag"`)
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
		}
	}
	for name, answer := range map[string]func(int, http.ResponseWriter, *http.Request){
		"conflict": flaky(409, "ConditionalRequestConflict"), "slow down": flaky(503, "SlowDown"), "internal": flaky(500, "InternalError"),
		"aborted": flaky(409, "OperationAborted"), "too many": flaky(429, "TooManyRequests"), "timeout": flaky(400, "RequestTimeout"),
		"reset": func(n int, w http.ResponseWriter, r *http.Request) {
			if n <= 2 {
				panic(http.ErrAbortHandler)
			}
			flaky(0, "")(n, w, r)
		},
		"error within 200": func(n int, w http.ResponseWriter, r *http.Request) {
			if n <= 2 {
				w.Header().Set("ETag", `"etag"`)
				if operation(r) == "CompleteMultipartUpload" {
					_, _ = io.WriteString(w, `<Error><Code>InternalError</Code><Message>late</Message></Error>`)
				}
				return
			}
			flaky(0, "")(n, w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			store := d.open(t, s3.Options{PartSize: 5 << 20, WholeSize: -1})
			for _, op := range []string{"PutObject", "UploadPart", "CompleteMultipartUpload"} {
				d.on(op, answer)
			}
			for _, size := range []int{1, 6 << 20} {
				if _, err := store.Put(t.Context(), "k", bytes.NewReader(make([]byte, size)), plugins.PutOptions{IfNoneMatch: size == 1}); err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		})
	}
}

// TestLostRace has the server report the winner of a race as a conflict for ever.
func TestLostRace(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{MaxAttempts: 2, PartSize: 5 << 20, WholeSize: -1})
	conflict := func(_ int, w http.ResponseWriter, _ *http.Request) {
		refuse(w, 409, "ConditionalRequestConflict", "conflict")
	}
	d.on("PutObject", conflict)
	d.on("CompleteMultipartUpload", conflict)
	_, err := store.Put(t.Context(), "k", strings.NewReader("x"), plugins.PutOptions{IfNoneMatch: true})
	if errors.Is(err, plugins.ErrExists) || err == nil {
		t.Errorf("a conflict over nothing gives %v", err)
	}
	heads := 0
	d.on("HeadObject", func(_ int, w http.ResponseWriter, _ *http.Request) {
		if heads++; heads == 2 { // the look before the upload in parts
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", "1")
	})
	for _, size := range []int{1, 6 << 20} {
		_, err := store.Put(t.Context(), "k", bytes.NewReader(make([]byte, size)), plugins.PutOptions{IfNoneMatch: true})
		if !errors.Is(err, plugins.ErrExists) {
			t.Errorf("%d bytes: a lost race gives %v", size, err)
		}
	}
	if n := len(d.sent("AbortMultipartUpload")); n != 1 {
		t.Errorf("the upload was aborted %d times", n)
	}
	// What exists is not sent at all, if it is large.
	before := len(d.sent("UploadPart"))
	_, err = store.Put(t.Context(), "k", bytes.NewReader(make([]byte, 20<<20)), plugins.PutOptions{IfNoneMatch: true})
	if !errors.Is(err, plugins.ErrExists) || len(d.sent("UploadPart")) != before {
		t.Errorf("%v after %d parts", err, len(d.sent("UploadPart"))-before)
	}
}

// TestAbort ends uploads in parts in each way that there is; the parts are removed, and whoever reads is not read from any more.
func TestAbort(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		prepare func(d *double, cancel func())
		tail    func(cancel func()) io.Reader
		want    error
	}{
		"source": {tail: func(func()) io.Reader { return errorReader{broken} }, want: broken},
		"cancel": {tail: func(cancel func()) io.Reader { return readFunc(func([]byte) (int, error) { cancel(); return 0, nil }) }, want: context.Canceled},
		"cancel in a part": {
			prepare: func(d *double, cancel func()) {
				d.on("UploadPart", func(_ int, _ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
			},
			want: context.Canceled,
		},
		"part": {
			prepare: func(d *double, _ func()) {
				d.on("UploadPart", func(n int, w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AccessDenied", "no") })
			},
			tail: func(func()) io.Reader { return endless{} },
			want: plugins.ErrAccess,
		},
		"complete": {
			prepare: func(d *double, _ func()) {
				d.on("CompleteMultipartUpload", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AccessDenied", "no") })
			},
			want: plugins.ErrAccess,
		},
		"exists": {
			prepare: func(d *double, _ func()) {
				d.on("CompleteMultipartUpload", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 412, "PreconditionFailed", "no") })
			},
			want: plugins.ErrExists,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			store := d.open(t, s3.Options{PartSize: 5 << 20, WholeSize: -1})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.prepare != nil {
				c.prepare(d, cancel)
			}
			source := io.Reader(bytes.NewReader(make([]byte, 12<<20)))
			if c.tail != nil {
				source = io.MultiReader(source, c.tail(cancel))
			}
			_, err := store.Put(ctx, "k", source, plugins.PutOptions{IfNoneMatch: true})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if aborts := d.sent("AbortMultipartUpload"); len(aborts) != 1 || !strings.Contains(aborts[0].Query, "uploadId=upload") {
				t.Errorf("aborted with %+v", aborts)
			}
		})
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// endless yields zeros until nobody wants them any more.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestAbortFails names both failures, and the first one is the reason.
func TestAbortFails(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{PartSize: 5 << 20, WholeSize: -1})
	d.on("AbortMultipartUpload", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AccessDenied", "no") })
	broken := errors.New("broken")
	_, err := store.Put(t.Context(), "k", io.MultiReader(bytes.NewReader(make([]byte, 12<<20)), errorReader{broken}), plugins.PutOptions{})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "a lifecycle rule for incomplete uploads will") {
		t.Errorf("%v", err)
	}
}
