package location

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/server/outcome"
)

// Registry opens locations, each once for a state of its spec and its Secrets. It is safe for concurrent use.
type Registry struct {
	// Client reads locations, from a cache if it has one.
	Client client.Client
	// Secrets reads the Secrets that locations name; not from a cache, which would hold all Secrets of the namespace.
	Secrets   client.Reader
	Namespace string
	// PrivateDir is a folder, best in memory, where credentials files are put that come from Secrets.
	PrivateDir string
	// Gate is passed by everything that changes a store. Nil is always open.
	Gate *gate.Gate
	// Observe is told of every operation on the store of a location; nil is not.
	Observe func(location string) func(ctx context.Context, e decorate.Event)
	Now     func() time.Time
	// Cluster connects to the cluster that the server works for, whose API has snapshots of volumes. It may be nil.
	Cluster Connect

	mu     sync.Mutex
	places map[string]*opening
	seen   map[string]bool // locations that a sync has looked at, with or without success
}

// opening is one state of a location, opened by the first who asks.
type opening struct {
	state string // what it was opened from
	done  chan struct{}
	place *Place
	err   error
	until time.Time // an error is tried again then
}

// Place is an open location.
type Place struct {
	// Object is the location as it was when it was opened; its spec is complete (credentials file, trust). Do not change it.
	Object  *v1alpha1.BackupStorageLocation
	Store   plugins.ObjectStore
	Archive *archive.Location

	registry *Registry
	listing  listing
	named    volumes.Named // the copies that backups name

	keysMu sync.Mutex
	keys   *archive.Keys
}

// failedFor is how long a location that did not open is not tried again.
const failedFor = 10 * time.Second

// Get gives the open location of a name; "" is the default one: the one that says so, or the only one. Errors are marked for outcome.
func (r *Registry) Get(ctx context.Context, name string) (*Place, error) {
	object, err := r.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.Open(ctx, object)
}

// find reads a location object.
func (r *Registry) find(ctx context.Context, name string) (*v1alpha1.BackupStorageLocation, error) {
	if name != "" {
		var object v1alpha1.BackupStorageLocation
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, &object)
		if apierrors.IsNotFound(err) {
			return nil, outcome.Waiting("LocationNotFound", time.Minute, fmt.Errorf("find location %s: there is no BackupStorageLocation of that name in namespace %s: create it, or name another in spec.storageLocation", name, r.Namespace))
		}
		if err != nil {
			return nil, fmt.Errorf("find location %s: %w", name, err)
		}
		return &object, nil
	}
	var list v1alpha1.BackupStorageLocationList
	if err := r.Client.List(ctx, &list, client.InNamespace(r.Namespace)); err != nil {
		return nil, fmt.Errorf("find the default location: %w", err)
	}
	return defaultOf(list.Items)
}

// defaultOf chooses the location of those who name none.
func defaultOf(all []v1alpha1.BackupStorageLocation) (*v1alpha1.BackupStorageLocation, error) {
	chosen := slices.DeleteFunc(slices.Clone(all), func(l v1alpha1.BackupStorageLocation) bool { return !l.Spec.Default })
	if len(chosen) == 0 {
		chosen = all
	}
	switch len(chosen) {
	case 1:
		return &chosen[0], nil
	case 0:
		return nil, outcome.Waiting("LocationNotFound", time.Minute, errors.New("find the default location: there is no BackupStorageLocation: create one"))
	}
	names := make([]string, len(chosen))
	for i := range chosen {
		names[i] = chosen[i].Name
	}
	slices.Sort(names)
	return nil, outcome.Waiting("DefaultLocationAmbiguous", time.Minute,
		fmt.Errorf("find the default location: it could be any of %s: set spec.default on one of them, or name one in spec.storageLocation", strings.Join(names, ", ")))
}

// Open opens a location object, or gives what an earlier call opened from the same spec and Secrets.
func (r *Registry) Open(ctx context.Context, object *v1alpha1.BackupStorageLocation) (*Place, error) {
	spec := object.Spec.DeepCopy()
	credentials, err := r.credentials(ctx, object)
	if err != nil {
		return nil, err
	}
	state, err := stateOf(object, credentials)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if r.places == nil {
		r.places = map[string]*opening{}
	}
	o := r.places[object.Name]
	if o == nil || o.state != state || o.failed() && !r.Now().Before(o.until) {
		o = &opening{state: state, done: make(chan struct{})}
		r.places[object.Name] = o
		r.mu.Unlock()
		o.place, o.err = r.open(ctx, object, spec, credentials)
		o.until = r.Now().Add(failedFor)
		if ctx.Err() != nil { // the caller gave up; that says nothing of the location
			o.until = time.Time{}
		}
		close(o.done)
		return o.place, o.err
	}
	r.mu.Unlock()
	select {
	case <-o.done:
		return o.place, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (o *opening) failed() bool {
	select {
	case <-o.done:
		return o.err != nil
	default:
		return false
	}
}

func (r *Registry) looked(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[name] = true
}

// Looked says whether a sync of this process has looked at a location, with or without success. What is less urgent than to show what a location holds
// waits for that: it would only list it a second time meanwhile.
func (r *Registry) Looked(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[name]
}

// Drop forgets a location, and removes the credentials that were written for it.
func (r *Registry) Drop(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.places, name)
	delete(r.seen, name)
	_ = os.Remove(r.credentialsPath(name)) // it is not there, or the pod's folder is gone with the pod
}

// stateOf identifies what a place was opened from.
func stateOf(object *v1alpha1.BackupStorageLocation, credentials []byte) (string, error) {
	spec, err := json.Marshal(object.Spec)
	if err != nil {
		return "", fmt.Errorf("read the spec of location %s: %w", object.Name, err)
	}
	h := sha256.New()
	h.Write([]byte(object.UID))
	h.Write(spec)
	h.Write(credentials)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// credentials reads the shared credentials file of a location from its Secret; nil where it names none.
func (r *Registry) credentials(ctx context.Context, object *v1alpha1.BackupStorageLocation) ([]byte, error) {
	if object.Spec.S3 == nil || object.Spec.S3.CredentialsSecret == nil {
		return nil, nil
	}
	return r.secret(ctx, object, "spec.s3.credentialsSecret", object.Spec.S3.CredentialsSecret)
}

// secret reads one key of a Secret that a field of a location names.
func (r *Registry) secret(ctx context.Context, object *v1alpha1.BackupStorageLocation, field string, ref *v1alpha1.SecretKeyReference) ([]byte, error) {
	var s corev1.Secret
	err := r.Secrets.Get(ctx, client.ObjectKey{Namespace: object.Namespace, Name: ref.Name}, &s)
	if apierrors.IsNotFound(err) {
		return nil, outcome.Waiting("SecretNotFound", time.Minute, fmt.Errorf("open location %s: %s: there is no Secret %s in namespace %s: create it", object.Name, field, ref.Name, object.Namespace))
	}
	if err != nil {
		return nil, fmt.Errorf("open location %s: %s: %w", object.Name, field, err)
	}
	data, ok := s.Data[ref.Key]
	if !ok {
		return nil, outcome.Waiting("SecretNotFound", time.Minute, fmt.Errorf("open location %s: %s: the Secret %s has no key %q", object.Name, field, ref.Name, ref.Key))
	}
	return data, nil
}

func (r *Registry) credentialsPath(name string) string {
	return filepath.Join(r.PrivateDir, "credentials-"+name)
}

// open opens the store and reads what makes it a location; an empty one is made a location where the spec says who opens it.
func (r *Registry) open(ctx context.Context, object *v1alpha1.BackupStorageLocation, spec *v1alpha1.BackupStorageLocationSpec, credentials []byte) (*Place, error) {
	if credentials != nil {
		path := r.credentialsPath(object.Name)
		if err := replacePrivate(path, credentials); err != nil {
			return nil, fmt.Errorf("open location %s: keep its credentials: %w", object.Name, err)
		}
		spec.S3.CredentialsFile = path
	}
	opts := StoreOptions{Create: true, Gate: r.Gate, Now: r.Now}
	if r.Observe != nil {
		opts.Observe = r.Observe(object.Name)
	}
	store, err := OpenStore(ctx, spec, opts)
	if err != nil {
		return nil, fmt.Errorf("open location %s: %w", object.Name, err)
	}
	located, err := archive.Open(ctx, store)
	if errors.Is(err, archive.ErrNotALocation) {
		located, err = r.initialize(ctx, store, object.Name, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("open location %s: %w", object.Name, err)
	}
	if pinned := spec.PublicKey; pinned != "" && pinned != located.PublicKey() {
		return nil, outcome.Waiting("KeyMismatch", time.Minute, fmt.Errorf("open location %s: the bucket says that its key is %s, spec.publicKey says %s: "+
			"somebody replaced what is in the bucket, or it is another bucket; if that is meant, correct spec.publicKey", object.Name, located.PublicKey(), pinned))
	}
	full := object.DeepCopy()
	full.Spec = *spec
	located = located.WithElsewhere(RemoveSnapshots(spec, r.Gate, located.ID(), r.connect, func(ctx context.Context, left error) {
		log.FromContext(ctx).Info("something of a deleted backup stays outside of the location", "left", left.Error())
	}))
	return &Place{Object: full, Store: store, Archive: located, registry: r}, nil
}

// connect connects to the cluster.
func (r *Registry) connect() (*kube.Client, error) {
	if r.Cluster == nil {
		return nil, errors.New("no cluster is known here")
	}
	return r.Cluster()
}

// replacePrivate writes a file that only this user can read, whole or not at all.
func replacePrivate(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".credentials-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// TrustedKeys are the keys whose signatures on backups count.
func (p *Place) TrustedKeys() ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for i, text := range p.Object.Spec.TrustedKeys {
		keys, err := archive.ParsePublicKeys([]byte(text))
		if err == nil && len(keys) == 0 {
			err = errors.New("it holds no PEM block PUBLIC KEY")
		}
		if err != nil {
			return nil, outcome.Stalled("InvalidTrustedKey", fmt.Errorf("read spec.trustedKeys[%d] of location %s: %w", i, p.Object.Name, err))
		}
		all = append(all, keys...)
	}
	return all, nil
}

// Signer is the key that signs backups; nil where the location names none.
func (p *Place) Signer(ctx context.Context) (crypto.Signer, error) {
	ref := p.Object.Spec.SigningKeySecret
	if ref == nil {
		return nil, nil
	}
	data, err := p.registry.secret(ctx, p.Object, "spec.signingKeySecret", ref)
	if err != nil {
		return nil, err
	}
	key, err := archive.ParsePrivateKey(data)
	if err != nil { // its text names no part of the key
		return nil, outcome.Waiting("InvalidSigningKey", time.Minute, fmt.Errorf("read the signing key of location %s: %w: it is an Ed25519 key in PKCS #8 PEM, as openssl genpkey -algorithm ed25519 makes it", p.Object.Name, err))
	}
	return key, nil
}
