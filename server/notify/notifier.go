package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
)

// NotifiedAnnotation is the id of the newest notice of an object that every webhook which wants it has received.
const NotifiedAnnotation = "kedge.dev/notified"

// The waits between attempts.
const (
	firstWait = 5 * time.Second
	longest   = 5 * time.Minute
)

// Options say how a Notifier works. All but Metrics are needed.
type Options struct {
	Client client.Client
	Config *Config
	// OwnCluster gives the uid of the server's cluster; ClusterName is what people call it.
	OwnCluster  func(ctx context.Context) (string, error)
	ClusterName string
	// UserAgent names the server to receivers: "kedge/v0.1.0".
	UserAgent string
	Metrics   *metrics.Recorder
	// Gate is passed by each attempt. Nil is always open.
	Gate *gate.Gate
	Now  func() time.Time
	// Rand gives a number from 0 up to 1, for waits that do not all end at once.
	Rand func() float64
}

// Notifier tells webhooks what there is to be told of objects. It looks at objects and not at events: what ended while no server was there is
// told by the next one. An object is marked once all have been told; a crash before that has some told again, under the same id.
type Notifier struct {
	opts    Options
	targets []*target

	mu      sync.Mutex
	pending map[string]*delivery // by kind and name
}

// target is a webhook and how it does.
type target struct {
	hook   *Webhook
	client *http.Client

	mu       sync.Mutex
	failures int
	until    time.Time // it rests until then: one outage is not tried once for each notice
}

// delivery is how far one notice is.
type delivery struct {
	id       string
	done     map[string]bool
	attempts map[string]int
	next     map[string]time.Time
}

// New makes a notifier.
func New(opts Options) *Notifier {
	n := &Notifier{opts: opts, pending: map[string]*delivery{}}
	for i := range opts.Config.Webhooks {
		hook := &opts.Config.Webhooks[i]
		n.targets = append(n.targets, &target{hook: hook, client: newClient(hook, opts.Gate)})
	}
	return n
}

// SetupWithManager registers a controller for each kind that there is something to be told of.
func (n *Notifier) SetupWithManager(mgr ctrl.Manager) error {
	var errs []error
	for _, kind := range []client.Object{&v1alpha1.Backup{}, &v1alpha1.Restore{}, &v1alpha1.Schedule{}} {
		name := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", kind), "*v1alpha1."))
		errs = append(errs, ctrl.NewControllerManagedBy(mgr).
			Named("notify-"+name).
			For(kind, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return len(n.due(o)) > 0 || !o.GetDeletionTimestamp().IsZero() }))).
			WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
			Complete(n.Reconciler(kind)))
	}
	return errors.Join(errs...)
}

// Reconciler gives the reconciler of one kind, of which kind is any object.
func (n *Notifier) Reconciler(kind client.Object) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		object, ok := kind.DeepCopyObject().(client.Object)
		if !ok {
			return reconcile.Result{}, fmt.Errorf("notify: %T is no object", kind)
		}
		key := fmt.Sprintf("%T %s", kind, req.NamespacedName)
		if err := n.opts.Client.Get(ctx, req.NamespacedName, object); err != nil {
			n.forget(key)
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
		return n.tell(ctx, key, object)
	})
}

// due gives the targets that are to be told of an object now; none where they have been.
func (n *Notifier) due(object client.Object) []*target {
	what := noticeOf(object)
	if what == nil || object.GetAnnotations()[NotifiedAnnotation] == what.id || n.opts.Now().Sub(what.time) > n.opts.Config.MaxAge.Duration {
		return nil
	}
	var out []*target
	for _, t := range n.targets {
		if t.hook.wants(what) {
			out = append(out, t)
		}
	}
	return out
}

// tell makes at most one attempt at each webhook, and says when to come again.
func (n *Notifier) tell(ctx context.Context, key string, object client.Object) (reconcile.Result, error) {
	targets := n.due(object)
	if len(targets) == 0 {
		n.giveUp(ctx, key, object)
		return reconcile.Result{}, nil
	}
	uid, err := n.opts.OwnCluster(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("notify of %s: %w", client.ObjectKeyFromObject(object), err)
	}
	what := noticeOf(object)
	what.data.Cluster = Cluster{UID: uid, Name: n.opts.ClusterName}
	d := n.begin(key, what.id)
	waits := make([]time.Duration, len(targets))
	var group errgroup.Group // one that hangs keeps no other from being told
	for i, t := range targets {
		group.Go(func() error {
			waits[i] = n.attempt(ctx, t, d, what)
			return nil
		})
	}
	_ = group.Wait() // the attempts return no errors
	if outcome.Stopped(ctx) {
		return reconcile.Result{}, nil
	}
	var soonest time.Duration
	for _, w := range waits {
		if w > 0 && (soonest == 0 || w < soonest) {
			soonest = w
		}
	}
	if soonest > 0 {
		return reconcile.Result{RequeueAfter: soonest}, nil
	}
	return reconcile.Result{}, n.mark(ctx, key, object, what.id)
}

// attempt makes one attempt where it is time for one, and gives the wait before the next; 0 is done.
func (n *Notifier) attempt(ctx context.Context, t *target, d *delivery, what *notice) time.Duration {
	now, name := n.opts.Now(), t.hook.Name
	n.mu.Lock()
	done, next := d.done[name], d.next[name]
	n.mu.Unlock()
	if done {
		return 0
	}
	t.mu.Lock()
	if t.until.After(next) {
		next = t.until
	}
	t.mu.Unlock()
	if wait := next.Sub(now); wait > 0 {
		return n.spread(wait)
	}
	err := send(ctx, t.client, t.hook, what, n.opts.UserAgent, now)
	if ctx.Err() != nil {
		return longest
	}
	wait := n.note(t, d, err)
	logger := log.FromContext(ctx).WithValues("webhook", name, "event", what.data.Event, "id", what.id)
	if err != nil {
		n.opts.Metrics.NotifyRetried(name)
		logger.Error(err, "A notification was not taken; it is sent again", "after", wait.String())
		return n.spread(wait)
	}
	n.opts.Metrics.Notified(name, string(what.data.Event), true)
	logger.V(1).Info("A notification was delivered")
	return 0
}

// note remembers how an attempt went and gives the wait before the next.
func (n *Notifier) note(t *target, d *delivery, err error) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	name := t.hook.Name
	if err == nil {
		d.done[name] = true
		t.failures, t.until = 0, time.Time{}
		return 0
	}
	now := n.opts.Now()
	refused, ok := errors.AsType[*refusal](err)
	if ok && refused.about() { // others may be taken
		wait := backoff(d.attempts[name])
		d.attempts[name]++
		d.next[name] = now.Add(wait)
		return wait
	}
	if t.until.After(now) { // another notice met the same outage at the same time
		return t.until.Sub(now)
	}
	wait := backoff(t.failures)
	if ok {
		wait = max(wait, min(refused.after, longest))
	}
	t.failures++
	t.until = now.Add(wait)
	return wait
}

func backoff(failures int) time.Duration {
	return min(firstWait<<min(failures, 10), longest)
}

// spread makes a wait up to a fifth longer.
func (n *Notifier) spread(wait time.Duration) time.Duration {
	return wait + time.Duration(n.opts.Rand()*float64(wait)/5)
}

// begin gives how far a notice is.
func (n *Notifier) begin(key, id string) *delivery {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.pending[key]
	if d == nil || d.id != id {
		d = &delivery{id: id, done: map[string]bool{}, attempts: map[string]int{}, next: map[string]time.Time{}}
		n.pending[key] = d
	}
	return d
}

func (n *Notifier) forget(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pending, key)
}

// giveUp counts what was tried in vain until it was too old. What was marked meanwhile, or is over, is only forgotten.
func (n *Notifier) giveUp(ctx context.Context, key string, object client.Object) {
	n.mu.Lock()
	d := n.pending[key]
	delete(n.pending, key)
	n.mu.Unlock()
	what := noticeOf(object)
	if d == nil || what == nil || d.id != what.id || object.GetAnnotations()[NotifiedAnnotation] == what.id {
		return
	}
	for _, t := range n.targets {
		if t.hook.wants(what) && !d.done[t.hook.Name] {
			n.opts.Metrics.Notified(t.hook.Name, string(what.data.Event), false)
			log.FromContext(ctx).Error(errors.New("it is too old"), "A notification is given up", "webhook", t.hook.Name, "event", what.data.Event, "id", what.id)
		}
	}
}

// mark notes on the object that all have been told. It is refused where anybody changed the object meanwhile; then it is looked at again.
func (n *Notifier) mark(ctx context.Context, key string, object client.Object, id string) error {
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("notify: %T is no object", object)
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[NotifiedAnnotation] = id
	object.SetAnnotations(annotations)
	err := n.opts.Client.Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return client.IgnoreNotFound(fmt.Errorf("note that webhooks were told of %s: %w", types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}, err))
	}
	n.forget(key)
	return nil
}
