package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins/s3"
)

// request is what the double was asked.
type request struct {
	Op     string // as S3 calls it: "PutObject"
	Path   string
	Query  string
	Header http.Header
	Body   []byte
}

// double answers as a test says, to find out what the store makes of answers that a good server does not give, and what it sends.
// Unless told otherwise, the bucket has no versions, and every write succeeds.
type double struct {
	*httptest.Server

	mu       sync.Mutex
	requests []request
	answers  map[string]func(n int, w http.ResponseWriter, r *http.Request) // by operation; n counts its calls from 1
	counts   map[string]int
}

func startDouble(t *testing.T) *double {
	t.Helper()
	d := &double{answers: map[string]func(int, http.ResponseWriter, *http.Request){}, counts: map[string]int{}}
	d.Server = httptest.NewServer(d)
	t.Cleanup(d.Close)
	return d
}

// on sets the answer to an operation.
func (d *double) on(op string, answer func(n int, w http.ResponseWriter, r *http.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[op] = answer
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	op := operation(r)
	d.mu.Lock()
	d.requests = append(d.requests, request{op, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
	d.counts[op]++
	n, answer := d.counts[op], d.answers[op]
	d.mu.Unlock()
	if answer != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer(n, w, r)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	switch op {
	case "GetBucketVersioning":
		fmt.Fprint(w, `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>`)
	case "PutObject", "UploadPart":
		w.Header().Set("ETag", `"etag"`)
	case "CreateMultipartUpload":
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>`)
	case "CompleteMultipartUpload":
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"etag-2"</ETag></CompleteMultipartUploadResult>`)
	case "GetObjectLockConfiguration":
		fmt.Fprint(w, `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>`)
	case "AbortMultipartUpload", "DeleteObject":
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
}

// operation is S3's name for a request.
func operation(r *http.Request) string {
	q := r.URL.Query()
	onBucket := strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0
	switch {
	case onBucket && q.Has("versioning"):
		return "GetBucketVersioning"
	case onBucket && q.Has("versions"):
		return "ListObjectVersions"
	case onBucket && q.Has("object-lock"):
		return "GetObjectLockConfiguration"
	case onBucket:
		return "ListObjectsV2"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	}
	return map[string]string{
		http.MethodPut: "PutObject", http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodDelete: "DeleteObject",
	}[r.Method]
}

// sent are the requests of one operation.
func (d *double) sent(op string) (found []request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.requests {
		if r.Op == op {
			found = append(found, r)
		}
	}
	return found
}

// refuse answers with S3's XML.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "REQ1")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>%s</Message><AWSAccessKeyId>AKID</AWSAccessKeyId><RequestId>REQ1</RequestId></Error>", code, message)
}

// doubleLocation is a location on a double, or on any other address.
func doubleLocation(tb testing.TB, endpoint string) v1alpha1.S3Location {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = AKID\naws_secret_access_key = topsecret\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return v1alpha1.S3Location{Bucket: "bucket", Prefix: "p", Region: "eu-west-1", Endpoint: endpoint, PathStyle: true, CredentialsFile: path}
}

func (d *double) open(tb testing.TB, opts s3.Options) *s3.Store {
	tb.Helper()
	return open(tb, doubleLocation(tb, d.URL), opts)
}
