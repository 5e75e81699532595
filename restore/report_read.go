package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// maxReport bounds a report, stored and decompressed.
const maxReport = 256 << 20

// Reports reads the reports that a location keeps, of all restores or, where name is not empty, of those of that name, and calls
// fn with each, in the order of names and uids; a restore that was resumed has one for each run. It stops at fn's first error, which it returns. A report that cannot be read is
// an *archive.DamageError.
func Reports(ctx context.Context, l *archive.Location, keys *archive.Keys, name string, fn func(*Report) error) error {
	prefix := reportsPrefix
	if name != "" {
		prefix += name + "/"
	}
	var found []string
	err := l.Store().List(ctx, prefix, func(info plugins.ObjectInfo) error {
		if strings.Contains(info.Key, "/report") && strings.HasSuffix(info.Key, reportSuffix) {
			found = append(found, info.Key)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the reports of restores: %w", err)
	}
	for _, key := range found {
		report, err := readReport(ctx, l.Store(), keys, key)
		if err != nil {
			return err
		}
		if err := fn(report); err != nil {
			return err
		}
	}
	return nil
}

func readReport(ctx context.Context, store plugins.ObjectStore, keys *archive.Keys, key string) (*Report, error) {
	body, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	sealed, err := io.ReadAll(io.LimitReader(body, maxReport+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	report, err := openReport(sealed, keys.Identity())
	if err != nil {
		return nil, &archive.DamageError{File: key, Offset: -1, Detail: "it is no report of a restore", Remedy: "remove it; nothing else depends on it", Err: err}
	}
	return report, nil
}

// openReport is the reverse of sealReport, for bytes that anybody may have written.
func openReport(sealed []byte, id age.Identity) (*Report, error) {
	if len(sealed) > maxReport {
		return nil, archive.ErrTooLarge
	}
	packed, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, err
	}
	plain, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxReport))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	raw, err := io.ReadAll(io.LimitReader(plain, maxReport+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxReport {
		return nil, archive.ErrTooLarge
	}
	report := &Report{}
	return report, json.Unmarshal(raw, report)
}
