package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/repository"
)

// Verify reads every byte of the copies of volumes that a backup names, and gives what is wrong with them. What is wrong with the backup
// itself is archive.Verify's to tell: where it cannot be read, there is nothing to be said here.
func Verify(ctx context.Context, l *archive.Location, e archive.Entry, keys *archive.Keys, open func(context.Context) (*repository.Repository, error)) ([]archive.Problem, error) {
	if e.Record == nil || e.Record.Counts.Volumes == 0 {
		return nil, nil
	}
	reader, err := l.OpenBackup(ctx, e, keys, archive.ReadOptions{})
	if err != nil {
		return nil, told(err)
	}
	rows, err := reader.Volumes(ctx)
	if err != nil {
		return nil, told(err)
	}
	return VerifyCopies(ctx, rows, open)
}

// told leaves out what archive.Verify says too.
func told(err error) error {
	if _, damaged := errors.AsType[*archive.DamageError](err); damaged || errors.Is(err, archive.ErrSignature) {
		return nil
	}
	return err
}

// VerifyCopies reads every byte of the copies that a backup's rows name, and gives what is wrong with them, by volume. The error says that it
// could not look. It opens the repository only where a row names a copy.
func VerifyCopies(ctx context.Context, rows []archive.Volume, open func(context.Context) (*repository.Repository, error)) (problems []archive.Problem, err error) {
	named := map[string]*archive.Volume{}
	for i := range rows {
		if rows[i].CopyID != "" {
			named[rows[i].CopyID] = &rows[i]
		}
	}
	if len(named) == 0 {
		return nil, nil
	}
	repo, err := open(ctx)
	if errors.Is(err, repository.ErrNoRepository) || errors.Is(err, repository.ErrNoPassword) {
		return []archive.Problem{{File: repository.Folder, Offset: -1, Message: fmt.Sprintf("%d volumes have copies in it, but: %v", len(named), err)}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the repository of volume copies: %w", err)
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	byKind := map[string][]repository.Copy{}
	for id, row := range named {
		c, err := repo.Copy(ctx, id)
		switch {
		case errors.Is(err, repository.ErrNoCopy):
			problems = append(problems, problemOf(row, -1, "the copy is gone from the repository"))
		case err != nil:
			return nil, err
		case c.Kind != block.Kind && c.Kind != files.Kind:
			problems = append(problems, problemOf(row, -1, fmt.Sprintf("the copy is of kind %q, which this version cannot read", c.Kind)))
		default:
			byKind[c.Kind] = append(byKind[c.Kind], c)
		}
	}
	more, err := verifyBlocks(ctx, repo, byKind[block.Kind], named)
	if problems = append(problems, more...); err != nil {
		return problems, err
	}
	more, err = verifyFiles(ctx, repo, byKind[files.Kind], named)
	return append(problems, more...), err
}

func verifyBlocks(ctx context.Context, repo *repository.Repository, copies []repository.Copy, named map[string]*archive.Volume) (problems []archive.Problem, err error) {
	if len(copies) == 0 {
		return nil, nil
	}
	damages, err := block.Verify(ctx, repo, copies, block.Options{})
	for _, d := range damages {
		problems = append(problems, problemOf(named[d.Copy.ID], d.Offset, d.Error()))
	}
	if errors.Is(err, block.ErrDamaged) {
		return append(problems, archive.Problem{File: repository.Folder, Offset: -1, Message: err.Error()}), nil
	}
	return problems, err
}

func verifyFiles(ctx context.Context, repo *repository.Repository, copies []repository.Copy, named map[string]*archive.Volume) (problems []archive.Problem, err error) {
	if len(copies) == 0 {
		return nil, nil
	}
	spool, err := os.MkdirTemp("", "kedge-verify-")
	if err != nil {
		return nil, fmt.Errorf("verify the copies of files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(spool)) }()
	damages, err := files.Verify(ctx, repo, copies, files.VerifyOptions{SpoolDir: spool})
	for _, d := range damages {
		problems = append(problems, problemOf(named[d.Copy.ID], -1, d.Error()))
	}
	if errors.Is(err, files.ErrDamaged) {
		return append(problems, archive.Problem{File: repository.Folder, Offset: -1, Message: err.Error()}), nil
	}
	return problems, err
}

func problemOf(row *archive.Volume, offset int64, text string) archive.Problem {
	return archive.Problem{File: "volume of claim " + row.Namespace + "/" + row.Claim, Offset: offset, Message: text}
}
