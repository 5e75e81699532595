package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/plugins"
)

// The differences of clocks that are worth a word: retention is computed from ours and kept by the server's, and requests are refused beyond
// a quarter of an hour where the server's time is not known.
const (
	clockWarning = time.Minute
	clockFailure = 15 * time.Minute
)

// Check looks whether the bucket can be listed, agrees on the time, has versions and object lock, and can be written, read and cleaned.
func (s *Store) Check(ctx context.Context, opts plugins.CheckOptions) []plugins.Finding {
	findings, reachable := s.checkRead(ctx)
	if !reachable {
		return findings
	}
	findings = append(findings, s.checkVersioning(ctx))
	lock, defaultRetention := s.checkLock(ctx, opts.ObjectLock)
	findings = append(findings, lock)
	switch {
	case opts.ReadOnly:
	case defaultRetention:
		findings = append(findings, plugins.Finding{
			Name: "write", Level: plugins.LevelWarning, Detail: "nothing was written to try it, because the bucket retains every object by default",
			Remedy: "remove the bucket's default retention; Kedge sets each object's own",
		})
	default:
		findings = append(findings, s.checkWrite(ctx)...)
	}
	return findings
}

// checkRead lists one key, and takes the time from the answer.
func (s *Store) checkRead(ctx context.Context) (findings []plugins.Finding, reachable bool) {
	out, err := s.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix), MaxKeys: aws.Int32(1)}, s.impatient)
	if err != nil {
		return []plugins.Finding{plugins.NewFinding("read", "", s.fail(ctx, "list", "", err))}, false
	}
	findings = append(findings, plugins.NewFinding("read", "the bucket can be listed", nil))
	server, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok {
		return findings, true
	}
	return append(findings, clockFinding(server, s.opts.Now())), true
}

func clockFinding(server, now time.Time) plugins.Finding {
	off := now.Sub(server).Round(time.Second)
	f := plugins.Finding{Name: "clock", Level: plugins.LevelOK, Detail: fmt.Sprintf("the clocks differ by %s", off.Abs())}
	if off.Abs() < clockWarning {
		return f
	}
	f.Level = plugins.LevelWarning
	if off.Abs() >= clockFailure {
		f.Level = plugins.LevelFailed
	}
	f.Detail += fmt.Sprintf(": this machine says %s, the server %s", now.UTC().Format(time.RFC3339), server.UTC().Format(time.RFC3339))
	f.Remedy = "set the clock of this machine, best by NTP"
	return f
}

func (s *Store) checkVersioning(ctx context.Context) plugins.Finding {
	state, err := s.probeVersioning(ctx)
	if err != nil {
		return plugins.NewFinding("versioning", "", s.fail(ctx, "open", "", err))
	}
	f := plugins.Finding{Name: "versioning", Level: plugins.LevelOK}
	switch {
	case (state != versioningOff) != s.versioned:
		f.Level, f.Detail = plugins.LevelWarning, "the bucket's versioning was changed since it was opened"
		f.Remedy = "start kedge again"
	case state == versioningOn:
		f.Detail = "the bucket has versions; Kedge reads the oldest of each key and deletes all"
	case state == versioningAssumed:
		f.Level, f.Detail = plugins.LevelWarning, "whether the bucket has versions may not be asked; it is treated as if it had"
		f.Remedy = "allow s3:GetBucketVersioning"
	default:
		f.Detail = "the bucket keeps no versions"
	}
	return f
}

// checkLock looks for object lock, which only wanted makes a must. defaultRetention says that whatever is written is retained.
func (s *Store) checkLock(ctx context.Context, wanted bool) (f plugins.Finding, defaultRetention bool) {
	f = plugins.Finding{Name: "object-lock", Level: plugins.LevelOK}
	missing := plugins.LevelOK
	if wanted {
		missing = plugins.LevelFailed
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &awss3.GetObjectLockConfigurationInput{Bucket: &s.bucket}, s.impatient)
	switch {
	case ctx.Err() != nil:
		return plugins.NewFinding("object-lock", "", s.fail(ctx, "open", "", err)), false
	case err != nil && strings.HasPrefix(code(err), "AccessDenied"):
		if wanted {
			f.Level = plugins.LevelWarning
			f.Remedy = "allow s3:GetBucketObjectLockConfiguration"
		}
		f.Detail = "whether the bucket has object lock may not be asked"
		return f, false
	case err != nil, out.ObjectLockConfiguration == nil, out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled:
		f.Level, f.Detail = missing, "the bucket has no object lock"
		if wanted {
			f.Remedy = "enable object lock on the bucket, or leave objectLock unset"
		}
		return f, false
	}
	f.Detail = "the bucket has object lock"
	if rule := out.ObjectLockConfiguration.Rule; rule != nil && rule.DefaultRetention != nil {
		f.Detail += fmt.Sprintf(", and retains every object by default (%s, %d days, %d years)",
			rule.DefaultRetention.Mode, aws.ToInt32(rule.DefaultRetention.Days), aws.ToInt32(rule.DefaultRetention.Years))
		return f, true
	}
	return f, false
}

// checkWrite writes one object, reads it back, tries to overwrite it, and deletes it.
func (s *Store) checkWrite(ctx context.Context) []plugins.Finding {
	key := "doctor/" + strconv.FormatInt(s.opts.Now().UnixNano(), 36)
	_, err := s.Put(ctx, key, strings.NewReader(key), plugins.PutOptions{})
	findings := []plugins.Finding{plugins.NewFinding("write", "an object can be written", err)}
	if err != nil {
		return findings
	}
	findings = append(findings, plugins.NewFinding("read-back", "an object reads back as it was written, whole and in part", s.readBack(ctx, key)))
	_, err = s.Put(ctx, key, strings.NewReader("another"), plugins.PutOptions{IfNoneMatch: true})
	switch {
	case errors.Is(err, plugins.ErrExists):
		err = nil
	case err == nil:
		err = &plugins.StoreError{
			Op: "put", Store: s.String(), Key: key, Err: fmt.Errorf("%w: the service overwrites an object though asked not to (If-None-Match)", plugins.ErrConfig),
			Remedy: "use a service that supports conditional writes; two backups could destroy each other's records here",
		}
	}
	findings = append(findings, plugins.NewFinding("conditional-write", "an existing object is not overwritten", err))
	return append(findings, plugins.NewFinding("delete", "an object can be deleted", s.Delete(ctx, key)))
}

func (s *Store) readBack(ctx context.Context, key string) error {
	for _, offset := range []int64{0, 3} {
		r, err := s.Get(ctx, key, offset, -1)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if string(got) != key[offset:] {
			return fmt.Errorf("from byte %d on it reads %q", offset, got)
		}
	}
	return nil
}
