package volumes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// Tags that every snapshot of Kedge has, so that it is found again by whoever lost sight of it.
const (
	TagLocation = "kedge.dev/location"   // the location's id
	TagBackup   = "kedge.dev/backup"     // the backup's name
	TagUID      = "kedge.dev/backup-uid" // the backup's uid
	TagAttempt  = "kedge.dev/attempt"    // the attempt of the archive
	TagCluster  = "kedge.dev/cluster-uid"
	TagClaim    = "kedge.dev/claim" // "namespace/name"
	// TagRole is RoleBase on a snapshot that the backup does not keep for itself: the volume's next copy is compared with it.
	// RoleTemporary is on what is there only until its files are copied.
	TagRole       = "kedge.dev/role"
	RoleBase      = "base"
	RoleTemporary = "temporary"
)

// Reasons of remarks about volumes.
const (
	ReasonVolumeSkipped  = "VolumeSkipped"        // a policy leaves the data out
	ReasonVolumeUnbound  = "VolumeUnbound"        // the claim has no volume, so there is no data
	ReasonVolumeMissing  = "VolumeMissing"        // the PersistentVolume, or what it names, does not exist
	ReasonNoProvider     = "NoVolumeProvider"     // nobody knows the volume's driver, or can do what the policy asks for
	ReasonSnapshotFailed = "VolumeSnapshotFailed" // the provider did not make the snapshot
	ReasonCopyFailed     = "VolumeCopyFailed"
	// ReasonSnapshotCopyFailed: the snapshot is there, but not its copy in another region or account.
	ReasonSnapshotCopyFailed = "SnapshotCopyFailed"
	ReasonFilesMissing       = "VolumeFilesMissing" // the copy was made, but some files could not be read
	ReasonHookFailed         = "HookFailed"         // a command in a pod failed, or could not be run
	ReasonHookSkipped        = "HookSkipped"        // the pod does not run
)

// parallel is how many requests for snapshots are under way at once; the providers' own limits are theirs to obey.
const parallel = 4

// Taker takes the data of claims. Kube, Now and Sleep are needed.
type Taker struct {
	Kube      *kube.Client
	Providers []plugins.VolumeProvider
	// Unconfigured says of a volume whose provider there could be why there is none; it gives nil for others, and may be nil.
	Unconfigured func(*corev1.PersistentVolume) error
	Now          func() time.Time
	// Sleep waits, or returns the context's error.
	Sleep func(context.Context, time.Duration) error
	// Repository opens where copies go. It is called when the first copy is about to be made; nil means that there can be none.
	Repository func(context.Context) (*repository.Repository, error)
	// Mover has the files of volumes copied that no provider knows; nil means that it cannot be done here.
	Mover *mover.Mover
	// Progress tells how far the volumes are, one call at a time. It may be nil.
	Progress func(Progress)

	// Hooks are the spec's; nil where it has none. Pods may have some all the same.
	Hooks *hooks.Set
	// Exec runs them; nil means that nobody can, so that each of them fails.
	Exec hooks.Executor
	// Freeze notes the pods that commands are about to run in, before the first of them. It may be nil.
	Freeze func(ctx context.Context, uids []string) (Note, error)

	asked []plugins.VolumeProvider
	count *counter
}

// Asked are the providers that were asked for snapshots, which may be there now. Others are asked for nothing: a cluster outside of their reach may have
// none that answers.
func (t *Taker) Asked() []plugins.VolumeProvider { return t.asked }

// Request is what one backup wants.
type Request struct {
	// LocationID, Name, UID, Attempt and ClusterUID identify the backup in the tags of snapshots.
	LocationID, Name, UID, Attempt, ClusterUID string
	// Began is when this attempt began. Snapshots of other attempts that are younger are not touched: they are of somebody who took over.
	Began    time.Time
	Claims   []Claim
	Policies *Policies
	// Pods are those whose hooks run.
	Pods []hooks.Pod
}

// Result is what became of the claims.
type Result struct {
	Volumes []archive.Volume
	// Errors name claims whose data should be in the backup and is not, and pods whose hooks failed; Skipped those that it was not asked of.
	Errors, Warnings, Skipped []archive.Remark
	Notes                     []string
	// Places are where copies of the volumes' snapshots are, or may be.
	Places []plugins.Place

	mu     sync.Mutex
	owed   []*freezeGroup // with post hooks that failed
	frozen []string       // as of a FrozenError
}

func (r *Result) fail(c *Claim, reason, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Errors = append(r.Errors, remark(c.Ref(), reason, format, args...))
}

func (r *Result) skip(c *Claim, reason, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Skipped = append(r.Skipped, remark(c.Ref(), reason, format, args...))
}

func (r *Result) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// hook tells of a pod's hook that failed.
func (r *Result) hook(p *hooks.Pod, mode v1alpha1.HookErrorMode, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := remark(p.Ref(), ReasonHookFailed, "%v", err)
	if mode == v1alpha1.HookContinue {
		r.Warnings = append(r.Warnings, m)
	} else {
		r.Errors = append(r.Errors, m)
	}
}

func remark(ref plugins.Ref, reason, format string, args ...any) archive.Remark {
	return archive.Remark{Ref: &ref, Resource: ref.GroupResource(), Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// taking is one claim whose data is taken.
type taking struct {
	claim    *Claim
	pv       *corev1.PersistentVolume
	method   v1alpha1.VolumeMethod
	provider plugins.VolumeProvider
	handle   string
	storage  string // what a mover calls it, where it is to copy its files: from a clone of the provider's snapshot, or live where there is no provider
	source   plugins.Volume
	snapshot plugins.Snapshot
	missed   int // looks in a row that did not see the snapshot
	copyID   string
	taken    time.Time
	err      error
	reason   string

	copiesElsewhere bool // copies of its snapshot in other places are wanted
	elsewhere       []archive.SnapshotCopy
}

// Take takes the data of the claims, with the hooks of pods around it. What fails for one claim or pod is in the result; an error means that nothing
// can be said of any; it wraps a *FrozenError where pods may be frozen yet. Snapshots that an earlier attempt of the same backup left are removed first.
func (t *Taker) Take(ctx context.Context, req Request) (*Result, error) {
	r := &Result{}
	if err := t.settle(ctx, r, t.take(ctx, req, r)); err != nil {
		return nil, err
	}
	return r, nil
}

func (t *Taker) take(ctx context.Context, req Request, r *Result) error {
	todo, err := t.plan(ctx, req, r)
	if err != nil {
		return err
	}
	t.count = newCounter(len(todo), t.Progress)
	t.count.done()
	known, others := split(todo)
	copies := t.fileCopies(req, withFiles(todo), r)
	// Before forget: a mover of an earlier attempt holds the clone that it reads, which could not be removed before.
	if err := copies.begin(ctx); err != nil {
		return err
	}
	if len(known) > 0 {
		t.asked = providersOf(known)
		if err := errors.Join(t.describe(ctx, known), t.forget(ctx, req, r)); err != nil {
			return err
		}
		t.forgetElsewhere(ctx, req, r)
	}
	t.describeFolders(ctx, others, r)
	free, err := t.freeze(ctx, req, todo, copies)
	if err != nil {
		return err
	}
	if err := t.finishKnown(ctx, req, known, copies); err != nil {
		return err
	}
	if err := copies.finish(ctx, free); err != nil {
		return err
	}
	for _, v := range todo {
		if v.err != nil {
			r.fail(v.claim, v.reason, "%v", v.err)
			continue
		}
		r.Volumes = append(r.Volumes, v.row())
	}
	return nil
}

// providersOf are those of the volumes, each once.
func providersOf(known []*taking) (all []plugins.VolumeProvider) {
	for _, v := range known {
		if !slices.Contains(all, v.provider) {
			all = append(all, v.provider)
		}
	}
	return all
}

// finishKnown follows the snapshots to their completion, and makes the copies that are made of them, here and elsewhere at the same time: the one keeps
// this process busy, the other AWS.
func (t *Taker) finishKnown(ctx context.Context, req Request, known []*taking, files *fileCopies) error {
	if len(known) == 0 {
		return nil
	}
	if err := t.wait(ctx, req, known); err != nil {
		return err
	}
	r := files.result
	all := forElsewhere(known, len(req.Policies.copies), r)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.copyElsewhere(gctx, req, all) })
	g.Go(func() error { return t.copies(gctx, req, known) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := files.ofClones(ctx, known); err != nil {
		return err
	}
	if len(all) > 0 {
		r.Places = placesOf(req)
	}
	return t.tidy(ctx, req, known, tellElsewhere(all, r), r)
}

// tidy removes the snapshots of this attempt that no row names: of a group that failed in part, of a volume that could not be copied, and those
// whose files are copied. unused says that there are some elsewhere.
func (t *Taker) tidy(ctx context.Context, req Request, todo []*taking, unused bool, r *Result) error {
	used, needless, failed := map[string]bool{}, unused, false
	for _, v := range todo {
		keeps := v.err == nil && (v.storage == "" || v.method.Snapshots())
		needless, failed = needless || !keeps, failed || v.err != nil
		used[v.snapshot.ID] = used[v.snapshot.ID] || keeps
		for _, c := range v.elsewhere {
			used[c.ID] = used[c.ID] || keeps
		}
	}
	if !needless {
		return nil
	}
	doomed := func(m *made) bool { return m.volume || !used[m.id] }
	tags := map[string]string{TagLocation: req.LocationID, TagAttempt: req.Attempt}
	if there, err := Elsewhere(t.asked, placesOf(req)); err == nil {
		// One that cannot be asked refused a copy, most likely, so there is nothing; what is there is an orphan as long as the backup is not deleted.
		_ = removeIf(ctx, there, tags, doomed)
	}
	others, clusters := byCluster(t.asked)
	if err := removeIf(ctx, others, tags, doomed); err != nil && failed && ctx.Err() == nil {
		return fmt.Errorf("remove snapshots that came to nothing: %w", err)
	} else if err != nil && ctx.Err() == nil {
		notRemoved(req, r, err)
	}
	if err := removeSoon(ctx, clusters, tags, doomed); err != nil && ctx.Err() == nil {
		notRemoved(req, r, err)
	}
	return context.Cause(ctx)
}

func notRemoved(req Request, r *Result, err error) {
	r.note("snapshots that this backup does not keep, and clones of them, could not all be removed yet (they have the tag %s=%s): %v", TagAttempt, req.Attempt, err)
}

func (v *taking) fail(reason string, err error) {
	if v.err == nil {
		v.err, v.reason = err, reason
	}
}

// unit is the storage behind the claim: several claims may have one.
func (v *taking) unit() string {
	if v.storage != "" {
		return "files/" + v.storage
	}
	return v.provider.Name() + "/" + v.handle
}

func (v *taking) row() archive.Volume {
	row := archive.Volume{
		Namespace: v.claim.Namespace, Claim: v.claim.Name, ClaimUID: v.claim.UID, Volume: v.claim.Volume,
		Source: v.source, Taken: v.taken.UTC().Round(0), CopyID: v.copyID,
	}
	if v.provider == nil {
		row.Provider, row.CopyKind = mover.Provider, files.Kind
		return row
	}
	row.Provider = v.provider.Name()
	switch {
	case v.storage != "":
		row.CopyKind = files.Kind
	case v.copyID != "":
		row.CopyKind = block.Kind
	}
	if v.method.Snapshots() {
		row.SnapshotID, row.SnapshotCopies = v.snapshot.ID, v.elsewhere
	}
	return row
}

// plan finds the volume, the method and the provider of each claim.
func (t *Taker) plan(ctx context.Context, req Request, r *Result) ([]*taking, error) {
	if req.Policies.Nothing() {
		if n := len(req.Claims); n > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("the data of %d claims is not in this backup: spec.volumes is not set", n))
		}
		return nil, nil
	}
	pvs, err := t.persistentVolumes(ctx, req.Claims)
	if err != nil {
		return nil, err
	}
	var todo []*taking
	for i := range req.Claims {
		c := &req.Claims[i]
		if c.Volume == "" {
			r.skip(c, ReasonVolumeUnbound, "the claim is not bound to a volume, so there is no data")
			continue
		}
		pv, ok := pvs[c.Volume]
		if !ok {
			r.fail(c, ReasonVolumeMissing, "PersistentVolume %s does not exist", c.Volume)
			continue
		}
		method := req.Policies.Method(c, pv)
		if method == v1alpha1.VolumeSkip {
			r.skip(c, ReasonVolumeSkipped, "spec.volumes leaves the data of this claim out")
			continue
		}
		v := &taking{claim: c, pv: pv, method: method}
		if t.provide(v); v.provider == nil {
			if t.Unconfigured != nil {
				if err := t.Unconfigured(pv); err != nil {
					r.fail(c, ReasonNoProvider, "%v", err)
					continue
				}
			}
			if why := t.provideFiles(v); why != "" {
				r.fail(c, ReasonNoProvider, "no provider can take a %s of a volume of driver %q%s: choose another method for it in spec.volumes.policies", method, Driver(pv), why)
				continue
			}
			t.provideClone(v)
		}
		todo = append(todo, v)
	}
	return todo, nil
}

// provide finds who knows the volume and can do what is asked for.
func (t *Taker) provide(v *taking) {
	for _, p := range t.Providers {
		handle, ok := p.Handle(v.pv)
		_, snapshots := p.(plugins.VolumeSnapshotter)
		_, blocks := p.(plugins.BlockSnapshots)
		if ok && (blocks && t.Repository != nil || snapshots && !v.method.Copies()) {
			v.provider, v.handle = p, handle
			return
		}
	}
}

// persistentVolumes reads the volumes of the claims.
func (t *Taker) persistentVolumes(ctx context.Context, claims []Claim) (map[string]*corev1.PersistentVolume, error) {
	out := map[string]*corev1.PersistentVolume{}
	wanted := map[string]bool{}
	for i := range claims {
		wanted[claims[i].Volume] = claims[i].Volume != ""
	}
	res := kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	_, err := t.Kube.List(ctx, kube.ListRequest{Path: res.Path("", "")}, func(raw []byte) error {
		var pv corev1.PersistentVolume
		if err := json.Unmarshal(raw, &pv); err != nil {
			return fmt.Errorf("read a PersistentVolume: %w", err)
		}
		if wanted[pv.Name] {
			out[pv.Name] = &pv
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the PersistentVolumes of the claims: %w", err)
	}
	return out, nil
}

// describe asks the providers about all volumes at once.
func (t *Taker) describe(ctx context.Context, todo []*taking) error {
	for _, p := range t.Providers {
		var handles []string
		for _, v := range todo {
			if v.provider == p {
				handles = append(handles, v.handle)
			}
		}
		if len(handles) == 0 {
			continue
		}
		slices.Sort(handles)
		known, err := p.Describe(ctx, slices.Compact(handles))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, v := range todo {
			if v.provider != p {
				continue
			}
			source, ok := known[v.handle]
			switch {
			case err != nil:
				v.fail(ReasonSnapshotFailed, err)
			case !ok:
				v.fail(ReasonVolumeMissing, fmt.Errorf("PersistentVolume %s names the volume %s, which %s does not know: it was deleted, or is of another account or region", v.pv.Name, v.handle, p.Name()))
			}
			v.source = source
		}
	}
	return nil
}

// forget removes what earlier attempts of this backup left: their objects are of another moment.
func (t *Taker) forget(ctx context.Context, req Request, r *Result) error {
	others, clusters := byCluster(t.asked)
	if err := removeEarlier(ctx, others, req, removeIf); err != nil {
		return fmt.Errorf("remove the snapshots of an earlier attempt: %w", err)
	}
	if err := removeEarlier(ctx, clusters, req, removeSoon); err != nil && ctx.Err() == nil {
		r.note("snapshots that an earlier attempt left could not all be removed (they have the tag %s=%s): %v", TagUID, req.UID, err)
	}
	return context.Cause(ctx)
}
