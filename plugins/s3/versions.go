package s3

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// versioningState is what is known of a bucket's versions.
type versioningState int

const (
	// versioningOff: never switched on, so that a key has one object at the most.
	versioningOff versioningState = iota
	// versioningOn: on, or suspended after it was on.
	versioningOn
	// versioningAssumed: the bucket may not be asked, but its versions can be listed.
	versioningAssumed
)

// nullVersion is the id of what was stored while versioning was off or suspended.
const nullVersion = "null"

// probeVersioning asks the bucket, with little patience: it is the first request, and its failures are for a person to see. Where the question is
// forbidden or unknown, whether versions can be listed decides.
func (s *Store) probeVersioning(ctx context.Context) (versioningState, error) {
	out, err := s.client.GetBucketVersioning(ctx, &awss3.GetBucketVersioningInput{Bucket: &s.bucket}, s.impatient)
	switch {
	case err == nil && out.Status == "":
		return versioningOff, nil
	case err == nil:
		return versioningOn, nil
	case !refused(err):
		return 0, err
	}
	_, listErr := s.client.ListObjectVersions(ctx, &awss3.ListObjectVersionsInput{
		Bucket: &s.bucket, Prefix: aws.String(s.prefix), MaxKeys: aws.Int32(1),
	}, s.impatient)
	switch {
	case listErr == nil:
		return versioningAssumed, nil
	case refused(listErr):
		return versioningOff, nil
	}
	return 0, listErr
}

// refused says whether a service does not offer, or its policy does not allow, what was asked; the credentials themselves are good.
func refused(err error) bool {
	switch code(err) {
	case "AccessDenied", "NotImplemented", "MethodNotAllowed", "AllAccessDisabled", "UnsupportedOperation":
		return true
	}
	return false
}

func (s *Store) impatient(o *awss3.Options) {
	o.Retryer = awsconf.NewRetryer(min(3, max(s.opts.MaxAttempts, 1)*3), retried...)
}

// version is one version of a key, or a delete marker.
type version struct {
	id       string
	marker   bool
	size     int64
	modified time.Time
}

// versionsOf calls fn for every version and delete marker of key, the newest first, with the markers of one page after its versions.
func (s *Store) versionsOf(ctx context.Context, key string, fn func(version) error) error {
	full := s.prefix + key
	return s.versionPages(ctx, full, func(out *versionPage) (bool, error) {
		for _, entry := range out.entries {
			if entry.key != full {
				continue
			}
			if err := fn(entry.version); err != nil {
				return false, err
			}
		}
		// The key is the first with itself as prefix, so another one ends it.
		return len(out.entries) == 0 || out.last <= full, nil
	})
}

// oldestVersion is the object that a key stands for.
func (s *Store) oldestVersion(ctx context.Context, key string) (version, error) {
	var oldest version
	found := false
	err := s.versionsOf(ctx, key, func(v version) error {
		if !v.marker {
			oldest, found = v, true
		}
		return nil
	})
	if err == nil && !found {
		err = plugins.ErrNotFound
	}
	return oldest, err
}

// versionToRead is the id of the oldest version, from memory where it was asked for lately: it cannot change but by being deleted.
func (s *Store) versionToRead(ctx context.Context, key string) (string, error) {
	if id, ok := s.oldest.get(key); ok {
		return id, nil
	}
	v, err := s.oldestVersion(ctx, key)
	if err != nil {
		return "", err
	}
	s.oldest.put(key, v.id)
	return v.id, nil
}

// settle makes a version that was just stored the object of its key. A conditional write may have met a delete marker, beneath which an older
// version is the object: then the new one goes, and the write has lost. Else the versions beneath go, the oldest last, which is the moment of
// the replacement; if retention protects one, the new version goes instead.
func (s *Store) settle(ctx context.Context, key, id string, conditional bool) error {
	if id == "" {
		id = nullVersion
	}
	var beneath []version
	own := false
	err := s.versionsOf(ctx, key, func(v version) error {
		switch {
		case v.id == id && !v.marker:
			own = true
		case own && !v.marker:
			beneath = append(beneath, v)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for older versions: %w", err)
	}
	if conditional && len(beneath) > 0 {
		return errors.Join(plugins.ErrExists, ignoreRetained(s.deleteVersion(ctx, key, id)))
	}
	for _, v := range beneath {
		if err := s.deleteVersion(ctx, key, v.id); err != nil {
			return errors.Join(err, ignoreRetained(s.deleteVersion(ctx, key, id)))
		}
	}
	return nil
}

// ignoreRetained forgives that a version which nobody sees cannot be removed yet.
func ignoreRetained(err error) error {
	if errors.Is(err, plugins.ErrRetained) {
		return nil
	}
	return err
}

// deleteVersion removes one version or delete marker for good.
func (s *Store) deleteVersion(ctx context.Context, key, id string) error {
	_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: s.fullKey(key), VersionId: &id})
	if err == nil || notFound(err) {
		return nil
	}
	if code(err) == "AccessDenied" || code(err) == "ObjectLocked" {
		return s.retained(ctx, key, id, err)
	}
	return err
}

// cacheSize bounds the versions remembered; a restore reads few objects, each in many ranges.
const cacheSize = 1024

// versionCache remembers which version of a key is the oldest.
type versionCache struct {
	mu  sync.Mutex
	ids map[string]string
}

func (c *versionCache) get(key string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.ids[key]
	return id, ok
}

func (c *versionCache) put(key, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids == nil || len(c.ids) >= cacheSize {
		c.ids = make(map[string]string)
	}
	c.ids[key] = id
}

func (c *versionCache) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ids, key)
}
