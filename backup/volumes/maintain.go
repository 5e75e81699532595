package volumes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/volume/repository"
)

// UnnamedAge is how long a copy stays that no sealed backup names: the backup that made it may still be copying other volumes. It is well beyond
// archive.MinSweepAge, after which an attempt that writes nothing is taken for dead.
const UnnamedAge = 7 * 24 * time.Hour

// Maintenance tidies up the repository of a location: copies that no backup names are forgotten, and what nothing refers to is removed.
type Maintenance struct {
	Location *archive.Location
	Keys     *archive.Keys
	// Entries lists the location to its end.
	Entries func(context.Context) ([]archive.Entry, error)
	// Named remembers from one maintenance to the next; nil reads everything.
	Named *Named
	// Repository opens the repository, which exists.
	Repository func(context.Context) (*repository.Repository, error)
	// Force runs a full maintenance, though kopia's schedule may say that none is due.
	Force bool
	// Doing is told what begins; it may be nil.
	Doing func(string)
}

// Maintained is what a maintenance did.
type Maintained struct {
	repository.Maintained

	// Unsure is why no copy was forgotten: it is not known which ones backups name. Nil where it is.
	Unsure error
}

// Run maintains. A backup that cannot be read, or a listing that fails, keeps every copy; the rest of the maintenance is done all the same.
func (m *Maintenance) Run(ctx context.Context) (done Maintained, err error) {
	m.doing("read which copies the backups name")
	named, unsure := m.named(ctx)
	if ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	m.doing("open the repository")
	repo, err := m.Repository(ctx)
	if err != nil {
		return done, fmt.Errorf("open the repository of volume copies: %w", err)
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	opts := repository.MaintainOptions{MinAge: UnnamedAge, Force: m.Force}
	if unsure == nil {
		opts.Keep = func(c repository.Copy) bool { return named.Has(c.ID) }
	}
	m.doing("tidy up")
	done.Unsure = unsure
	done.Maintained, err = repo.Maintain(ctx, opts)
	return done, err
}

func (m *Maintenance) named(ctx context.Context) (*CopySet, error) {
	entries, err := m.Entries(ctx)
	if err != nil {
		return nil, err
	}
	memory := m.Named
	if memory == nil {
		memory = &Named{}
	}
	return memory.Copies(ctx, m.Location, entries, m.Keys)
}

func (m *Maintenance) doing(what string) {
	if m.Doing != nil {
		m.Doing(what)
	}
}
