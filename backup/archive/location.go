package archive

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/plugins"
)

// Location is a store that holds backups. It is safe for use from many goroutines.
type Location struct {
	store     plugins.ObjectStore
	info      locationInfo
	elsewhere Elsewhere
}

// Outside is what a backup has outside of its location.
type Outside struct {
	UID string // the backup's
	// Places are where copies of its snapshots may be.
	Places []plugins.Place
	// Cluster is the uid of the cluster that keeps snapshots for it in its own API; empty where none does.
	Cluster string
	// OnlyCluster says that there is nothing but those.
	OnlyCluster bool
	// Leave says that what the cluster keeps may stay where that cluster is not the one at hand, LeavePlaces that the copies in a place may that
	// refuses who asks.
	Leave, LeavePlaces bool
	// Look asks only whether all of it can be reached: nothing is removed.
	Look bool
}

// Elsewhere removes what a backup has outside of its location, such as snapshots of volumes and their copies. What is gone already is no
// error. The error wraps ErrElsewhere where trying again from here would meet the same.
type Elsewhere func(ctx context.Context, what Outside) error

// WithElsewhere gives the same location, whose deletions begin with what the backup has elsewhere. Without it a backup that has
// something elsewhere cannot be deleted.
func (l *Location) WithElsewhere(remove Elsewhere) *Location {
	out := *l
	out.elsewhere = remove
	return &out
}

// locationInfo is kedge.json.
type locationInfo struct {
	Layout    int       `json:"layout"`
	ID        string    `json:"id"`
	Created   time.Time `json:"created"`
	PublicKey string    `json:"publicKey"`
}

// PublicKey is what backups are encrypted to ("age1…"). Who writes the bucket could replace it: pin it where you can.
func (l *Location) PublicKey() string { return l.info.PublicKey }

// ID is the location's uuid, made with it.
func (l *Location) ID() string { return l.info.ID }

// Created is when the location was made.
func (l *Location) Created() time.Time { return l.info.Created }

// Store is where the location lies.
func (l *Location) Store() plugins.ObjectStore { return l.store }

// InitOptions says who will be able to read the backups of a new location. At least one recipient or wrapper is needed.
type InitOptions struct {
	Recipients []age.Recipient
	Wrappers   []plugins.KeyWrapper
	Now        func() time.Time
	Rand       io.Reader
}

// Init makes a store a location: a key pair, its private half wrapped to the recipients, and kedge.json last. The
// error is ErrInitialized where kedge.json is there already, also if somebody else was quicker. What an earlier call
// left half made is harmless, and a call after it succeeds. Wrappers are tried before kedge.json is written.
func Init(ctx context.Context, store plugins.ObjectStore, opts InitOptions) (*Location, *Keys, error) {
	if opts.Now == nil || opts.Rand == nil {
		return nil, nil, fmt.Errorf("init %s: %w: Now and Rand are needed", store, ErrInvalid)
	}
	_, err := store.Stat(ctx, locationKey)
	if err == nil {
		return nil, nil, fmt.Errorf("init %s: %w", store, ErrInitialized)
	}
	if !errors.Is(err, plugins.ErrNotFound) {
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	id, err := newUUID(opts.Rand)
	if err != nil {
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	keys, err := generateKeys()
	if err != nil {
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	l := &Location{store: store, info: locationInfo{
		Layout: layoutVersion, ID: id, Created: opts.Now().UTC().Truncate(time.Second), PublicKey: keys.PublicKey(),
	}}
	wrapped, err := l.wrap(ctx, keys, opts.Recipients, opts.Wrappers)
	if err != nil {
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	keyName, err := l.addNumbered(ctx, keysPrefix, ".age", wrapped)
	if err != nil {
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	if err := l.create(ctx); err != nil {
		if errors.Is(err, ErrInitialized) {
			err = errors.Join(err, store.Delete(ctx, keyName)) // our key, of no use to anybody
		}
		return nil, nil, fmt.Errorf("init %s: %w", store, err)
	}
	return l, keys, nil
}

// create writes kedge.json, unless another has.
func (l *Location) create(ctx context.Context) error {
	doc, err := sealJSON(l.info)
	if err != nil {
		return err
	}
	_, err = l.store.Put(ctx, locationKey, bytes.NewReader(doc), plugins.PutOptions{IfNoneMatch: true})
	if !errors.Is(err, plugins.ErrExists) {
		return err
	}
	there, err := readAll(ctx, l.store, locationKey, maxSmall)
	if err == nil && !bytes.Equal(there, doc) {
		err = ErrInitialized
	}
	return err
}

// Open reads kedge.json. The error wraps ErrNotALocation where there is none, and ErrNewerFormat where a newer Kedge
// made it.
func Open(ctx context.Context, store plugins.ObjectStore) (*Location, error) {
	doc, err := readAll(ctx, store, locationKey, maxSmall)
	if errors.Is(err, plugins.ErrNotFound) {
		return nil, fmt.Errorf("open %s: %w", store, ErrNotALocation)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", store, err)
	}
	info, err := parseLocation(doc)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", store, err)
	}
	return &Location{store: store, info: *info}, nil
}

func parseLocation(doc []byte) (*locationInfo, error) {
	damage := func(err error) error {
		return &DamageError{
			File: locationKey, Offset: -1, Detail: "it cannot be read", Err: err,
			Remedy: "check bucket and prefix; backups and keys beside it may still be whole, and docs/format.md says how to write kedge.json anew",
		}
	}
	var head struct{ Layout int }
	if err := decodeJSON(doc, &head, false); err != nil {
		return nil, damage(err)
	}
	if head.Layout > layoutVersion {
		return nil, fmt.Errorf("layout %d: %w", head.Layout, ErrNewerFormat)
	}
	var info locationInfo
	if err := openJSON(doc, &info, false); err != nil {
		return nil, damage(err)
	}
	if info.Layout < 1 || !validUID(info.ID) {
		return nil, damage(fmt.Errorf("layout %d, id %q", info.Layout, info.ID))
	}
	if _, err := age.ParseX25519Recipient(info.PublicKey); err != nil {
		return nil, damage(err)
	}
	return &info, nil
}

// readAll reads a whole object of at most limit bytes.
func readAll(ctx context.Context, store plugins.ObjectStore, key string, limit int64) ([]byte, error) {
	r, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", key, limit, ErrTooLarge)
	}
	return b, nil
}

// numbered is one object of a series <prefix><n><suffix>.
type numbered struct {
	key string
	n   int
}

// series lists such objects, in rising order of n. Other names are ignored.
func (l *Location) series(ctx context.Context, prefix, suffix string) ([]numbered, error) {
	var out []numbered
	err := l.store.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		n, ok := seriesNumber(strings.TrimPrefix(info.Key, prefix), suffix)
		if !ok {
			return nil
		}
		if len(out) == maxSeries {
			return fmt.Errorf("more than %d objects below %s: %w", maxSeries, prefix, ErrTooLarge)
		}
		out = append(out, numbered{info.Key, n})
		return nil
	})
	sortNumbered(out)
	return out, err
}

func seriesNumber(name, suffix string) (int, bool) {
	digits, found := strings.CutSuffix(name, suffix)
	n, err := strconv.Atoi(digits)
	return n, found && err == nil && n >= 1 && n <= 1<<30 && strconv.Itoa(n) == digits
}

// addNumbered puts doc as the next object of a series and returns its key. Of several writers at once each gets a
// number of its own.
func (l *Location) addNumbered(ctx context.Context, prefix, suffix string, doc []byte) (string, error) {
	for range 20 {
		have, err := l.series(ctx, prefix, suffix)
		if err != nil {
			return "", err
		}
		next := 1
		if len(have) > 0 {
			next = have[len(have)-1].n + 1
		}
		key := prefix + strconv.Itoa(next) + suffix
		_, err = l.store.Put(ctx, key, bytes.NewReader(doc), plugins.PutOptions{IfNoneMatch: true})
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, plugins.ErrExists) {
			return "", err
		}
		// Another writer's, or our own with its reply lost.
		if there, err := readAll(ctx, l.store, key, maxSmall); err == nil && bytes.Equal(there, doc) {
			return key, nil
		}
	}
	return "", fmt.Errorf("put %s<n>%s: others were quicker 20 times: %w", prefix, suffix, plugins.ErrExists)
}

func newUUID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

func randomHex(rand io.Reader, digits int) (string, error) {
	b := make([]byte, digits/2)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return hex.EncodeToString(b), nil
}
