package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"kedge.dev/kedge/plugins"
)

// Check looks whether the folder can be listed, written, read and cleaned, and refuses to overwrite.
func (s *Store) Check(ctx context.Context, opts plugins.CheckOptions) []plugins.Finding {
	errFound := errors.New("found one")
	err := s.List(ctx, "", func(plugins.ObjectInfo) error { return errFound })
	if errors.Is(err, errFound) {
		err = nil
	}
	findings := []plugins.Finding{plugins.NewFinding("read", "the folder can be listed", err)}
	if opts.ReadOnly || err != nil {
		return findings
	}
	key := "doctor/" + strconv.FormatInt(s.now().UnixNano(), 36)
	_, err = s.Put(ctx, key, strings.NewReader(key), plugins.PutOptions{IfNoneMatch: true})
	findings = append(findings, plugins.NewFinding("write", "an object can be written", err))
	if err != nil {
		return findings
	}
	findings = append(findings, plugins.NewFinding("read-back", "an object reads back as it was written", s.readBack(ctx, key)))
	_, err = s.Put(ctx, key, strings.NewReader("another"), plugins.PutOptions{IfNoneMatch: true})
	switch {
	case errors.Is(err, plugins.ErrExists):
		err = nil
	case err == nil:
		err = fmt.Errorf("%w: an existing object was overwritten", plugins.ErrConfig)
	}
	findings = append(findings, plugins.NewFinding("conditional-write", "an existing object is not overwritten", err))
	findings = append(findings, plugins.NewFinding("delete", "an object can be deleted", s.Delete(ctx, key)))
	if opts.ObjectLock {
		findings = append(findings, plugins.Finding{
			Name: "object-lock", Level: plugins.LevelFailed, Detail: "a folder cannot retain its files",
			Remedy: "keep the backups in a bucket with object lock, or leave objectLock unset",
		})
	}
	return findings
}

func (s *Store) readBack(ctx context.Context, key string) (err error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	got, err := io.ReadAll(r)
	if err == nil && string(got) != key {
		err = errors.New("it does not")
	}
	return err
}
