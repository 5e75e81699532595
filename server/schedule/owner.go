package schedule

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/outcome"
)

// The Secret of the key that marks runs. All servers of an installation use one key, so that each knows the others' runs.
const (
	runsSecret = "kedge-runs"
	runsKey    = "key"
	runsBytes  = 32
)

// keyAgain is the wait before the key is looked for again.
const keyAgain = 15 * time.Second

// Marks hold the key by which the Backups that schedules make are told from those that others make under a schedule's label or a run's name. Whoever may
// create Backups may write both, but not the mark: it is made with a key that only the server can read. Client must read Secrets as they are.
type Marks struct {
	Client    client.Client
	Namespace string // the server's
	Rand      io.Reader

	mu  sync.Mutex
	key []byte
}

// Of reads the key, or makes it where there is none, and gives what knows a schedule's own Backups.
func (m *Marks) Of(ctx context.Context, s *v1alpha1.Schedule, cluster string) (*Owner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == nil {
		key, err := m.load(ctx)
		if err != nil {
			return nil, outcome.Waiting(ReasonNoKey, keyAgain, fmt.Errorf("the key that marks runs: %w", err))
		}
		m.key = key
	}
	return &Owner{schedule: s, cluster: cluster, key: m.key}, nil
}

func (m *Marks) load(ctx context.Context) ([]byte, error) {
	var secret corev1.Secret
	name := client.ObjectKey{Namespace: m.Namespace, Name: runsSecret}
	err := m.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		key := make([]byte, runsBytes)
		if _, err := io.ReadFull(m.Rand, key); err != nil {
			return nil, fmt.Errorf("make it: %w", err)
		}
		secret = corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: runsSecret}, Data: map[string][]byte{runsKey: key}, Immutable: new(true)}
		if err = m.Client.Create(ctx, &secret); apierrors.IsAlreadyExists(err) { // another server was first
			err = m.Client.Get(ctx, name, &secret)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	if len(secret.Data[runsKey]) < runsBytes {
		return nil, fmt.Errorf("read Secret %s: its %q is shorter than %d bytes: delete the Secret, and a new one is made", name, runsKey, runsBytes)
	}
	return secret.Data[runsKey], nil
}

// Owner knows which Backups are a schedule's own.
type Owner struct {
	schedule *v1alpha1.Schedule
	cluster  string // the uid of this one
	key      []byte
}

// mark is what the schedule's own Backup of a name carries.
func (o *Owner) mark(name string) string {
	h := hmac.New(sha256.New, o.key)
	fmt.Fprintf(h, "run %s/%s %s", o.schedule.Namespace, name, o.schedule.UID)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// otherDigits is how long what otherName adds is.
const otherDigits = 8

// otherName is the name of a run's Backup where another object has its first one. Nobody can take it beforehand.
func (o *Owner) otherName(name string) string {
	return name + "-" + o.mark(name + "\n2")[:otherDigits]
}

func (o *Owner) marked(b *v1alpha1.Backup) bool {
	return o.key != nil && hmac.Equal([]byte(b.Annotations[v1alpha1.RunAnnotation]), []byte(o.mark(b.Name)))
}

// Made says whether a Backup that nobody looked at yet is of the schedule's newest run. The schedule's status, which no user may write, names that before
// the Backup is created, and its uid afterwards: a mark may be the copy of one whose Backup was deleted. Known is false where the uid is still to come.
func (o *Owner) Made(b *v1alpha1.Backup) (made, known bool) {
	made = o.newest(b)
	return made, !made || o.schedule.Status.MadeUID != ""
}

// newest says whether a Backup may be that of the newest run, as far as its status tells.
func (o *Owner) newest(b *v1alpha1.Backup) bool {
	st := &o.schedule.Status
	if st.MadeUID != "" { // whatever became of the key since
		return st.MadeUID == string(b.UID)
	}
	return st.Made != "" && o.marked(b) && (b.Name == st.Made || b.Name == o.otherName(st.Made))
}

// owns says whether a Backup counts for the schedule. What the server noted of it when it was first seen is the truth; until then only the newest run's does,
// by its mark, and by its uid once that is noted: older ones were all seen. One that was found in a bucket counts where it is of this cluster: another may have a schedule of the same name.
func (o *Owner) owns(b *v1alpha1.Backup) bool {
	found := b.Annotations[v1alpha1.ArchiveUIDAnnotation] != ""
	switch {
	case found && (b.Status.Cluster == nil || o.cluster == "" || b.Status.Cluster.UID != o.cluster || !b.Status.Phase.Final()):
		return false
	case found, b.Status.ObservedGeneration != 0:
		return b.Status.Schedule == o.schedule.Name || o.schedule.Status.MadeUID != "" && o.newest(b)
	}
	return o.newest(b)
}
