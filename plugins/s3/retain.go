package s3

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/plugins"
)

var _ plugins.Retainer = (*Store)(nil)

// Retain protects the version that a key stands for, the oldest, until then. Versions on top of it are nobody's, and are left alone.
func (s *Store) Retain(ctx context.Context, key string, until time.Time) error {
	if err := s.retain(ctx, key, until); err != nil {
		return s.fail(ctx, "retain", key, err)
	}
	return nil
}

func (s *Store) retain(ctx context.Context, key string, until time.Time) error {
	if err := s.check(ctx, key); err != nil {
		return err
	}
	if err := s.requireLock(ctx); err != nil {
		return err
	}
	if !s.versioned {
		return errNoLock // object lock brings versions with it
	}
	v, err := s.oldestVersion(ctx, key)
	if err != nil {
		return err
	}
	head, err := s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: s.fullKey(key), VersionId: &v.id})
	if err != nil {
		return err
	}
	// Services keep whole seconds; a part of one less would be an extension for ever.
	until = until.Add(time.Second - 1).Truncate(time.Second).UTC()
	if have := head.ObjectLockRetainUntilDate; have != nil && !have.Before(until) {
		return nil
	}
	mode := types.ObjectLockRetentionMode(s.opts.Retention)
	if head.ObjectLockMode != "" {
		mode = types.ObjectLockRetentionMode(head.ObjectLockMode) // another one would need rights to bypass it
	}
	_, err = s.client.PutObjectRetention(ctx, &awss3.PutObjectRetentionInput{
		Bucket: &s.bucket, Key: s.fullKey(key), VersionId: &v.id, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
		Retention: &types.ObjectLockRetention{Mode: mode, RetainUntilDate: aws.Time(until)},
	})
	return err
}
