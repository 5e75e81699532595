package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// ReportSink keeps reports.
type ReportSink interface {
	// PutReport keeps a report for good.
	PutReport(ctx context.Context, r *Report) error
}

// KeepOnce keeps the report of a restore that comes to its end once, beside the backups as ToLocation does. One that is there already stays, and is
// success: it was written by a process that was killed, or lost its lease, before it could tell.
func KeepOnce(ctx context.Context, l *archive.Location, r *Report) error {
	err := locationReports{l}.put(ctx, r, 1)
	if errors.Is(err, plugins.ErrExists) {
		return nil
	}
	return err
}

// ToLocation keeps reports beside the backups, encrypted to the location's key, where its bucket may be written:
// restores/<name>/<uid>/report.json.zst.age. Each later run of the same restore adds a file, report-2, report-3, and so on:
// nothing in a location is overwritten.
func ToLocation(l *archive.Location) ReportSink { return locationReports{l} }

type locationReports struct{ l *archive.Location }

const (
	reportsPrefix = "restores/"
	reportSuffix  = ".json.zst.age"
	maxRuns       = 1000
)

func reportKey(name, uid string, run int) string {
	key := reportsPrefix + name + "/" + uid + "/report"
	if run > 1 {
		key += fmt.Sprintf("-%d", run)
	}
	return key + reportSuffix
}

func (s locationReports) PutReport(ctx context.Context, r *Report) error {
	return s.put(ctx, r, maxRuns)
}

// put writes the report under the first name that is free, of so many.
func (s locationReports) put(ctx context.Context, r *Report, names int) error {
	recipient, err := age.ParseX25519Recipient(s.l.PublicKey())
	if err != nil {
		return fmt.Errorf("write the report of restore %s: %w", r.Name, err)
	}
	var sealed bytes.Buffer
	if err := sealReport(&sealed, r, recipient); err != nil {
		return fmt.Errorf("write the report of restore %s: %w", r.Name, err)
	}
	for run := 1; run <= names; run++ {
		_, err = s.l.Store().Put(ctx, reportKey(r.Name, r.UID, run), bytes.NewReader(sealed.Bytes()), plugins.PutOptions{IfNoneMatch: true})
		if !errors.Is(err, plugins.ErrExists) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write the report of restore %s: %w", r.Name, err)
	}
	return nil
}

// sealReport writes JSON, compressed, encrypted.
func sealReport(w io.Writer, r *Report, to age.Recipient) error {
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return err
	}
	packed, err := zstd.NewWriter(sealed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := json.NewEncoder(packed).Encode(r); err != nil {
		return err
	}
	if err := packed.Close(); err != nil {
		return err
	}
	return sealed.Close()
}
