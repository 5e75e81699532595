// Package download answers DownloadRequests: logs, reports, lists and objects of backups, verifications. The answer is encrypted to who
// asked. Fetch is the asker's side.
package download

import (
	"context"
	"errors"
	"fmt"
	"time"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/status"
)

// keepFor is how long a request that has its answer stays, for askers that do not remove it.
const keepFor = 5 * time.Minute

// forgetAfter is how long an answer that was written is kept in memory.
const forgetAfter = 5 * time.Second

// Pool makes the answers of a server.
type Pool = pool.Pool[*Part]

// Reconciler answers requests. Answers are made in the pool; a Reconcile only begins that and writes the result.
type Reconciler struct {
	Client  client.Client
	Sources *Sources
	Pool    *Pool
	Now     func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.DownloadRequest{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(r.Pool.Changed()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile brings one request a step further.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.DownloadRequest
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.Pool.ForgetKey(req.NamespacedName) // the asker has gone
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	d := &object
	if !d.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if final(d.Status.Phase) {
		r.Pool.Forget(d.UID)
		return r.expire(ctx, d)
	}
	before := d.DeepCopy()
	work := r.step(d)
	if err := status.Patch(ctx, r.Client, d, before); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if work != nil {
		r.Pool.Start(d.UID, req.NamespacedName, string(d.Spec.Target), work)
	}
	if final(d.Status.Phase) {
		return ctrl.Result{RequeueAfter: forgetAfter}, nil // by then the cache knows, and the pool need not
	}
	return ctrl.Result{}, nil
}

func final(phase v1alpha1.RequestPhase) bool {
	return phase == v1alpha1.RequestDone || phase == v1alpha1.RequestFailed
}

// expire removes a request whose answer had its time.
func (r *Reconciler) expire(ctx context.Context, d *v1alpha1.DownloadRequest) (ctrl.Result, error) {
	if t := d.Status.CompletionTime; t != nil {
		if left := keepFor - r.Now().Sub(t.Time); left > 0 {
			return ctrl.Result{RequeueAfter: left}, nil
		}
	}
	err := r.Client.Delete(ctx, d, client.Preconditions{UID: &d.UID})
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("remove the request: %w", err)
	}
	return ctrl.Result{}, nil
}

// step changes the status, and gives the work that is to begin.
func (r *Reconciler) step(d *v1alpha1.DownloadRequest) pool.Work[*Part] {
	state := r.Pool.State(d.UID)
	switch state.Phase {
	case pool.Queued, pool.Running:
		d.Status.Phase = v1alpha1.RequestInProgress
		if p := state.Progress; p.Done > 0 {
			d.Status.Message = fmt.Sprintf("%d of %d bytes are checked", p.Done, p.Total)
		}
		return nil
	case pool.Ended:
		r.answer(d, state)
		return nil
	case pool.Unknown:
	}
	recipient, err := check(&d.Spec)
	if err != nil {
		r.end(d, v1alpha1.RequestFailed, fmt.Sprintf("read the spec: %s", err))
		return nil
	}
	d.Status.Phase = v1alpha1.RequestInProgress
	spec, namespace := *d.Spec.DeepCopy(), d.Namespace
	return func(ctx context.Context, report func(v1alpha1.Progress)) (*Part, error) {
		return r.part(ctx, namespace, &spec, recipient, report)
	}
}

// part makes the part of the answer that a request asks for.
func (r *Reconciler) part(ctx context.Context, namespace string, spec *v1alpha1.DownloadRequestSpec, recipient age.Recipient, report func(v1alpha1.Progress)) (*Part, error) {
	w, err := newWindow(spec.Offset)
	if err != nil {
		return nil, err
	}
	err = r.Sources.write(ctx, namespace, spec, w, report)
	full := errors.Is(err, errFull)
	if err != nil && !full {
		return nil, err
	}
	return w.seal(spec.Offset, full, recipient)
}

func (r *Reconciler) answer(d *v1alpha1.DownloadRequest, state pool.State[*Part]) {
	if state.Err != nil {
		r.end(d, v1alpha1.RequestFailed, state.Err.Error())
		return
	}
	d.Status.Data, d.Status.NextOffset = state.Result.Data, state.Result.Next
	r.end(d, v1alpha1.RequestDone, "")
}

// maxMessage bounds what is said of a failure, which may quote servers.
const maxMessage = 4000

func (r *Reconciler) end(d *v1alpha1.DownloadRequest, phase v1alpha1.RequestPhase, message string) {
	if runes := []rune(message); len(runes) > maxMessage {
		message = string(runes[:maxMessage]) + "…"
	}
	now := metav1.NewTime(r.Now())
	d.Status.Phase, d.Status.Message, d.Status.CompletionTime = phase, message, &now
}

// check refuses a spec that has no answer, and reads whom the answer is for.
func check(spec *v1alpha1.DownloadRequestSpec) (age.Recipient, error) {
	recipient, err := age.ParseX25519Recipient(spec.Recipient)
	switch {
	case err != nil:
		return nil, fmt.Errorf("spec.recipient: %q is no age recipient: it begins with age1", spec.Recipient)
	case spec.Name == "":
		return nil, errors.New("spec.name: it is empty: name the Backup or the Restore")
	case spec.Offset < 0:
		return nil, errors.New("spec.offset: it is negative")
	}
	switch spec.Target {
	case v1alpha1.DownloadBackupItem:
		if spec.Item == nil || spec.Item.Resource == "" || spec.Item.Name == "" {
			return nil, errors.New("spec.item: resource and name are needed for BackupItem")
		}
	case v1alpha1.DownloadBackupItems:
		if spec.Selection != nil {
			if _, err := selection.Compile(*spec.Selection); err != nil {
				return nil, fmt.Errorf("spec.selection: %w", err)
			}
		}
	case v1alpha1.DownloadBackupLog, v1alpha1.DownloadBackupReport, v1alpha1.DownloadBackupVolumes, v1alpha1.DownloadBackupVerify, v1alpha1.DownloadRestoreLog, v1alpha1.DownloadRestoreReport:
	default:
		return nil, fmt.Errorf("spec.target: %q is not known", spec.Target)
	}
	return recipient, nil
}
