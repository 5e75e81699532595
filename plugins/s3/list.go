package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/plugins"
)

// Stat describes the object of key.
func (s *Store) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	if err := s.check(ctx, key); err != nil {
		return plugins.ObjectInfo{}, s.fail(ctx, "stat", key, err)
	}
	info, err := s.stat(ctx, key)
	if err != nil {
		return plugins.ObjectInfo{}, s.fail(ctx, "stat", key, err)
	}
	return info, nil
}

func (s *Store) stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	if s.versioned {
		v, err := s.oldestVersion(ctx, key)
		if err != nil {
			return plugins.ObjectInfo{}, err
		}
		return plugins.ObjectInfo{Key: key, Size: v.size, LastModified: v.modified}, nil
	}
	out, err := s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: s.fullKey(key)})
	if notFound(err) {
		return plugins.ObjectInfo{}, plugins.ErrNotFound
	}
	if err != nil {
		return plugins.ObjectInfo{}, err
	}
	return plugins.ObjectInfo{Key: key, Size: aws.ToInt64(out.ContentLength), LastModified: aws.ToTime(out.LastModified).UTC()}, nil
}

// List pages through the keys with the prefix. Keys that no Put can have made, such as the folder markers of consoles, are passed over.
func (s *Store) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	if err := plugins.CheckPrefix(prefix); err != nil {
		return s.fail(ctx, "list", prefix, err)
	}
	if err := context.Cause(ctx); err != nil {
		return s.fail(ctx, "list", prefix, err)
	}
	// fn's errors pass through as they are.
	var callback error
	emit := func(info plugins.ObjectInfo) error {
		info.Key = strings.TrimPrefix(info.Key, s.prefix)
		if plugins.CheckKey(info.Key) != nil {
			return nil //nolint:nilerr // not ours to show
		}
		callback = fn(info)
		return callback
	}
	list := s.listObjects
	if s.versioned {
		list = s.listOldest
	}
	err := list(ctx, s.prefix+prefix, emit)
	if err != nil && callback == nil {
		return s.fail(ctx, "list", prefix, err)
	}
	return callback
}

// listObjects pages through a bucket without versions.
func (s *Store) listObjects(ctx context.Context, prefix string, emit func(plugins.ObjectInfo) error) error {
	in := &awss3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
	for {
		out, err := s.client.ListObjectsV2(ctx, in)
		if err != nil {
			return err
		}
		for _, object := range out.Contents {
			key, err := decodeKey(aws.ToString(object.Key), out.EncodingType)
			if err != nil {
				return err
			}
			info := plugins.ObjectInfo{Key: key, Size: aws.ToInt64(object.Size), LastModified: aws.ToTime(object.LastModified).UTC()}
			if err := emit(info); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		if aws.ToString(out.NextContinuationToken) == "" {
			return errors.New("the server says that there is more, but not where")
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

// listOldest pages through the versions and emits the oldest one of each key. A key's versions may be spread over pages.
func (s *Store) listOldest(ctx context.Context, prefix string, emit func(plugins.ObjectInfo) error) error {
	var pending plugins.ObjectInfo // the oldest version seen so far of the key at hand
	flush := func() error {
		if pending.Key == "" {
			return nil
		}
		info := pending
		pending = plugins.ObjectInfo{}
		return emit(info)
	}
	err := s.versionPages(ctx, prefix, func(page *versionPage) (bool, error) {
		for _, entry := range page.entries {
			if entry.key != pending.Key {
				if err := flush(); err != nil {
					return false, err
				}
			}
			if !entry.marker {
				pending = plugins.ObjectInfo{Key: entry.key, Size: entry.size, LastModified: entry.modified}
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// versionPage is one answer of ListObjectVersions, in the order of the keys, and within a key the versions, the newest first, before the markers.
type versionPage struct {
	entries []versionEntry
	last    string // the greatest key
}

type versionEntry struct {
	key string
	version
}

// versionPages calls fn for each page of versions, until fn says that it has seen enough.
func (s *Store) versionPages(ctx context.Context, prefix string, fn func(*versionPage) (more bool, err error)) error {
	in := &awss3.ListObjectVersionsInput{Bucket: &s.bucket, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
	for {
		out, err := s.client.ListObjectVersions(ctx, in)
		if err != nil {
			return err
		}
		page, err := newVersionPage(out)
		if err != nil {
			return err
		}
		if more, err := fn(page); err != nil || !more || !aws.ToBool(out.IsTruncated) {
			return err
		}
		next, err := decodeKey(aws.ToString(out.NextKeyMarker), out.EncodingType)
		if err != nil {
			return err
		}
		if next == "" {
			return errors.New("the server says that there is more, but not where")
		}
		in.KeyMarker, in.VersionIdMarker = &next, out.NextVersionIdMarker
	}
}

func newVersionPage(out *awss3.ListObjectVersionsOutput) (*versionPage, error) {
	page := &versionPage{entries: make([]versionEntry, 0, len(out.Versions)+len(out.DeleteMarkers))}
	for _, v := range out.Versions {
		key, err := decodeKey(aws.ToString(v.Key), out.EncodingType)
		if err != nil {
			return nil, err
		}
		page.entries = append(page.entries, versionEntry{key, version{
			id: aws.ToString(v.VersionId), size: aws.ToInt64(v.Size), modified: aws.ToTime(v.LastModified).UTC(),
		}})
	}
	for _, m := range out.DeleteMarkers {
		key, err := decodeKey(aws.ToString(m.Key), out.EncodingType)
		if err != nil {
			return nil, err
		}
		page.entries = append(page.entries, versionEntry{key, version{
			id: aws.ToString(m.VersionId), marker: true, modified: aws.ToTime(m.LastModified).UTC(),
		}})
	}
	// Both lists are in order; the sort is stable and merges them by key.
	slices.SortStableFunc(page.entries, func(a, b versionEntry) int { return cmp.Compare(a.key, b.key) })
	if n := len(page.entries); n > 0 {
		page.last = page.entries[n-1].key
	}
	return page, nil
}

// decodeKey undoes the encoding that was asked for, where the server did it.
func decodeKey(key string, encoding types.EncodingType) (string, error) {
	if encoding != types.EncodingTypeUrl {
		return key, nil
	}
	decoded, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("decode the key %q of a listing: %w", key, err)
	}
	return decoded, nil
}

// Delete removes every version of key and every delete marker, the oldest version, which is the object, last.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.delete(ctx, key); err != nil {
		return s.fail(ctx, "delete", key, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key); err != nil {
		return err
	}
	s.oldest.drop(key)
	if !s.versioned {
		_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: s.fullKey(key)})
		if notFound(err) {
			return nil
		}
		if code(err) == "AccessDenied" || code(err) == "ObjectLocked" {
			return s.retained(ctx, key, "", err)
		}
		return err
	}
	var markers, versions []version
	err := s.versionsOf(ctx, key, func(v version) error {
		if v.marker {
			markers = append(markers, v)
		} else {
			versions = append(versions, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range append(markers, versions...) {
		if err := s.deleteVersion(ctx, key, v.id); err != nil {
			return err
		}
	}
	return nil
}
