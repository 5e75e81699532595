// Package backup reads the objects of a cluster at one moment and writes them to an archive.
package backup

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// ErrNothingRead means that not one selected resource could be listed; nothing was written.
var ErrNothingRead = errors.New("no resource could be read")

// Engine makes backups of one cluster into one location. Kube, Open, SpoolDir, Now and Rand are needed; the rest has defaults.
type Engine struct {
	Kube *kube.Client
	// Look is who reads which cluster it is, and which APIs it has; nil is Kube. It is another where Kube is an account that may do no more
	// than it must. What is in the cluster is read by Kube alone.
	Look *kube.Client
	// Open opens the location that backups go to, and may refuse the backup. Run calls it once, while the cluster is discovered. At
	// gives one that is open.
	Open    func(context.Context) (*archive.Location, error)
	Version string // of Kedge, for the record
	Now     func() time.Time
	Rand    io.Reader

	// Concurrency is how many lists are read at once; 0 means one more than there are processors, at most 4. The client's limiter slows them down where the server asks.
	Concurrency int
	// PageSize is the number of objects asked for at a time; 0 means kube.DefaultPageSize.
	PageSize int64
	SpoolDir string // a folder for what is waiting to be written; what is put there is encrypted
	Level    int    // of zstd; 0 means 1, which is 2 % larger than the usual 3 and takes two thirds of its time

	Signer    crypto.Signer // Ed25519; nil leaves the backup unsigned
	PublicKey string        // "age1…" that the location must have; "" accepts the location's own

	// Providers know volumes; the first that knows one and can do what the spec asks for takes its data.
	Providers []plugins.VolumeProvider
	// Unconfigured says of a volume whose provider there could be why there is none; it gives nil for others, and may be nil.
	Unconfigured func(*corev1.PersistentVolume) error
	// Repository opens where copies of volumes go; nil means that there can be none.
	Repository func(context.Context) (*repository.Repository, error)
	// Mover has the files of volumes copied that no provider knows; nil means that there is no way to.
	Mover *mover.Mover
	// Exec runs hooks in pods, as the account of Kube; nil means that nobody can.
	Exec hooks.Executor

	Events Events
}

// Events tell what happens while it does. Each may be nil. They are called from many goroutines, one at a time.
type Events struct {
	Progress func(Progress)
	Remark   func(Severity, archive.Remark)
}

// Stage is what a backup is doing.
type Stage string

// The stages, in order. A revision that can no longer be had leads back to StagePin.
const (
	StageDiscover Stage = "discover"
	StagePin      Stage = "pin"
	StageList     Stage = "list"
	StageVolumes  Stage = "volumes"
	StageWrite    Stage = "write"
)

// Progress is how far a backup is.
type Progress struct {
	Stage    Stage
	Resource string // that was finished last: "deployments.apps"
	// ResourcesDone of Resources were read.
	ResourcesDone, Resources int
	// Items were read so far, of about ItemsExpected (the server's own counts; 0 while unknown).
	Items, ItemsExpected int64
	Bytes                int64 // of JSON
	Volumes              volumes.Progress
}

// Request is one backup to be made.
type Request struct {
	Name string
	UID  string // identifies this backup for ever; a repeated UID is refused by the location
	// ClusterName is what people call the cluster.
	ClusterName string
	Labels      map[string]string
	Spec        v1alpha1.BackupSpec
	// RetainUntil asks the store to refuse the removal of what is written; zero asks for nothing.
	RetainUntil time.Time
}

// defaultLevel is zstd's fastest.
const defaultLevel = 1

// Run makes the backup. With an error nothing was written that looks like a backup; else the record is sealed, and its phase says
// whether all that was selected is in it (PhaseCompleted) or the report names what is not (PhasePartiallyFailed).
func (e *Engine) Run(ctx context.Context, req Request) (*archive.Record, error) {
	started := e.Now()
	p, err := e.prepare(req)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", req.Name, err)
	}
	opts := archive.WriteOptions{
		Name: req.Name, UID: req.UID, PublicKey: e.PublicKey, Signer: e.Signer, RetainUntil: req.RetainUntil,
		SpoolDir: e.SpoolDir, Level: cmp.Or(e.Level, defaultLevel), Kedge: e.Version, Now: e.Now, Rand: e.Rand,
	}
	location, first, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	record, err := location.Write(ctx, opts, func(ctx context.Context, w *archive.Writer) (_ *archive.Summary, err error) {
		thawed, err := p.thaw(ctx, location, first.cluster.UID)
		if err != nil {
			return nil, err
		}
		defer func() {
			if err != nil { // no report will name them
				err = errors.Join(err, thawed.Frozen())
			}
		}()
		result, err := p.read(ctx, &writerSink{w}, first)
		if err != nil {
			return nil, err
		}
		result.remarks.take(thawed)
		taken, err := p.takeVolumes(ctx, result, location.ID(), w, started)
		if err != nil {
			return nil, err
		}
		result.remarks.publish(p.Events)
		p.progress.stage(StageWrite)
		summary := p.summary(result, started)
		summary.Volumes, summary.SnapshotPlaces = taken.Volumes, taken.Places
		return summary, nil
	})
	if err != nil {
		if !errors.Is(err, archive.ErrUncertain) {
			err = errors.Join(err, p.discardVolumes(ctx, location.ID()))
		}
		return nil, fmt.Errorf("back up %s: %w", req.Name, err)
	}
	return record, nil
}

// At is for Engine.Open: a location that is open already.
func At(location *archive.Location) func(context.Context) (*archive.Location, error) {
	return func(context.Context) (*archive.Location, error) { return location, nil }
}

// begin opens the location and discovers the cluster at the same time: neither needs the other, and each is a few round trips. Where both
// fail, the location's error counts, so that errors do not depend on which was quicker; it is whole already.
func (p *pass) begin(ctx context.Context) (location *archive.Location, first *reading, err error) {
	first = newReading(p)
	exploring, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return first.explore(exploring) })
	if location, err = p.Open(ctx); err != nil {
		stop()
	}
	exploreErr := g.Wait()
	if err == nil && exploreErr != nil {
		err = fmt.Errorf("back up %s: %w", p.req.Name, exploreErr)
	}
	return location, first, err
}

// Preview reads everything that Run would and writes nothing.
func (e *Engine) Preview(ctx context.Context, req Request) (*Preview, error) {
	p, err := e.prepare(req)
	if err != nil {
		return nil, fmt.Errorf("preview %s: %w", req.Name, err)
	}
	counts := &countingSink{}
	result, err := p.read(ctx, counts, nil)
	if err != nil {
		return nil, fmt.Errorf("preview %s: %w", req.Name, err)
	}
	result.remarks.publish(p.Events)
	report := result.report()
	return &Preview{
		Cluster: result.cluster, Revision: result.revision, Phase: phase(report), Resources: counts.sorted(), Report: report,
	}, nil
}

// Preview is what a backup would hold.
type Preview struct {
	Cluster   v1alpha1.ClusterInfo
	Revision  string
	Phase     v1alpha1.Phase
	Resources []ResourceCount // by group, resource and version; those without objects are left out
	Report    archive.Report
}

// ResourceCount is how much of one resource a backup would hold.
type ResourceCount struct {
	Group, Version, Resource string
	Items                    int
	Bytes                    int64
}

// pass is one run of the engine with all that does not change when a new revision is pinned.
type pass struct {
	*Engine
	req      Request
	matcher  *selection.Matcher
	policies *volumes.Policies
	hooks    *hooks.Set
	also     []string
	progress *progress
	attempt  string // whose snapshots the providers in asked may have; "" where none was asked for
	asked    []plugins.VolumeProvider
}

// prepare checks the request.
func (e *Engine) prepare(req Request) (*pass, error) {
	matcher, err := selection.Compile(req.Spec.Selection)
	if err != nil {
		return nil, err
	}
	if err := checkAlsoVersions(req.Spec.AlsoVersions); err != nil {
		return nil, err
	}
	policies, err := volumes.Compile(req.Spec.Volumes)
	if err != nil {
		return nil, err
	}
	set, err := hooks.Compile(req.Spec.Hooks)
	if err != nil {
		return nil, err
	}
	return &pass{Engine: e, req: req, matcher: matcher, policies: policies, hooks: set, also: req.Spec.AlsoVersions, progress: newProgress(e.Events)}, nil
}

func (p *pass) summary(r *reading, started time.Time) *archive.Summary {
	report := r.report()
	s := &archive.Summary{
		Labels: p.req.Labels, Spec: p.req.Spec, Cluster: r.cluster, Phase: phase(report), Revision: r.revision,
		Started: started, APIs: r.apis(), Report: report,
	}
	s.Spec.Hooks = hooks.Shown(s.Spec.Hooks)
	if ttl := p.req.Spec.TTL.Duration; ttl > 0 {
		at := started.Add(ttl)
		s.Expires = &at
	}
	return s
}

// phase follows from what was counted.
func phase(r archive.Report) v1alpha1.Phase {
	if len(r.Errors) > 0 {
		return v1alpha1.PhasePartiallyFailed
	}
	return v1alpha1.PhaseCompleted
}

// maxPins bounds how often a lost revision is replaced by a new one.
const maxPins = 5

// read reads everything at one revision, and again with a new one until the revision outlives the reading. It begins with what first
// has explored, if that is not nil.
func (p *pass) read(ctx context.Context, s sink, first *reading) (*reading, error) {
	for n, r := 1, first; ; n++ {
		if r == nil {
			r = newReading(p)
			if err := r.explore(ctx); err != nil {
				return nil, err
			}
		}
		err := r.run(ctx, s)
		if err == nil {
			return r, nil
		}
		r.abort()
		if !errors.Is(err, kube.ErrRevisionGone) || ctx.Err() != nil {
			return nil, err
		}
		if n == maxPins {
			return nil, fmt.Errorf("%d times the revision was compacted away or lost before all was read: %w: make the API server faster for Kedge, or select less for one backup", n, err)
		}
		s.log(ctx, slog.LevelWarn, "the revision is gone, a new one is pinned", slog.Int("attempt", n), slog.String("error", err.Error()))
		r = nil
	}
}

// explore learns what there is to read, and pins the revision; it needs no place to write to.
func (r *reading) explore(ctx context.Context) error {
	r.progress.stage(StageDiscover)
	if err := r.discover(ctx); err != nil {
		return err
	}
	return r.firstReading(ctx)
}

// run reads what explore has found, at the revision that it has pinned.
func (r *reading) run(ctx context.Context, s sink) error {
	r.sink = s
	if err := r.definitionsErr; err != nil {
		s.log(ctx, slog.LevelWarn, "the definitions of custom resources cannot be read", slog.String("error", err.Error()))
	}
	if err := r.pinAndList(ctx); err != nil {
		return err
	}
	if err := r.related(ctx); err != nil {
		return err
	}
	return r.finish(ctx)
}
