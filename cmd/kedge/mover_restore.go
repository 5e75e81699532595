package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/repository"
)

func (a *app) moverRestoreCommand() *cobra.Command {
	var (
		f       moverFlags
		copyID  string
		inside  string
		options files.Restorer
		result  = moverResult{Operation: "restore"}
	)
	cmd := &cobra.Command{
		Use:   "restore --copy ID --path DIR",
		Short: "Restore the files of a copy into a mounted volume",
		Long: `Restore the files of a copy, with their owners, modes, times, links and attributes, into a folder. Files that are there with the copy's size and time
are left alone, so a restore that was stopped is run again with the same flags. Others are replaced; what the copy does not have
stays, unless --delete-extra is given.

The result is printed as one line of JSON. The exit code is 3 where something could not be restored as it was; each such file is a remark.`,
		Example: `  kedge mover restore --copy 0123456789abcdef0123456789abcdef --path /data --delete-extra
  kedge mover restore --copy 0123456789abcdef0123456789abcdef --only uploads/2026 --path /tmp/uploads`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.move(cmd.Context(), &f, &result, func(ctx context.Context) error { return a.moverRestore(ctx, &f, &options, copyID, inside, &result) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&copyID, "copy", "", "`id` of the copy: \"copy\" of the result of kedge mover copy, or \"copyID\" of a backup's volume")
	flags.StringVar(&inside, "only", "", "`path` of a folder or file inside the copy (default: all of it)")
	flags.StringVar(&f.path, "path", "", "`folder` where the volume is mounted; it is made where it does not exist")
	flags.BoolVar(&options.DeleteExtra, "delete-extra", false, "remove what is in the folder and not in the copy")
	flags.BoolVar(&options.NoDevices, "no-devices", false, "leave out character and block devices")
	f.bind(a, flags)
	return cmd
}

func (a *app) moverRestore(ctx context.Context, f *moverFlags, restorer *files.Restorer, copyID, inside string, result *moverResult) error {
	if err := f.check("restore files"); err != nil {
		return err
	}
	if copyID == "" {
		return usageError(errors.New("restore files: no copy is named"), "name one with --copy")
	}
	return a.withRepository(ctx, f, false, func(repo *repository.Repository) error {
		from, err := repo.Copy(ctx, copyID)
		if errors.Is(err, repository.ErrNoCopy) {
			return codeError(exitNotFound, fmt.Errorf("restore files: %w", err), "")
		}
		if err != nil {
			return err
		}
		result.Copy, result.Cluster, result.Provider, result.Handle = from.ID, from.Volume.Cluster, from.Volume.Provider, from.Volume.Handle
		bar := a.ui.Progress("restore "+from.Volume.String(), "files")
		defer bar.Done()
		restorer.SpoolDir, restorer.Parallel, restorer.Remark = f.spoolDir, f.parallel, a.remarkFiles()
		restorer.Progress = func(p files.RestoreProgress) {
			bar.Set(term.State{Done: p.Files, Total: p.TotalFiles, Bytes: p.WrittenBytes})
		}
		done, err := restorer.RestoreVolume(ctx, repo, from, inside, f.path)
		if errors.Is(err, files.ErrNotFound) {
			return codeError(exitNotFound, err, "")
		}
		if err != nil {
			return stopped(ctx, err)
		}
		result.Files, result.Folders, result.Bytes = done.Files, done.Folders, done.Bytes
		result.WrittenFiles, result.WrittenBytes, result.Deleted = done.WrittenFiles, done.WrittenBytes, done.Deleted
		result.Counts, result.Remarks = done.Counts, done.Remarks
		return nil
	})
}
