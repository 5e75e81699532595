package s3_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/plugins/storetest"
	"kedge.dev/kedge/test/testbed"
)

// TestServerSideEncryption writes to a server that encrypts, and asks it with which key each object is. Its build takes long, so it is
// part of the soak alone; TestHeaders has what a server is asked for.
func TestServerSideEncryption(t *testing.T) {
	if os.Getenv("KEDGE_SOAK") == "" {
		t.Skip("builds minio (11 CPU minutes): set KEDGE_SOAK=1")
	}
	m := testbed.NewMinio(t)
	for name, c := range map[string]struct{ sse, key, wantKey string }{
		"SSE-S3":                    {sse: "AES256"},
		"SSE-KMS, the bucket's key": {sse: "aws:kms", wantKey: m.KMSKeyID},
		"SSE-KMS, a key of its own": {sse: "aws:kms", key: m.KMSKeyID, wantKey: m.KMSKeyID},
	} {
		t.Run(name, func(t *testing.T) {
			newStore := func(t *testing.T) (*s3.Store, *testbed.Bucket) {
				t.Helper()
				b, err := m.MakeBucket(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				loc := location(t, b)
				loc.ServerSideEncryption, loc.SSEKMSKeyID = c.sse, c.key
				return open(t, loc, s3.Options{PartSize: 5 << 20}), b
			}
			store, bucket := newStore(t)
			for key, size := range map[string]int{"small": 10, "multipart": 12 << 20} {
				if _, err := store.Put(t.Context(), key, bytes.NewReader(bytes.Repeat([]byte("k"), size)), plugins.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				head, err := m.Client().HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: &bucket.Name, Key: &key})
				if err != nil {
					t.Fatal(err)
				}
				if string(head.ServerSideEncryption) != c.sse || c.wantKey != "" && (head.SSEKMSKeyId == nil || !strings.HasSuffix(*head.SSEKMSKeyId, c.wantKey)) {
					t.Errorf("%s is encrypted with %q, key %v", key, head.ServerSideEncryption, head.SSEKMSKeyId)
				}
			}
			storetest.Run(t, func(t *testing.T) plugins.ObjectStore {
				t.Helper()
				s, _ := newStore(t)
				return s
			}, storetest.Config{ManyKeys: 50, Large: 16 << 20})
		})
	}
}
