package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// The patience of an asker.
const (
	firstLook   = 50 * time.Millisecond
	longestLook = time.Second
	// takenWithin is how long a request may lie before it counts as not served.
	takenWithin = 30 * time.Second
	// removeWithin bounds the removal of a request, also after a cancel.
	removeWithin = 5 * time.Second
)

// ErrNotServed means that no server took a request.
var ErrNotServed = errors.New("no server took the request: is kedge server running, and does it lead?")

// ErrRefused means that the server could not give the answer; the text says why.
var ErrRefused = errors.New("the server could not answer")

// Fetch asks Kedge's server in a namespace for something, and writes the answer to w as it comes. It encrypts the answer to a key that nobody
// else ever has, and removes its requests, also where ctx is cancelled. Recipient and Offset of spec are its own matter. It needs the verbs
// create, get and delete on downloadrequests.kedge.dev in that namespace.
func Fetch(ctx context.Context, c client.Client, namespace string, spec v1alpha1.DownloadRequestSpec, w io.Writer) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("download %s of %s: make a key: %w", spec.Target, spec.Name, err)
	}
	spec.Recipient, spec.Offset = identity.Recipient().String(), 0
	for {
		next, err := fetchPart(ctx, c, namespace, spec, identity, w)
		if err != nil {
			return fmt.Errorf("download %s of %s: %w", spec.Target, spec.Name, err)
		}
		if next == nil {
			return nil
		}
		spec.Offset = *next
	}
}

// fetchPart makes one request and follows it. It gives where the rest begins; nil at the end.
func fetchPart(ctx context.Context, c client.Client, namespace string, spec v1alpha1.DownloadRequestSpec, id age.Identity, w io.Writer) (*int64, error) {
	request := &v1alpha1.DownloadRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "download-"}, Spec: spec}
	if err := c.Create(ctx, request); err != nil {
		return nil, fmt.Errorf("create the request: %w", err)
	}
	defer func() {
		ctx, done := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
		defer done()
		_ = c.Delete(ctx, request) // else the server removes it some minutes later
	}()
	answer, err := follow(ctx, c, request)
	if err != nil {
		return nil, err
	}
	n, err := openPart(answer.Data, id, w)
	if err != nil {
		return nil, err
	}
	if next := answer.NextOffset; next != nil && (*next != spec.Offset+n || n == 0) {
		return nil, fmt.Errorf("read the answer: %d bytes from %d on, and the rest begins at %d", n, spec.Offset, *next)
	}
	return answer.NextOffset, nil
}

// follow waits for the answer to a request.
func follow(ctx context.Context, c client.Client, request *v1alpha1.DownloadRequest) (*v1alpha1.DownloadRequestStatus, error) {
	pause := firstLook
	waited := time.Duration(0)
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
		waited += pause
		pause = min(pause*3/2, longestLook)
		var now v1alpha1.DownloadRequest
		err := c.Get(ctx, client.ObjectKeyFromObject(request), &now)
		switch {
		case apierrors.IsNotFound(err):
			return nil, errors.New("follow the request: somebody removed it")
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, fmt.Errorf("follow the request: %w", err)
		}
		switch now.Status.Phase {
		case v1alpha1.RequestDone:
			return &now.Status, nil
		case v1alpha1.RequestFailed:
			return nil, fmt.Errorf("%w: %s", ErrRefused, now.Status.Message)
		case v1alpha1.RequestInProgress, v1alpha1.RequestWaiting:
		default:
			if waited >= takenWithin {
				return nil, fmt.Errorf("%w (namespace %s, after %s)", ErrNotServed, request.Namespace, takenWithin)
			}
		}
	}
}
