package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/backup/archive"
)

// bucketIsTruth ends the help of the commands that change how long a backup is kept.
const bucketIsTruth = `It is written into the bucket, which is what counts: every server that has the location follows it with its next look, whoever wrote it.`

func (a *app) backupHoldCommand() *cobra.Command {
	var location, reason string
	cmd := &cobra.Command{
		Use:   "hold NAME",
		Short: "Keep a backup until it is released",
		Long:  "Keep a backup until it is released: neither the end of its TTL nor any rule of a schedule removes it, and deleting it needs --force.\n\n" + bucketIsTruth,
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.forExpiry(cmd.Context(), "hold backup", location, args[0])
			if err != nil {
				return err
			}
			x := archive.Expiry{Hold: true, Reason: reason} // of a backup whose record cannot be read: without an end
			if f.entry.Err == nil {
				x.Expires = expires(&f.entry)
			}
			if err := a.setExpiry(cmd.Context(), f, x); err != nil {
				return err
			}
			a.ui.Note("Backup %s is held.", f.entry.Name)
			if f.object.Spec.ObjectLock {
				a.ui.Note("The bucket's own object lock is extended by a server that has the location; without one it ends as it was.")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people")
	bindLocation(cmd.Flags(), &location)
	return cmd
}

func (a *app) backupReleaseCommand() *cobra.Command {
	var location string
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "End the hold of a backup",
		Long:  "End the hold of a backup: from then on its TTL and the rules of its schedule count again. Where those have ended, it goes soon.\n\n" + bucketIsTruth,
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.forExpiry(cmd.Context(), "release backup", location, args[0])
			switch {
			case err != nil:
				return err
			case f.entry.Err != nil:
				return f.entry.Err
			case f.entry.Expiry == nil || !f.entry.Expiry.Hold:
				a.ui.Note("Backup %s is not held.", f.entry.Name)
				return nil
			}
			if err := a.setExpiry(cmd.Context(), f, archive.Expiry{Expires: expires(&f.entry)}); err != nil {
				return err
			}
			a.ui.Note("Backup %s is released; it expires: %s.", f.entry.Name, a.endText(expires(&f.entry)))
			return nil
		},
	}
	bindLocation(cmd.Flags(), &location)
	return cmd
}

func (a *app) backupExtendCommand() *cobra.Command {
	var location, until string
	var ttl metav1.Duration
	cmd := &cobra.Command{
		Use:   "extend NAME (--until TIME | --ttl DURATION)",
		Short: "Keep a backup for longer",
		Long: "Keep a backup for longer: until a time, or for a time from now on. Its end is never moved to an earlier one. In a location with object lock the bucket is " +
			"asked to protect it until then, which nobody can take back.\n\n" + bucketIsTruth,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			end, err := a.newEnd(until, ttl.Duration)
			if err != nil {
				return usageError(fmt.Errorf("extend backup: %w", err), "")
			}
			f, err := a.forExpiry(cmd.Context(), "extend backup", location, args[0])
			if err != nil {
				return err
			}
			return a.extend(cmd.Context(), f, end)
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "the new end: 2027-01-31, or 2027-01-31T12:00:00Z (`time`)")
	(&binder{flags: cmd.Flags()}).duration(&ttl, "ttl", "how long it is kept from now on: 72h, 30d, 12w")
	bindLocation(cmd.Flags(), &location)
	return cmd
}

// newEnd reads the end that the flags ask for.
func (a *app) newEnd(until string, ttl time.Duration) (time.Time, error) {
	switch {
	case (until != "") == (ttl != 0):
		return time.Time{}, errors.New("give either --until or --ttl")
	case ttl < 0:
		return time.Time{}, errors.New("--ttl is negative")
	case ttl > 0:
		return a.env.Now().Add(ttl).UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if end, err := time.Parse(layout, until); err == nil {
			return end.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("--until %q is neither a date (2027-01-31) nor a time (2027-01-31T12:00:00Z)", until)
}

// extend moves the end of a backup, and then that of what object lock protects.
func (a *app) extend(ctx context.Context, f *found, end time.Time) error {
	if f.entry.Err != nil {
		return f.entry.Err
	}
	have := expires(&f.entry)
	if have == nil || !end.After(*have) {
		return codeError(exitRefused, fmt.Errorf("extend backup %s: it is kept for longer already: its end is %s", f.entry.Name, a.endText(have)), "give a later time; an end is never moved to an earlier one")
	}
	x := archive.Expiry{Expires: &end}
	if old := f.entry.Expiry; old != nil {
		x.Hold, x.Reason = old.Hold, old.Reason
	}
	if err := a.setExpiry(ctx, f, x); err != nil {
		return err
	}
	if f.object.Spec.ObjectLock {
		if err := f.location.Retain(ctx, f.entry, end); err != nil {
			return fmt.Errorf("the new end is written, but the bucket's object lock is not extended: %w", err)
		}
	}
	a.ui.Note("Backup %s is kept until %s.", f.entry.Name, a.endText(&end))
	return nil
}

// forExpiry finds a backup whose expiry is to be changed.
func (a *app) forExpiry(ctx context.Context, command, location, name string) (*found, error) {
	c, r, err := a.choose()
	if err != nil {
		return nil, atCommand(command, err)
	}
	if r != nil {
		return nil, onlyLocal(command, "how long a backup is kept is written in the bucket, and the server follows it")
	}
	f, err := a.findBackup(ctx, c, location, name)
	switch {
	case err != nil:
		return nil, err
	case f.object.Spec.ReadOnly:
		return nil, codeError(exitRefused, fmt.Errorf("%s %s: location %s is read-only", command, name, f.object.Name), "do it from a machine where the location is not")
	case f.entry.Deleting:
		return nil, codeError(exitRefused, fmt.Errorf("%s %s: %w", command, name, archive.ErrDeleting), "use another backup: this one cannot be had back")
	}
	return f, nil
}

func (a *app) setExpiry(ctx context.Context, f *found, x archive.Expiry) error {
	x.At = a.env.Now().UTC().Truncate(time.Second)
	return f.location.SetExpiry(ctx, f.entry, x)
}

// expires is the end of a backup, whether it is held or not; nil is never.
func expires(e *archive.Entry) *time.Time {
	if e.Expiry != nil {
		return e.Expiry.Expires
	}
	return e.Record.Expires
}

func (a *app) endText(end *time.Time) string {
	if end == nil {
		return "never"
	}
	return end.UTC().Format(time.RFC3339)
}
