// Package journal keeps what a restore must not lose when its server dies in the API server, as Secrets beside the Restore object: the
// journal by which another server goes on, the report, and the log. They go when the Restore object is deleted.
package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// The labels of the Secrets: the restore's uid, and what the Secret is a part of.
const (
	RestoreLabel = "kedge.dev/restore-uid"
	PartLabel    = "kedge.dev/restore-part"
)

// SecretType is the type of the Secrets.
const SecretType corev1.SecretType = "kedge.dev/restore" //nolint:gosec // the name of a type, no credential

const (
	dataKey   = "data"   // zstd
	writerKey = "writer" // who wrote it
	digits    = 6
)

// maxSecret bounds the data of one Secret; the API server takes 1 MiB in all.
const maxSecret = 900 << 10

// ErrFenced means that another process writes to the series: this one must stop.
var ErrFenced = errors.New("another process has taken the restore over")

// Store is where the Secrets of one restore are.
type Store struct {
	// Client writes and reads Secrets, not from a cache.
	Client client.Client
	// Lister lists them, not from a cache.
	Lister client.Reader
	// Owner is the Restore.
	Owner *v1alpha1.Restore
	// Writer tells this process from others.
	Writer string
}

// series is one numbered row of Secrets: kedge-<part>-<uid>-000001 and on. A Secret is created, and never changed.
type series struct {
	*Store
	part string
}

func (s series) name(n int) string {
	return fmt.Sprintf("kedge-%s-%s-%0*d", s.part, s.Owner.UID, digits, n)
}

// member is one Secret of a series as it was listed.
type member struct {
	n   int
	uid types.UID
}

// numbers gives what is there, in order.
func (s series) numbers(ctx context.Context) ([]int, error) {
	all, err := s.members(ctx)
	out := make([]int, len(all))
	for i := range all {
		out[i] = all[i].n
	}
	return out, err
}

// members gives what is there, in order.
func (s series) members(ctx context.Context) ([]member, error) {
	var all []member
	opts := []client.ListOption{
		client.InNamespace(s.Owner.Namespace), client.MatchingLabels{RestoreLabel: string(s.Owner.UID), PartLabel: s.part}, client.Limit(500),
	}
	for next := ""; ; {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
		if err := s.Lister.List(ctx, list, append(slices.Clone(opts), client.Continue(next))...); err != nil {
			return nil, fmt.Errorf("list the %s of restore %s: %w", s.part, s.Owner.Name, err)
		}
		prefix := strings.TrimSuffix(s.name(0), strings.Repeat("0", digits))
		for i := range list.Items {
			digits, ours := strings.CutPrefix(list.Items[i].Name, prefix)
			n, err := strconv.Atoi(digits)
			if !ours || err != nil || n < 1 || list.Items[i].Name != s.name(n) {
				continue
			}
			all = append(all, member{n, list.Items[i].UID})
		}
		if next = list.Continue; next == "" {
			slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.n, b.n) })
			return all, nil
		}
	}
}

// get reads the data of one Secret.
func (s series) get(ctx context.Context, n int) ([]byte, error) {
	var secret corev1.Secret
	if err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Owner.Namespace, Name: s.name(n)}, &secret); err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", s.name(n), err)
	}
	data, ok := secret.Data[dataKey]
	if !ok {
		return nil, s.damaged(n, errors.New("it has no key \""+dataKey+"\""))
	}
	return data, nil
}

// damaged names a Secret that does not hold what was written.
func (s series) damaged(n int, err error) error {
	return fmt.Errorf("read Secret %s: %w: %w: it was changed, or a disk lost it; create a new Restore: what is in the cluster already is found there", s.name(n), ErrDamaged, err)
}

// ErrDamaged means that a Secret does not hold what was written to it.
var ErrDamaged = errors.New("it is damaged")

// create writes one Secret. Where there is one already, it is ErrFenced unless this very call wrote it without hearing of it.
func (s series) create(ctx context.Context, n int, data []byte) error {
	if len(data) > maxSecret {
		return fmt.Errorf("write Secret %s: %d bytes are more than one can hold (%d)", s.name(n), len(data), maxSecret)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Owner.Namespace, Name: s.name(n),
			Labels: map[string]string{RestoreLabel: string(s.Owner.UID), PartLabel: s.part, v1alpha1.ExcludeLabel: "true"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "Restore", Name: s.Owner.Name, UID: s.Owner.UID,
			}},
		},
		Type: SecretType, Immutable: new(true), Data: map[string][]byte{dataKey: data, writerKey: []byte(s.Writer)},
	}
	err := retried(ctx, func(ctx context.Context) error { return s.Client.Create(ctx, secret.DeepCopy()) })
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return fmt.Errorf("write Secret %s: %w", s.name(n), err)
		}
		return nil
	}
	var there corev1.Secret
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(secret), &there); err != nil {
		return fmt.Errorf("write Secret %s: look at the one that is there: %w", s.name(n), err)
	}
	if bytes.Equal(there.Data[writerKey], []byte(s.Writer)) && bytes.Equal(there.Data[dataKey], data) {
		return nil
	}
	return fmt.Errorf("write Secret %s: it exists: %w", s.name(n), ErrFenced)
}

// remove deletes Secrets of the series, those that were listed and no others: what has come under the same name since is another process's.
func (s series) remove(ctx context.Context, members []member) error {
	for _, m := range members {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Owner.Namespace, Name: s.name(m.n)}}
		err := retried(ctx, func(ctx context.Context) error {
			return s.Client.Delete(ctx, secret, client.Preconditions{UID: &m.uid})
		})
		if apierrors.IsConflict(err) {
			return fmt.Errorf("remove Secret %s: %w", s.name(m.n), ErrFenced)
		}
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove Secret %s: %w", s.name(m.n), err)
		}
	}
	return nil
}

// The patience with an API server that does not answer.
const (
	tries      = 6
	tryFor     = 10 * time.Second
	firstPause = 250 * time.Millisecond
)

// retried tries a request again where the API server is not able to answer it now. What it has answered is final.
func retried(ctx context.Context, request func(ctx context.Context) error) error {
	pause := firstPause
	for n := 1; ; n++ {
		tryCtx, cancel := context.WithTimeout(ctx, tryFor)
		err := request(tryCtx)
		cancel()
		if err == nil || n == tries || ctx.Err() != nil || isFinal(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

func isFinal(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false // it did not come through
	}
	return !apierrors.IsTooManyRequests(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsTimeout(err) &&
		!apierrors.IsInternalError(err) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsUnexpectedServerError(err)
}
