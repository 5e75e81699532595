package s3_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/plugins/storetest"
	"kedge.dev/kedge/test/testbed"
)

// location is how a user would write the bucket down.
func location(tb testing.TB, b *testbed.Bucket) v1alpha1.S3Location {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", b.AccessKey, b.SecretKey)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return v1alpha1.S3Location{
		Bucket: b.Name, Region: b.Region, Endpoint: b.Endpoint, PathStyle: true, CredentialsFile: path, CABundle: string(b.CA),
	}
}

func open(tb testing.TB, loc v1alpha1.S3Location, opts s3.Options) *s3.Store {
	tb.Helper()
	store, err := s3.New(tb.Context(), loc, opts)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		bucket []testbed.BucketOption
		prefix string
		cfg    storetest.Config
	}{
		"plain":     {prefix: "clusters/blue"},
		"versioned": {bucket: []testbed.BucketOption{testbed.Versioned()}},
		"locked":    {bucket: []testbed.BucketOption{testbed.Locked()}, prefix: "l", cfg: storetest.Config{Retention: true, ManyKeys: 50, Large: 16 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			locations := map[plugins.ObjectStore]v1alpha1.S3Location{}
			c.cfg.Reopen = func(t *testing.T, store plugins.ObjectStore) plugins.ObjectStore {
				t.Helper()
				return open(t, locations[store], s3.Options{})
			}
			storetest.Run(t, func(t *testing.T) plugins.ObjectStore {
				t.Helper()
				loc := location(t, testbed.NewBucket(t, c.bucket...))
				loc.Prefix = c.prefix
				store := open(t, loc, s3.Options{PartSize: 5 << 20, WholeSize: -1})
				locations[store] = loc
				return store
			}, c.cfg)
		})
	}
}
