package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

func (a *app) backupDownloadCommand() *cobra.Command {
	var location, file string
	var force bool
	cmd := &cobra.Command{
		Use:   "download NAME",
		Short: "Write the decrypted archive of a backup to a file: a tar in zstd",
		Long: `Write the decrypted archive of a backup to a file or to stdout: an ordinary tar file in zstd, one JSON file per object, which "tar --zstd
-xf" opens without Kedge. It holds the values of Secrets in the clear; the file is readable by its owner only.

It needs --local: an archive does not go through the API server.`,
		Example: `  kedge backup download nightly
  kedge backup download nightly -o - | tar --zstd -tf -`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("download backup", err)
			}
			if r != nil {
				return onlyLocal("download backup", "a whole archive does not go through the API server")
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			if file == "" {
				file = f.entry.Name + ".tar.zst"
			}
			return a.downloadBackup(cmd.Context(), f, file, force)
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "`file` to write, - for stdout (default NAME.tar.zst)")
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing file")
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) downloadBackup(ctx context.Context, f *found, file string, force bool) error {
	if file == "-" && xterm.IsTerminal(int(a.env.Stdout.Fd())) {
		return usageError(errors.New("download backup: stdout is a terminal"), "name a file with -o, or pipe the output")
	}
	if _, err := os.Lstat(file); err == nil && file != "-" && !force {
		return usageError(fmt.Errorf("download backup: %s exists already", file), "add --force to replace it, or name another file with -o")
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return usageError(fmt.Errorf("download backup: there is no folder %q", filepath.Dir(file)), "")
	}
	keys, err := a.unlock(ctx, f.place)
	if err != nil {
		return err
	}
	if _, err := a.read(ctx, f); err != nil { // its record, signature and frame table are sound
		return err
	}
	if file == "-" {
		return a.decryptItems(ctx, f, keys, a.ui.Out)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
	if err != nil {
		return usageError(fmt.Errorf("download backup: %w", err), "")
	}
	defer os.Remove(tmp.Name())
	err = a.decryptItems(ctx, f, keys, tmp)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("download backup %s: %w", f.entry.Name, err)
	}
	a.ui.Note("Backup %s is in %s.", f.entry.Name, file)
	return nil
}

// decryptItems streams the decrypted items file to w. It ends with an error where the bytes in the bucket are not those that the
// record names.
func (a *app) decryptItems(ctx context.Context, f *found, keys *archive.Keys, w io.Writer) error {
	record := f.entry.Record
	var want archive.File
	for _, file := range record.Files {
		if file.Name == archive.FileItems {
			want = file
		}
	}
	body, err := f.store.Get(ctx, "backups/"+record.Name+"/"+record.UID+"/"+record.Attempt+"/"+want.Name, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	bar := a.ui.Progress("download "+record.Name, "bytes")
	defer bar.Done()
	sealed := &hashedReader{r: body, hash: sha256.New(), read: func(n int64) { bar.Set(term.State{Done: n, Total: want.Size, Bytes: n}) }}
	plain, err := age.Decrypt(sealed, keys.Identity())
	if err == nil {
		_, err = io.Copy(w, plain)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, sealed)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && sealed.n == want.Size && hex.EncodeToString(sealed.hash.Sum(nil)) == want.SHA256:
		return nil
	}
	return &archive.DamageError{Backup: record.ID(), File: want.Name, Offset: -1, Detail: "its bytes are not those that the record names", Err: err}
}

// hashedReader counts and hashes what is read.
type hashedReader struct {
	r    io.Reader
	hash hash.Hash
	n    int64
	read func(int64)
}

// Read passes bytes on.
func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	h.n += int64(n)
	h.read(h.n)
	return n, err
}
