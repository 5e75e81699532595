package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// get reads an object of Kedge's namespace.
func (r *remote) get(ctx context.Context, name string, object client.Object) error {
	return r.failure("get", object, r.client.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: name}, object))
}

// list reads the objects of a kind.
func (r *remote) list(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return r.failure("list", list, r.client.List(ctx, list, append(opts, client.InNamespace(r.namespace))...))
}

// create writes a new object into Kedge's namespace.
func (r *remote) create(ctx context.Context, object client.Object) error {
	object.SetNamespace(r.namespace)
	return r.failure("create", object, r.client.Create(ctx, object))
}

// merge changes the fields of an object that a JSON merge patch names.
func (r *remote) merge(ctx context.Context, object client.Object, patch string) error {
	object.SetNamespace(r.namespace)
	return r.failure("patch", object, r.client.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// delete removes an object.
func (r *remote) delete(ctx context.Context, object client.Object) error {
	object.SetNamespace(r.namespace)
	return r.failure("delete", object, r.client.Delete(ctx, object))
}

// resource is what rights call the kind of an object or of a list: "backups.kedge.dev".
func (r *remote) resource(object runtime.Object) string {
	gvk, err := r.client.GroupVersionKindFor(object)
	if err != nil {
		return "objects"
	}
	return groupResource(strings.ToLower(strings.TrimSuffix(gvk.Kind, "List"))+"s", gvk.Group)
}

// failure says what an answer of the API server means to the user of a command: which right he lacks, that there is no server, …
func (r *remote) failure(verb string, object runtime.Object, err error) error {
	if err == nil {
		return nil
	}
	resource := r.resource(object)
	s, ok := apiStatus(err)
	if !ok {
		return unanswered(err)
	}
	switch {
	case noSuchKind(&s):
		return usageError(fmt.Errorf("the cluster %s has no Kedge server: it does not know %s", r.cluster, resource), `install it with "kedge install", or `+localHint)
	case missingNamespace(&s):
		return usageError(fmt.Errorf("the cluster %s has no namespace %s", r.cluster, r.namespace), `name that of the server with --kedge-namespace or KEDGE_NAMESPACE, or install it with "kedge install"`)
	case s.Code == http.StatusForbidden:
		return codeError(exitRefused, err, fmt.Sprintf("a Role in namespace %s must allow %q on %s; --user, --context or --as choose another account", r.namespace, verb, resource))
	case s.Code == http.StatusUnauthorized:
		return codeError(exitUnreachable, errors.New("the API server did not accept the credentials of the kubeconfig"), "log in again, or choose another with --kubeconfig, --context or --user")
	case s.Code == http.StatusNotFound:
		return codeError(exitNotFound, err, notFoundHint(resource))
	case s.Reason == metav1.StatusReasonAlreadyExists:
		return usageError(err, "choose another name")
	case s.Code == http.StatusUnprocessableEntity, s.Code == http.StatusBadRequest:
		return usageError(err, "")
	case s.Code == http.StatusServiceUnavailable, s.Code == http.StatusTooManyRequests, s.Code == http.StatusGatewayTimeout:
		return codeError(exitUnreachable, err, "try again in a while")
	}
	return codeError(exitFailed, err, "")
}

// apiStatus is what the API server answered.
func apiStatus(err error) (metav1.Status, bool) {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return metav1.Status{}, false
	}
	return answer.Status(), true
}

// unanswered is the error of a request that got no answer of an API server.
func unanswered(err error) error {
	hint := "check the API server's address and the network; --kubeconfig and --context choose another cluster"
	network, isNet := errors.AsType[net.Error](err)
	wrapped, isURL := errors.AsType[*url.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case isURL:
		return codeError(exitUnreachable, fmt.Errorf("reach the API server: %w", wrapped.Err), hint)
	case isNet || errors.Is(err, context.DeadlineExceeded):
		return codeError(exitUnreachable, fmt.Errorf("reach the API server: %w", network), hint)
	}
	return codeError(exitUnreachable, fmt.Errorf("understand the API server's answer: %w", err), "check that an API server is at the address that the kubeconfig names, and no login page or proxy")
}

// noSuchKind tells that the API server knows the path of a kind not, from its not knowing an object of it.
func noSuchKind(s *metav1.Status) bool {
	if s.Code != http.StatusNotFound || s.Details == nil {
		return false
	}
	for _, cause := range s.Details.Causes {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}

func missingNamespace(s *metav1.Status) bool {
	return s.Code == http.StatusNotFound && s.Details != nil && s.Details.Kind == "namespaces"
}

// notFoundHint names the command that lists what there is.
func notFoundHint(resource string) string {
	kind, _, _ := strings.Cut(resource, ".")
	commands := map[string]string{"backups": "backup", "restores": "restore", "schedules": "schedule", "backupstoragelocations": "location"}
	if command, ok := commands[kind]; ok {
		return fmt.Sprintf("%q lists what there is", "kedge "+command+" get")
	}
	return ""
}

// isNotFound says that the API server has no object of a name; not that it lacks the kind.
func isNotFound(err error) bool {
	s, ok := apiStatus(err)
	return ok && s.Code == http.StatusNotFound && !noSuchKind(&s)
}

// isForbidden says that the account lacks a right.
func isForbidden(err error) bool { return apierrors.IsForbidden(err) }

// passing says whether an error may be gone at the next try.
func passing(err error) bool {
	own, ok := errors.AsType[*commandError](err)
	return ok && own.code == exitUnreachable && !apierrors.IsUnauthorized(err)
}

// addHint gives an error a further way out.
func addHint(err error, hint string) error {
	own, ok := errors.AsType[*commandError](err)
	if !ok {
		return err
	}
	if own.hint != "" {
		hint = own.hint + "; or " + hint
	}
	return codeError(own.code, err, hint)
}

func isAlreadyExists(err error) bool { return apierrors.IsAlreadyExists(err) }
