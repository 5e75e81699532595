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

func (a *app) locationMaintainCommand() *cobra.Command {
	var out outputFlag
	var full bool
	cmd := &cobra.Command{
		Use:   "maintain [NAME]",
		Short: "Forget copies of volumes that no backup has, and tidy their repository up",
		Long: `Forget the copies of volumes that no backup of the location has, of whatever cluster, and tidy their repository up. What is due is done: small
indexes are merged once an hour, and what no copy needs is removed once a day. --full does all of it now; space still comes back two to four
days after a copy is forgotten (docs/volume-repository.md).

A server does this by itself for its locations; this command is for those of --local. It needs a key that opens the location, and reads which
copies each backup names. Where one cannot be read, no copy is forgotten, and the exit code is 5.`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("maintain location", err)
			}
			if r != nil {
				return usageError(errors.New("maintain location: a server maintains its locations by itself"), "its condition Maintained says how it goes: kedge location describe; or add --local for a location of this machine")
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			p, err := a.openPlace(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			return a.maintain(cmd.Context(), &out, p, full)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&full, "full", false, "do all of it now, whether due or not")
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// maintenance is what "location maintain -o json" prints.
type maintenance struct {
	Location string `json:"location"`
	// Mode is "full", "quick", or "none" where nothing was due; empty where the location has no copies.
	Mode      string `json:"mode"`
	Kept      int    `json:"kept"`
	Forgotten int    `json:"forgotten"`
	// Checkpoints of copies that nobody goes on with were given up.
	Checkpoints int `json:"checkpoints"`
	// Unsure is why no copy was forgotten.
	Unsure string `json:"unsure,omitempty"`
}

func (a *app) maintain(ctx context.Context, out *outputFlag, p *place, full bool) error {
	m := maintenance{Location: p.object.Name}
	if p.object.Spec.ReadOnly {
		return codeError(exitRefused, fmt.Errorf("maintain location %s: it is read-only here", m.Location), "maintain it where it may be written")
	}
	there, err := repository.Exists(ctx, p.store)
	if err != nil {
		return err
	}
	if !there {
		if out.structured() {
			return a.printStructured(out.format, m)
		}
		a.printf("Location %s has no copies of volumes: nothing is to be done.\n", m.Location)
		return nil
	}
	keys, err := a.unlock(ctx, p)
	if err != nil {
		return err
	}
	bar := a.ui.Progress("maintain "+m.Location, "steps")
	done, err := (&volumes.Maintenance{
		Location: p.location, Keys: keys, Force: full,
		Entries:    func(ctx context.Context) ([]archive.Entry, error) { return allEntries(ctx, p.location) },
		Repository: func(ctx context.Context) (*repository.Repository, error) { return a.openRepository(ctx, p) },
		Doing:      func(what string) { bar.Set(term.State{Doing: what}) },
	}).Run(ctx)
	bar.Done()
	if err != nil {
		return fmt.Errorf("maintain location %s: %w", m.Location, err)
	}
	m.Mode, m.Kept, m.Forgotten, m.Checkpoints = done.Mode, done.Kept, done.Forgotten, done.Checkpoints
	if done.Unsure != nil {
		m.Unsure = done.Unsure.Error()
	}
	return a.printMaintained(out, &m, done.Unsure)
}

func allEntries(ctx context.Context, l *archive.Location) (entries []archive.Entry, err error) {
	err = l.Backups(ctx, func(e archive.Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func (a *app) printMaintained(out *outputFlag, m *maintenance, unsure error) error {
	if out.structured() {
		if err := a.printStructured(out.format, m); err != nil {
			return err
		}
	} else {
		did := map[string]string{"none": "no tidying up was due", "quick": "small indexes merged", "full": "fully tidied up"}[m.Mode]
		a.printf("Location %s: %s kept, %d forgotten; %s.\n", m.Location, copiesText(m.Kept), m.Forgotten, orElse(did, m.Mode))
	}
	if unsure == nil {
		return nil
	}
	return codeError(exitRefused, fmt.Errorf("maintain location %s: no copy was forgotten, since it is not known which ones backups name: %w", m.Location, unsure),
		"\"kedge backup verify\" says what is wrong with the backup; delete it if it is lost")
}

func copiesText(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}
