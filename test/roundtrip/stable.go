//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/test/testbed"
)

// stable keeps servers from one folder to the next, since starting them costs more than anything else here. A server goes back
// into it only when it has been emptied, and has shown by its own lists that it holds what it held when it was new, and nothing more.
type stable struct {
	mu   sync.Mutex
	idle map[string][]*server // by version
}

func newStable() *stable { return &stable{idle: map[string][]*server{}} }

// take gives an empty server of a version.
func (s *stable) take(ctx context.Context, version, name string) (*server, error) {
	s.mu.Lock()
	if idle := s.idle[version]; len(idle) > 0 {
		s.idle[version] = idle[1:]
		s.mu.Unlock()
		return idle[0], nil
	}
	s.mu.Unlock()
	return startServer(ctx, version, name)
}

// giveBack empties a server for the next folder, or stops it where that does not succeed.
func (s *stable) giveBack(ctx context.Context, used *server) {
	if err := used.empty(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "roundtrip: a new server instead of %s: %v\n", used.cluster.Name, err)
		used.cluster.Stop()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle[used.cluster.Version] = append(s.idle[used.cluster.Version], used)
}

func (s *stable) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, idle := range s.idle {
		for _, each := range idle {
			each.cluster.Stop()
		}
	}
}

// startServer starts a server and waits until it rests.
func startServer(ctx context.Context, version, name string) (*server, error) {
	c, err := testbed.StartCluster(ctx, version, testbed.Name(name))
	if err != nil {
		return nil, err
	}
	s := &server{cluster: c}
	if err := s.learn(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return s, nil
}

// learn reads what a new server holds.
func (s *server) learn(ctx context.Context) (err error) {
	if s.lister, err = newLister(s.cluster); err != nil {
		return err
	}
	if _, err = s.cluster.ServiceAccountConfig(ctx, "kedge"); err != nil {
		return err
	}
	s.before, err = settle(ctx, s.lister)
	return err
}

// emptying bounds how long a server may take to get rid of a folder's objects.
const emptying = 90 * time.Second

// errUsed says that a server will not become again what it was.
var errUsed = errors.New("the server's own objects were changed")

// empty removes all that was not there when the server was new.
func (s *server) empty(ctx context.Context) error {
	s.lister.wish = nil
	ctx, cancel := context.WithTimeout(ctx, emptying)
	defer cancel()
	for {
		now, err := s.lister.read(ctx)
		if err != nil {
			return err
		}
		left, whole := s.foreign(now)
		if len(left) == 0 && !whole {
			return errUsed
		}
		if len(left) == 0 && sameAPIs(s.before.apis, now.apis) {
			if err := s.forgetEvents(ctx, now); err != nil {
				return err
			}
			s.before, err = settle(ctx, s.lister)
			if err != nil {
				return err
			}
			if left, whole := s.foreign(s.before); len(left) == 0 && whole {
				return nil
			}
			continue
		}
		if err := s.remove(ctx, left); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("empty it: %w; left: %d, the first %v", ctx.Err(), len(left), firstKey(left))
		case <-time.After(betweenReads):
		}
	}
}

// foreign lists what a server did not hold when it was new; whole says whether it holds all that it did, unchanged.
func (s *server) foreign(now *snapshot) (left []*object, whole bool) {
	for _, k := range now.keys() {
		if o := now.objects[k]; !madeByServer(o) && (s.before.objects[k] == nil || s.before.objects[k].raw.GetUID() != o.raw.GetUID()) {
			left = append(left, o)
		}
	}
	whole = true
	for k, o := range s.before.objects {
		then := now.objects[k]
		whole = whole && (madeByServer(o) || (then != nil && reflect.DeepEqual(normalise(s.before, o, nil), normalise(now, then, nil))))
	}
	return left, whole
}

func firstKey(objects []*object) key {
	if len(objects) == 0 {
		return ""
	}
	return objects[0].key
}

func sameAPIs(before, now map[schema.GroupResource]*api) bool {
	return maps.EqualFunc(before, now, func(a, b *api) bool { return slices.Equal(a.Versions, b.Versions) })
}

// forgetEvents removes what is not compared, but would be in the next backup.
func (s *server) forgetEvents(ctx context.Context, now *snapshot) error {
	for k := range s.before.objects {
		if resource, namespace, _ := strings.Cut(string(k), " /"); resource == "namespaces" {
			events := now.apis[schema.GroupResource{Resource: "events"}]
			err := s.lister.dynamic.Resource(events.GroupVersionResource).Namespace(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes objects: first all that answers for, or refuses, requests for others; then what no namespace takes along.
func (s *server) remove(ctx context.Context, left []*object) error {
	gates := func(o *object) bool {
		return o.api.Group == "admissionregistration.k8s.io" || o.api.Group == "apiregistration.k8s.io"
	}
	namespaces := map[string]bool{}
	for _, o := range left {
		if o.api.Group == "" && o.api.Resource == "namespaces" {
			namespaces[o.raw.GetName()] = true
		}
	}
	onlyGates := slices.ContainsFunc(left, gates)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, o := range left {
		deleted := o.raw.GetDeletionTimestamp() != nil
		if (onlyGates && !gates(o)) || (!deleted && namespaces[o.raw.GetNamespace()]) {
			continue
		}
		group.Go(func() error {
			client := (&serverJudge{lister: s.lister}).client(o.api, o.raw.GetNamespace())
			var err error
			switch {
			case !deleted:
				now, behind := int64(0), metav1.DeletePropagationBackground
				err = client.Delete(ctx, o.raw.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &behind})
			case len(o.raw.GetFinalizers()) > 0 && o.api.Group != "apiextensions.k8s.io":
				// Who would finish it does not run here.
				_, err = client.Patch(ctx, o.raw.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
			if gone := apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.ReasonForError(err) == metav1.StatusReasonInvalid; err != nil && !gone {
				if status, ok := errors.AsType[*apierrors.StatusError](err); !ok || status.ErrStatus.Code != http.StatusMethodNotAllowed {
					return fmt.Errorf("delete %s: %w", o.key, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
