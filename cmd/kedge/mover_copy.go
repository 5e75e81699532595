package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/repository"
)

func (a *app) moverCopyCommand() *cobra.Command {
	var (
		f      moverFlags
		volume string
		result = moverResult{Operation: "copy"}
	)
	cmd := &cobra.Command{
		Use:   "copy --path DIR --volume PROVIDER/HANDLE --cluster UID",
		Short: "Copy the files of a mounted volume into a location",
		Long: `Copy the files of a mounted volume into the location's repository of volume copies. What is as it was in the volume's last copy is not
read again. docs/volume-files.md says what is kept of a file.

The result is printed as one line of JSON; its field "copy" is what "kedge mover restore" wants. A copy that is told to stop (SIGTERM, Ctrl-C)
saves how far it came, and the next one goes on from there. A copy that no backup names is removed by maintenance a day after it was made.

The exit code is 3 where the copy was made but something could not be read; each such file is a remark.`,
		Example: `  kedge mover copy --path /data --volume efs/fs-0123456789abcdef0 --cluster "$(kubectl get namespace kube-system -o jsonpath={.metadata.uid})"`,
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.move(cmd.Context(), &f, &result, func(ctx context.Context) error { return a.moverCopy(ctx, &f, volume, &result) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.path, "path", "", "`folder` where the volume is mounted; what is mounted below it is left out")
	flags.StringVar(&volume, "volume", "", "`provider/handle` of the volume; the next copy is compared with the last one of the same name and cluster")
	flags.StringVar(&result.Cluster, "cluster", "", "`uid` of the cluster that uses the volume: that of its namespace kube-system")
	f.bind(a, flags)
	return cmd
}

func (a *app) moverCopy(ctx context.Context, f *moverFlags, name string, result *moverResult) error {
	if err := f.check("copy files"); err != nil {
		return err
	}
	provider, handle, _ := strings.Cut(name, "/")
	switch {
	case provider == "" || handle == "":
		return usageError(fmt.Errorf("copy files: --volume: %q is not PROVIDER/HANDLE", name), "give the volume a name by which its next copy finds this one, such as efs/fs-0123456789abcdef0")
	case result.Cluster == "":
		return usageError(errors.New("copy files: no cluster is named"), `name it with --cluster; "kubectl get namespace kube-system -o jsonpath={.metadata.uid}" prints its uid`)
	}
	result.Provider, result.Handle = provider, handle
	volume := repository.Volume{Cluster: result.Cluster, Provider: provider, Handle: handle}
	return a.withRepository(ctx, f, true, func(repo *repository.Repository) error {
		bar := a.ui.Progress("copy "+volume.String(), "files")
		defer bar.Done()
		copier := &files.Copier{
			SpoolDir: f.spoolDir, Parallel: f.parallel, Remark: a.remarkFiles(),
			Progress: func(p files.CopyProgress) { bar.Set(term.State{Done: p.Files, Bytes: p.ReadBytes}) },
		}
		done, err := copier.CopyVolume(ctx, repo, volume, f.path)
		if err != nil {
			return stopped(ctx, err)
		}
		result.Copy, result.Base = done.Copy.ID, done.Copy.Base
		result.Files, result.Folders, result.Bytes = done.Files, done.Folders, done.Bytes
		result.ReadFiles, result.ReadBytes, result.UploadedBytes = done.ReadFiles, done.ReadBytes, done.Uploaded
		result.Counts, result.Remarks = done.Counts, done.Remarks
		return nil
	})
}

// stopped adds to the error of a mover that was told to stop what to do about it.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return codeError(exitCancelled, err, "run it again: it goes on from what it has done")
}
