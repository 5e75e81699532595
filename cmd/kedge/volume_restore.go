package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
)

// partialSuffix ends the name of a file that is being written.
const partialSuffix = ".kedge-partial"

// volumeRestore is what "volume restore" was asked.
type volumeRestore struct {
	claim, path string
	force       bool
}

func (a *app) volumeRestoreCommand() *cobra.Command {
	var out outputFlag
	var location, backup string
	var ask volumeRestore
	cmd := &cobra.Command{
		Use:   "restore --from-backup NAME --claim NAMESPACE/NAME --to-file PATH",
		Short: "Write the copy of a volume to a file on this machine",
		Long: `Write the copy of a volume, as it is in the location, to a file on this machine: an image of the disk, sparse, of the volume's full size. No
cluster and no EBS is needed, only the location and a key that opens it. Every block is checked against its SHA-256. The file appears under its
name once it is whole.

On Linux the image can be mounted ("mount -o ro,loop"); where the volume has partitions, "losetup --find --show --partscan" shows them. A snapshot
that stays with the provider is not read: restore that with "kedge restore create".`,
		Example: `  kedge volume restore --from-backup nightly --claim shop/data-0 --to-file data-0.img
  sudo mount -o ro,loop data-0.img /mnt`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("restore a volume", err)
			}
			if r != nil {
				return usageError(errors.New("restore a volume: it is written by this machine, which reads the location itself"), "add --local, with the location known here: kedge location add")
			}
			f, err := a.findBackup(cmd.Context(), c, location, backup)
			if err != nil {
				return err
			}
			return a.restoreVolume(cmd.Context(), &out, f, ask)
		},
	}
	out.bind(cmd.Flags(), formatText, formatJSON, formatYAML)
	bindFromBackup(cmd, &backup)
	cmd.Flags().StringVar(&ask.claim, "claim", "", "the `claim`, as NAMESPACE/NAME")
	cmd.Flags().StringVar(&ask.path, "to-file", "", "`file` to write")
	cmd.Flags().BoolVar(&ask.force, "force", false, "replace a file that is there")
	_ = cmd.MarkFlagRequired("claim")
	_ = cmd.MarkFlagRequired("to-file")
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// restoredVolume is what "volume restore -o json" prints.
type restoredVolume struct {
	Backup    string `json:"backup"`
	Claim     string `json:"claim"`
	Copy      string `json:"copy"`
	File      string `json:"file"`
	SizeBytes int64  `json:"sizeBytes"`
	// Blocks were written, of 512 KiB each; the rest of the file is zeros.
	Blocks int64 `json:"blocks"`
}

func (a *app) restoreVolume(ctx context.Context, out *outputFlag, f *found, ask volumeRestore) (err error) {
	if err := ask.check(); err != nil {
		return err
	}
	row, err := a.volumeOf(ctx, f, ask.claim)
	if err != nil {
		return err
	}
	repo, err := a.readRepository(ctx, f.place)
	if err != nil {
		return fmt.Errorf("restore the volume of claim %s: open the repository of volume copies: %w", ask.claim, err)
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	c, err := repo.Copy(ctx, row.CopyID)
	if errors.Is(err, repository.ErrNoCopy) {
		return codeError(exitRefused, fmt.Errorf("restore the volume of claim %s: %w", ask.claim, err), "the copy is lost; take another backup")
	}
	if err != nil {
		return fmt.Errorf("restore the volume of claim %s: %w", ask.claim, err)
	}
	if c.Volume.Handle != row.Source.Handle || c.Volume.Provider != row.Provider {
		return codeError(exitRefused, fmt.Errorf("restore the volume of claim %s: the backup names a copy of %s, and the claim's volume was %s/%s", ask.claim, c.Volume, row.Provider, row.Source.Handle), "do not trust this backup")
	}
	bar := a.ui.Progress("restore "+ask.claim, "bytes")
	blocks, err := ask.write(ctx, repo, c, block.Options{Progress: func(p block.Progress) { bar.Set(term.State{Done: p.Bytes, Total: p.TotalBytes, Bytes: p.Bytes}) }})
	bar.Done()
	switch {
	case errors.Is(err, block.ErrDamaged):
		return codeError(exitRefused, fmt.Errorf("restore the volume of claim %s: %w", ask.claim, err), "take the volume from another backup; nothing was written to "+ask.path)
	case err != nil:
		return fmt.Errorf("restore the volume of claim %s: %w", ask.claim, err)
	}
	done := restoredVolume{Backup: f.entry.Name, Claim: ask.claim, Copy: c.ID, File: ask.path, SizeBytes: c.SizeBytes, Blocks: blocks}
	if out.structured() {
		return a.printStructured(out.format, done)
	}
	a.printf("Claim %s of backup %s: %s written to %s, %s of them data\n", ask.claim, f.entry.Name, term.Bytes(c.SizeBytes), ask.path, term.Bytes(min(blocks*512<<10, c.SizeBytes)))
	return nil
}

// check refuses what cannot be done before anything is read.
func (r *volumeRestore) check() error {
	namespace, name, ok := strings.Cut(r.claim, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return usageError(fmt.Errorf("restore a volume: --claim: %q is not of the form NAMESPACE/NAME", r.claim), "")
	}
	info, err := os.Lstat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return usageError(fmt.Errorf("restore a volume: --to-file: %w", err), "")
	case !info.Mode().IsRegular():
		return usageError(fmt.Errorf("restore a volume: --to-file: %s is there, and no ordinary file", r.path), "name a file; it can be written to a device afterwards")
	case !r.force:
		return usageError(fmt.Errorf("restore a volume: --to-file: %s is there", r.path), "name another file, or add --force to replace it")
	}
	if _, err := os.Stat(filepath.Dir(r.path)); err != nil {
		return usageError(fmt.Errorf("restore a volume: --to-file: %w", err), "")
	}
	return nil
}

// volumeOf finds the row of a claim that has a copy which this command can read.
func (a *app) volumeOf(ctx context.Context, f *found, claim string) (*archive.Volume, error) {
	reader, err := a.read(ctx, f)
	if err != nil {
		return nil, err
	}
	rows, err := reader.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		v := &rows[i]
		switch {
		case v.Namespace+"/"+v.Claim != claim:
		case v.CopyID == "":
			return nil, codeError(exitNotFound, fmt.Errorf("restore the volume of claim %s: backup %s has no copy of it, only snapshot %s of %s", claim, f.entry.Name, v.SnapshotID, v.Provider), "restore the claim with \"kedge restore create\"")
		case v.CopyKind != block.Kind:
			return nil, codeError(exitRefused, fmt.Errorf("restore the volume of claim %s: its copy is of kind %q, which is no image of a disk", claim, v.CopyKind), "restore the claim with \"kedge restore create\"")
		default:
			return v, nil
		}
	}
	return nil, codeError(exitNotFound, fmt.Errorf("restore the volume of claim %s: backup %s has no data of it", claim, f.entry.Name), "\"kedge volume list --from-backup "+f.entry.Name+"\" lists what it has")
}

// write writes the copy to a file beside the one that is wanted, and gives it its name once it is whole.
func (r *volumeRestore) write(ctx context.Context, repo *repository.Repository, c repository.Copy, opts block.Options) (blocks int64, err error) {
	partial := r.path + partialSuffix
	target, err := file.CreateImage(partial, c.SizeBytes)
	if errors.Is(err, fs.ErrExist) {
		return 0, codeError(exitUsage, fmt.Errorf("%s is there: another restore writes it, or was killed", partial), "remove it if no other does")
	}
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, target.Close(), os.Remove(partial))
		}
	}()
	if blocks, err = block.Restore(ctx, repo, c, target, opts); err != nil {
		return 0, err
	}
	if _, err = target.Complete(ctx, blocks); err != nil {
		return 0, err
	}
	if r.force {
		return blocks, os.Rename(partial, r.path)
	}
	if err = os.Link(partial, r.path); err != nil { // unlike a rename it replaces nothing
		return 0, fmt.Errorf("give the file its name: %w", err)
	}
	return blocks, os.Remove(partial)
}
