package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"golang.org/x/sync/semaphore"

	"kedge.dev/kedge/plugins"
)

// Defaults of Options.
const (
	DefaultMaxWrites  = 4
	DefaultCacheBytes = 512 << 20
)

// chunkCacheBytes is the cache of chunks: as good as none, since copies, restores and verifications read each chunk once.
const chunkCacheBytes = 1 << 20

// Options say how this process uses a repository.
type Options struct {
	// CacheDir is a folder of this process alone for indexes and directories that were read; it may be lost at any time. Empty for no cache:
	// then indexes are held in memory, and read anew by every process. Chunks of blocks and files are
	// not kept, but pass through it on their way.
	CacheDir string
	// CacheBytes bounds what is kept of directories; zero means DefaultCacheBytes. Indexes come on top.
	CacheBytes int64
	// MaxWrites bounds puts and deletes under way at once, each of which holds about a pack; zero means DefaultMaxWrites.
	MaxWrites int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// ReadOnly refuses every write.
	ReadOnly bool
}

// Repository is an open repository. Its methods may be called from many goroutines, and any number of processes may have it open and write to
// it at once.
type Repository struct {
	store    plugins.ObjectStore
	password string
	opts     Options
	dir      string // holds the configuration file, which kopia wants
	kopia    repo.DirectRepository
}

// Connect opens the location's repository, and makes it, with its password, where there is none. Any number of callers may do so at once. The
// error wraps ErrNoPassword where no sealed password opens, and ErrWrongPassword where none of them is the repository's.
func Connect(ctx context.Context, store plugins.ObjectStore, keys Keys, create CreateOptions, opts Options) (*Repository, error) {
	if !opts.ReadOnly {
		if err := createPassword(ctx, store, keys); err != nil {
			return nil, fmt.Errorf("create the volume repository's password in %s: %w", store, err)
		}
	}
	passwords, err := Passwords(ctx, store, keys)
	if err != nil {
		return nil, err
	}
	for _, password := range passwords {
		var r *Repository
		if opts.ReadOnly {
			r, err = Open(ctx, store, password, opts)
		} else {
			r, err = OpenOrCreate(ctx, store, password, create, opts)
		}
		if !errors.Is(err, ErrWrongPassword) {
			return r, err
		}
	}
	return nil, err
}

// OpenOrCreate opens the repository, and makes it where there is none.
func OpenOrCreate(ctx context.Context, store plugins.ObjectStore, password string, options CreateOptions, opts Options) (*Repository, error) {
	_, err := find(ctx, store)
	if errors.Is(err, ErrNoRepository) {
		err = create(ctx, store, password, options)
	}
	if err != nil {
		return nil, fmt.Errorf("open volume repository: %w", err)
	}
	return Open(ctx, store, password, opts)
}

// Open opens the repository below Folder of the store. The error wraps ErrNoRepository or ErrWrongPassword where that is so.
func Open(ctx context.Context, store plugins.ObjectStore, password string, opts Options) (*Repository, error) {
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the default of a field
	}
	if opts.MaxWrites <= 0 {
		opts.MaxWrites = DefaultMaxWrites
	}
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = DefaultCacheBytes
	}
	layout, err := find(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("open volume repository in %s: %w", store, err)
	}
	r := &Repository{store: store, password: password, opts: opts}
	if err := r.open(ctx, layout); err != nil {
		return nil, errors.Join(fmt.Errorf("open volume repository in %s: %w", store, err), r.removeDir())
	}
	return r, nil
}

func (r *Repository) open(ctx context.Context, layout Layout) error {
	var err error
	if r.dir, err = os.MkdirTemp(r.opts.CacheDir, "kedge-repository-"); err != nil {
		return err
	}
	s := &storage{store: r.store, layout: layout, now: r.opts.Now, writes: semaphore.NewWeighted(int64(r.opts.MaxWrites))}
	config, err := r.writeConfig(s)
	if err != nil {
		return err
	}
	ctx, stop := guard(ctx)
	defer stop()
	opened, err := repo.Open(context.WithValue(ctx, storageKey{}, s), config, r.password, &repo.Options{
		TimeNowFunc:          r.opts.Now,
		DisableRepositoryLog: true, // what happened is in our own logs
		DoNotWaitForUpgrade:  true,
		OnFatalError:         func(error) {}, // the call that met it returns it; kopia's default ends the process
	})
	if err != nil {
		if errors.Is(err, repo.ErrInvalidPassword) {
			return ErrWrongPassword
		}
		return cause(ctx, err)
	}
	direct, ok := opened.(repo.DirectRepository)
	if !ok {
		return errors.Join(fmt.Errorf("kopia opened a %T", opened), opened.Close(ctx))
	}
	r.kopia = direct
	return nil
}

// writeConfig writes the file that kopia opens a repository by. There is no secret in it.
func (r *Repository) writeConfig(s *storage) (string, error) {
	info := s.ConnectionInfo()
	config := repo.LocalConfig{
		Storage: &info,
		ClientOptions: repo.ClientOptions{
			Hostname: ownerHost, Username: ownerUser, Description: "volumes in " + r.store.String(), ReadOnly: r.opts.ReadOnly,
		},
		Caching: &content.CachingOptions{},
	}
	if r.opts.CacheDir != "" {
		dir, err := filepath.Abs(filepath.Join(r.opts.CacheDir, "kopia"))
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		config.Caching = &content.CachingOptions{
			CacheDirectory: dir, MetadataCacheSizeBytes: r.opts.CacheBytes, MetadataCacheSizeLimitBytes: r.opts.CacheBytes,
			// kopia 0.23.1 panics where there is a folder and no cache of chunks, and keeps what is younger than 10 minutes unless there is a limit.
			ContentCacheSizeBytes: chunkCacheBytes, ContentCacheSizeLimitBytes: chunkCacheBytes,
		}
	}
	data, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	file := filepath.Join(r.dir, "repository.config")
	return file, os.WriteFile(file, data, 0o600)
}

// Close gives back what the repository holds; what was not flushed is lost.
func (r *Repository) Close(ctx context.Context) error {
	if err := errors.Join(r.kopia.Close(ctx), r.removeDir()); err != nil {
		return fmt.Errorf("close volume repository: %w", err)
	}
	return nil
}

func (r *Repository) removeDir() error {
	if r.dir == "" {
		return nil
	}
	return os.RemoveAll(r.dir)
}

// Uncached opens the repository once more, without a cache, so that all that is read comes from the store.
func (r *Repository) Uncached(ctx context.Context) (*Repository, error) {
	opts := r.opts
	opts.CacheDir, opts.ReadOnly = "", true
	return Open(ctx, r.store, r.password, opts)
}

// String names the repository for messages.
func (r *Repository) String() string { return r.store.String() + "/" + Folder }

// Now is the repository's clock.
func (r *Repository) Now() time.Time { return r.opts.Now() }

// Read calls fn with kopia's view of the repository as it is now. The context that fn gets ends when the store has failed for good.
func (r *Repository) Read(ctx context.Context, fn func(ctx context.Context, rep repo.Repository) error) error {
	ctx, stop := guard(ctx)
	defer stop()
	if err := r.kopia.Refresh(ctx); err != nil {
		return cause(ctx, fmt.Errorf("refresh volume repository: %w", err))
	}
	return cause(ctx, fn(ctx, r.kopia))
}

// Write calls fn with a session that writes, and flushes it where fn returns nil. The context that fn gets ends when the store has failed for
// good; until a flush nothing that was written is part of the repository. uploaded, if set, is told the bytes of each object that was stored.
func (r *Repository) Write(ctx context.Context, purpose string, uploaded func(bytes int64), fn func(ctx context.Context, w repo.DirectRepositoryWriter) error) error {
	ctx, stop := guard(ctx)
	defer stop()
	if err := r.kopia.Refresh(ctx); err != nil {
		return cause(ctx, fmt.Errorf("refresh volume repository: %w", err))
	}
	return cause(ctx, repo.DirectWriteSession(ctx, r.kopia, repo.WriteSessionOptions{Purpose: purpose, OnUpload: uploaded}, fn))
}

type guardKey struct{}

// guard makes a context that the storage can end with the failure it has met.
func guard(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	return context.WithValue(ctx, guardKey{}, cancel), func() { cancel(nil) }
}

// cause says why a guarded call failed: where the store's failure ended it, that.
func cause(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if why := context.Cause(ctx); why != nil && !errors.Is(err, why) {
		return fmt.Errorf("%w (%w)", err, why)
	}
	return err
}
