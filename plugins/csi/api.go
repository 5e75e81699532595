package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/internal/kube"
)

const snapshotGroup = "snapshot.storage.k8s.io"

var (
	classes        = kube.Resource{Group: snapshotGroup, Version: "v1", Resource: "volumesnapshotclasses"}
	snapshots      = kube.Resource{Group: snapshotGroup, Version: "v1", Resource: "volumesnapshots", Namespaced: true}
	contents       = kube.Resource{Group: snapshotGroup, Version: "v1", Resource: "volumesnapshotcontents"}
	claims         = kube.Resource{Version: "v1", Resource: "persistentvolumeclaims", Namespaced: true}
	volumes        = kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	nodes          = kube.Resource{Version: "v1", Resource: "nodes"}
	storageClasses = kube.Resource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}
	csiNodes       = kube.Resource{Group: "storage.k8s.io", Version: "v1", Resource: "csinodes"}
)

// The kinds of snapshot.storage.k8s.io/v1, as far as this package reads and writes them.
type (
	snapshotClass struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Driver          string            `json:"driver"`
		Parameters      map[string]string `json:"parameters,omitempty"`
	}
	snapshot struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Spec            snapshotSpec      `json:"spec"`
		Status          snapshotStatus    `json:"status,omitzero"`
	}
	snapshotSpec struct {
		Class  string         `json:"volumeSnapshotClassName,omitempty"`
		Source snapshotSource `json:"source"`
	}
	snapshotSource struct {
		Claim   string `json:"persistentVolumeClaimName,omitempty"`
		Content string `json:"volumeSnapshotContentName,omitempty"`
	}
	snapshotStatus struct {
		Content string         `json:"boundVolumeSnapshotContentName,omitempty"`
		Ready   bool           `json:"readyToUse,omitempty"`
		Error   *snapshotError `json:"error,omitempty"`
	}
	snapshotError struct {
		Message string `json:"message,omitempty"`
	}
	content struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Spec            contentSpec       `json:"spec"`
		Status          contentStatus     `json:"status,omitzero"`
	}
	contentSpec struct {
		Policy string         `json:"deletionPolicy"`
		Driver string         `json:"driver"`
		Class  string         `json:"volumeSnapshotClassName,omitempty"`
		Mode   string         `json:"sourceVolumeMode,omitempty"`
		Source contentSource  `json:"source"`
		Ref    map[string]any `json:"volumeSnapshotRef"`
	}
	contentSource struct {
		Snapshot string `json:"snapshotHandle,omitempty"`
		Volume   string `json:"volumeHandle,omitempty"`
	}
	contentStatus struct {
		Handle      string         `json:"snapshotHandle,omitempty"`
		Created     int64          `json:"creationTime,omitempty"` // nanoseconds
		RestoreSize int64          `json:"restoreSize,omitempty"`
		Ready       bool           `json:"readyToUse,omitempty"`
		Error       *snapshotError `json:"error,omitempty"`
	}
)

// The deletion policies of contents.
const (
	policyRetain = "Retain"
	policyDelete = "Delete"
)

func (p *Provider) get(ctx context.Context, path string, into any) error {
	resp, err := p.kube.Do(ctx, kube.Request{Path: path})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Body, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// create makes an object. One of that name that is there already is left as it is: names are made of tokens, so it is
// what was asked for, or one that somebody put there, which whoever waits for it has to see.
func (p *Provider) create(ctx context.Context, res kube.Resource, namespace string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode %s: %w", res.Resource, err)
	}
	for {
		_, err = p.kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: res.Path(namespace, ""), Body: body})
		switch {
		case kube.Code(err) == http.StatusConflict:
			return nil
		case !errors.Is(err, kube.ErrUnknownOutcome):
			return err
		}
		if err := p.opts.Sleep(ctx, firstPause); err != nil {
			return err
		}
	}
}

// patch merges into an object; one that is gone is no error.
func (p *Provider) patch(ctx context.Context, path string, change any) error {
	body, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encode a change of %s: %w", path, err)
	}
	_, err = p.kube.Do(ctx, kube.Request{
		Method: http.MethodPatch, Path: path, Body: body, ContentType: "application/merge-patch+json", Idempotent: true,
	})
	return unlessGone(err)
}

// remove deletes an object; one that is gone is no error.
func (p *Provider) remove(ctx context.Context, path string) error {
	_, err := p.kube.Do(ctx, kube.Request{Method: http.MethodDelete, Path: path, Idempotent: true})
	return unlessGone(err)
}

// gone deletes an object and waits until it is not there any more.
func (p *Provider) gone(ctx context.Context, path string, limit time.Duration) error {
	if err := p.remove(ctx, path); err != nil {
		return err
	}
	return p.wentAway(ctx, path, "", limit)
}

// goneOf is gone for an object of a namespace, where another one may have the name by now: that is left alone.
func (p *Provider) goneOf(ctx context.Context, path string, uid types.UID, limit time.Duration) error {
	body, err := json.Marshal(metav1.DeleteOptions{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil {
		return fmt.Errorf("encode the deletion of %s: %w", path, err)
	}
	_, err = p.kube.Do(ctx, kube.Request{Method: http.MethodDelete, Path: path, Body: body, Idempotent: true})
	if kube.Code(err) != http.StatusConflict && unlessGone(err) != nil {
		return err
	}
	return p.wentAway(ctx, path, uid, limit)
}

// wentAway waits until an object is not there, or another one is in its place. One of a namespace that is held only by finalizers of others is as
// good as gone: whoever works in that namespace can put one there, and could keep a backup from its end.
func (p *Provider) wentAway(ctx context.Context, path string, uid types.UID, limit time.Duration) error {
	return p.until(ctx, limit, func(ctx context.Context) (bool, string, error) {
		var o struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
		}
		err := p.get(ctx, path, &o)
		switch m := &o.Metadata; {
		case kube.Code(err) == http.StatusNotFound, err == nil && uid != "" && m.UID != uid:
			return true, "", nil
		case err != nil:
			return false, "", err
		case m.Namespace != "" && m.DeletionTimestamp != nil && !slices.ContainsFunc(m.Finalizers, ofKubernetes):
			return true, "", nil
		}
		return false, path + " is still there, though it was deleted", nil
	})
}

// ofKubernetes says of a finalizer that it is one of Kubernetes or of its snapshot controller.
func ofKubernetes(finalizer string) bool {
	domain, _, _ := strings.Cut(finalizer, "/")
	return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
}

func unlessGone(err error) error {
	if kube.Code(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// errLate means that a controller of the cluster has not done in time what it was asked for.
var errLate = errors.New("the cluster's CSI controllers did not do it in time")

// until looks again and again until look says that it is done, or for so long. What look says last is in the error.
func (p *Provider) until(ctx context.Context, limit time.Duration, look func(context.Context) (done bool, said string, err error)) error {
	began := p.opts.Now()
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		done, said, err := look(ctx)
		if done || err != nil {
			return err
		}
		if p.opts.Now().Sub(began) > limit {
			return fmt.Errorf("%w (%v): %s", errLate, limit, said)
		}
		if err := p.opts.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// list reads the objects that have a label. Where the cluster does not know the kind there are none.
func list[T any](ctx context.Context, p *Provider, res kube.Resource, labels string) (all []*T, err error) {
	_, err = p.kube.List(ctx, kube.ListRequest{Path: res.Path("", ""), LabelSelector: labels}, func(raw []byte) error {
		object := new(T)
		if err := json.Unmarshal(raw, object); err != nil {
			return fmt.Errorf("read one of %s: %w", res.Resource, err)
		}
		all = append(all, object)
		return nil
	})
	return all, unlessGone(err)
}

func (e *snapshotError) String() string {
	if e == nil {
		return ""
	}
	return e.Message
}
