package s3_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/testbed"
)

// TestRetain extends the retention of objects, of which one has a version on top that somebody else put there.
func TestRetain(t *testing.T) {
	b := testbed.NewBucket(t, testbed.Locked())
	loc := location(t, b)
	loc.Prefix = "p"
	store := open(t, loc, s3.Options{})
	first := time.Now().Add(time.Minute).Truncate(time.Second)
	for key, until := range map[string]time.Time{"kept": first, "free": {}} {
		if _, err := store.Put(t.Context(), key, strings.NewReader("original"), plugins.PutOptions{IfNoneMatch: true, RetainUntil: until}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Client().PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &b.Name, Key: aws.String("p/kept"), Body: strings.NewReader("on top")})
	if err != nil {
		t.Fatal(err)
	}
	later := first.Add(30 * time.Second)
	if err := store.Retain(t.Context(), "kept", later); err != nil {
		t.Fatal(err)
	}
	head, err := b.Client().HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: &b.Name, Key: aws.String("p/kept"), VersionId: out.VersionId})
	if err != nil {
		t.Fatal(err)
	}
	if head.ObjectLockRetainUntilDate != nil {
		t.Errorf("the version on top is retained until %s", head.ObjectLockRetainUntilDate)
	}
	for _, until := range []time.Time{later.Add(-time.Millisecond), later, first} {
		for _, key := range []string{"kept", "free"} {
			if err := store.Retain(t.Context(), key, until); err != nil {
				t.Fatalf("retain %s until %s: %v", key, until, err)
			}
			err := store.Delete(t.Context(), key)
			known, ok := errors.AsType[*plugins.RetainedError](err)
			if !errors.Is(err, plugins.ErrRetained) || !ok || !known.Until.Equal(later) {
				t.Errorf("delete %s: %v, want that it is protected until %s", key, err, later)
			}
		}
	}
	if got := read(t, store, "kept"); got != "original" {
		t.Errorf("it reads %q", got)
	}
}

// TestRetainWithoutLock: buckets that cannot retain say so, with versions and without.
func TestRetainWithoutLock(t *testing.T) {
	for name, options := range map[string][]testbed.BucketOption{"plain": nil, "versioned": {testbed.Versioned()}} {
		t.Run(name, func(t *testing.T) {
			store := open(t, location(t, testbed.NewBucket(t, options...)), s3.Options{})
			if _, err := store.Put(t.Context(), "key", strings.NewReader("x"), plugins.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			err := store.Retain(t.Context(), "key", time.Now().Add(time.Minute))
			known, ok := errors.AsType[*plugins.StoreError](err)
			if !ok || !errors.Is(err, plugins.ErrUnsupported) || known.Remedy == "" {
				t.Errorf("%v", err)
			}
		})
	}
}
