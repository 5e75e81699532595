package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/volume/repository"
)

func (a *app) backupVerifyCommand() *cobra.Command {
	var out outputFlag
	var location string
	var deep bool
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Check that a backup is whole and unchanged",
		Long: `Check a backup. The quick check looks at its record, its signature, and that every file is there with its size; it needs no key.
With --deep every byte is read and every hash compared, that of the copies of volumes too, and every object is found at its place; that needs
a key that opens the location. Snapshots that a provider keeps are not looked at.

The exit code is 5 where something is wrong with the backup.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("verify backup", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "verify backup", readFlags...); err != nil {
					return err
				}
				return r.verifyBackup(cmd.Context(), &out, location, args[0], deep)
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			return a.verifyBackup(cmd.Context(), &out, f, deep)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&deep, "deep", false, "read and check every byte")
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// verification is what "backup verify -o json" prints.
type verification struct {
	Backup   string    `json:"backup"`
	UID      string    `json:"uid"`
	OK       bool      `json:"ok"`
	Deep     bool      `json:"deep"`
	Signed   bool      `json:"signed"`
	Items    int       `json:"items"`
	Bytes    int64     `json:"bytes"`
	Problems []problem `json:"problems"`
}

// problem is one thing wrong with a backup. Offset is -1 where there is none to name.
type problem struct {
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Message string `json:"message"`
}

func (a *app) verifyBackup(ctx context.Context, out *outputFlag, f *found, deep bool) error {
	trusted, err := a.keys.trusted(f.object.Spec.TrustedKeys)
	if err != nil {
		return err
	}
	var keys *archive.Keys
	if deep {
		if keys, err = a.unlock(ctx, f.place); err != nil {
			return err
		}
	}
	bar := a.ui.Progress("verify "+f.entry.Name, "bytes")
	result, err := archive.Verify(ctx, f.location, f.entry, keys, archive.VerifyOptions{
		Deep: deep, TrustedKeys: trusted, RequireSignature: a.keys.require,
		OnProgress: func(done, total int64) { bar.Set(term.State{Done: done, Total: total, Bytes: done}) },
	})
	bar.Done()
	if err == nil && deep {
		var more []archive.Problem
		more, err = volumes.Verify(ctx, f.location, f.entry, keys, func(ctx context.Context) (*repository.Repository, error) { return a.readRepository(ctx, f.place) })
		result.Problems = append(result.Problems, more...)
	}
	if err != nil {
		return fmt.Errorf("verify backup %s: %w", f.entry.Name, err)
	}
	v := verification{Backup: f.entry.Name, UID: f.entry.UID, OK: result.OK(), Deep: result.Deep, Signed: result.Signed, Items: result.Items, Bytes: result.Bytes, Problems: []problem{}}
	for _, p := range result.Problems {
		v.Problems = append(v.Problems, problem{File: p.File, Offset: p.Offset, Message: p.Message})
	}
	return a.printVerified(out, &v)
}

// printVerified prints what a check found, and gives the exit code.
func (a *app) printVerified(out *outputFlag, v *verification) error {
	if out.structured() {
		if err := a.printStructured(out.format, v); err != nil {
			return err
		}
	} else {
		a.printVerification(v)
	}
	if v.OK {
		return nil
	}
	return codeError(exitRefused, fmt.Errorf("verify backup %s: %w", v.Backup, errors.New(plural(len(v.Problems), "problem"))), "restore refuses this backup; use another one, or an undamaged copy of the bucket")
}

func (a *app) printVerification(v *verification) {
	kind, signed := "quick", "not signed by a trusted key"
	if v.Deep {
		kind = "deep"
	}
	if v.Signed {
		signed = "signed by a trusted key"
	}
	for _, p := range v.Problems {
		place := p.File
		if p.Offset >= 0 {
			place = fmt.Sprintf("%s at byte %d", p.File, p.Offset)
		}
		a.printf("%s: %s\n", term.Clean(place), term.Clean(p.Message))
	}
	if v.OK && v.Deep {
		a.printf("Backup %s is good (deep check of %s, %s; %s)\n", v.Backup, plural(v.Items, "object"), term.Bytes(v.Bytes), signed)
		return
	}
	if v.OK {
		a.printf("Backup %s looks good (quick check; %s)\n", v.Backup, signed)
		return
	}
	a.printf("Backup %s is DAMAGED (%s check)\n", v.Backup, kind)
}
