package restore

import (
	"errors"
	"net/http"
	"strings"

	"kedge.dev/kedge/internal/kube"
)

// refusal is why the target did not do what it was asked to.
type refusal struct {
	reason  Reason
	by      string // who refused, for people
	message string
	// wait names what has to change before another try can succeed; objects with the same wait share one deadline. "" means that
	// trying again makes no sense.
	wait string
	// tries bounds the tries where a wait alone would only prolong the end; 0 means no bound.
	tries int
}

// asRefusal reads the answer of a server. API servers tell most refusals apart in words only, so this looks for the words of
// their admission plugins (k8s.io/apiserver and pkg/kubeapiserver/admission), which tests pin for the versions at hand.
func asRefusal(err error, resource, namespace string) refusal {
	var se *kube.StatusError
	if !errors.As(err, &se) {
		if errors.Is(err, kube.ErrUnreachable) || errors.Is(err, kube.ErrUnknownOutcome) {
			return refusal{reason: Unreachable, message: err.Error(), wait: waitServer}
		}
		return refusal{reason: ServerError, message: err.Error(), wait: waitServer, tries: 5}
	}
	r := refusal{by: "API server", message: se.Message}
	if r.fromWebhook(se.Message) || r.fromPolicy(se.Message) {
		return r
	}
	switch se.Code {
	case http.StatusUnauthorized:
		r.reason = Forbidden
	case http.StatusForbidden:
		r.forbidden(se.Message, namespace)
	case http.StatusNotFound:
		r.notFound(se, resource, namespace)
	case http.StatusMethodNotAllowed:
		r.reason = NotCreatable
	case http.StatusConflict:
		r.reason, r.wait, r.tries = Conflict, "conflict "+resource, 10
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusBadGateway:
		r.reason, r.wait = ServerError, "unavailable "+resource
	case http.StatusInternalServerError:
		r.reason, r.wait, r.tries = ServerError, "error "+resource, 5
	default:
		r.reason = RefusedInvalid
		if strings.Contains(se.Message, "provided port is already allocated") || strings.Contains(se.Message, "provided IP is already allocated") {
			// A create that was cut short, as by the end of the process that sent it, gives its port back a moment later.
			r.reason, r.wait, r.tries = AddressTaken, "addresses", 8
			r.message += " (another Service of the target has it: find it, or leave the choice to the target by a modifier)"
		}
	}
	return r
}

// waitServer is the wait for a server that does not answer; where it ends in vain, so does the run.
const waitServer = "server"

// neverThere is the refusal of an object that create after create does not make, and that is not there either: the last answer says
// that it exists, or the answers are lost on their way while others arrive.
func neverThere(last error, resource string) refusal {
	if errors.Is(last, kube.ErrUnknownOutcome) {
		return refusal{reason: ServerError, message: "it is not there after creates whose answers were lost: " + last.Error(), wait: "error " + resource, tries: 5}
	}
	r := asRefusal(last, resource, "")
	r.message = "it is there at each create and gone at each look: " + r.message
	return r
}

// fromWebhook knows admission and conversion webhooks.
func (r *refusal) fromWebhook(msg string) bool {
	if name, ok := between(msg, `admission webhook "`, `" denied the request`); ok {
		r.reason, r.by = RefusedByWebhook, "webhook "+name
		return true
	}
	if name, ok := between(msg, `failed calling webhook "`, `"`); ok {
		r.reason, r.by, r.wait = WebhookNotReady, "webhook "+name, "webhook "+name
		return true
	}
	if name, ok := between(msg, "conversion webhook for ", " failed"); ok {
		r.reason, r.by, r.wait = WebhookNotReady, "conversion webhook for "+strings.TrimSuffix(name, ","), "conversion "+name
		return true
	}
	return false
}

// fromPolicy knows ValidatingAdmissionPolicies and Pod Security.
func (r *refusal) fromPolicy(msg string) bool {
	if name, ok := between(msg, "ValidatingAdmissionPolicy '", "'"); ok {
		r.reason, r.by = RefusedByPolicy, "ValidatingAdmissionPolicy "+name
		return true
	}
	if level, ok := between(msg, `violates PodSecurity "`, `"`); ok {
		r.reason, r.by = RefusedByPodSecurity, "Pod Security "+level
		return true
	}
	if strings.Contains(msg, "PodSecurityPolicy: unable to admit pod") {
		r.reason, r.by = RefusedByPodSecurity, "PodSecurityPolicy admission"
		return true
	}
	return false
}

func (r *refusal) forbidden(msg, namespace string) {
	switch {
	case strings.Contains(msg, "because it is being terminated"):
		r.reason, r.wait = NamespaceTerminating, waitNamespace(namespace)
	case strings.Contains(msg, "exceeded quota: "):
		name, _ := between(msg, "exceeded quota: ", ",")
		r.reason, r.by, r.wait = RefusedByQuota, "ResourceQuota "+name, "quota "+namespace+"/"+name
	case strings.Contains(msg, "status unknown for quota: "):
		name, _ := between(msg, "status unknown for quota: ", ",")
		r.reason, r.by, r.wait = RefusedByQuota, "ResourceQuota "+name, "quota "+namespace+"/"+name
	case strings.Contains(msg, "failed quota: "):
		name, _ := between(msg, "failed quota: ", ":")
		r.reason, r.by = RefusedByQuota, "ResourceQuota "+name
	case strings.Contains(msg, "error looking up service account"):
		r.reason, r.wait = AccountMissing, "account "+namespace
	case strings.Contains(msg, " usage per "), strings.Contains(msg, "limit to request ratio per "):
		r.reason, r.by = RefusedByLimitRange, "LimitRange of "+namespace
	case strings.Contains(msg, " cannot create resource "), strings.Contains(msg, " cannot patch resource "),
		strings.Contains(msg, " cannot update resource "), strings.Contains(msg, " cannot delete resource "),
		strings.Contains(msg, " cannot get resource "), strings.Contains(msg, "attempting to grant RBAC permissions not currently held"):
		r.reason, r.by = Forbidden, "RBAC"
	default:
		r.reason = RefusedByAdmission
	}
}

func waitNamespace(namespace string) string { return "namespace " + namespace }

// waitsForAny are the waits that are over when any object of a resource could be written into a namespace.
func waitsForAny(resource, namespace string) []string {
	return []string{waitServer, waitNamespace(namespace), "api " + resource, "conflict " + resource, "unavailable " + resource, "error " + resource}
}

func (r *refusal) notFound(se *kube.StatusError, resource, namespace string) {
	if namespace != "" && se.Details != nil && se.Details.Kind == "namespaces" {
		r.reason, r.wait = NamespaceMissing, waitNamespace(namespace)
		return
	}
	r.reason, r.wait = NotServed, "api "+resource
}

// between gives what stands between two texts.
func between(s, before, after string) (string, bool) {
	_, rest, ok := strings.Cut(s, before)
	if !ok {
		return "", false
	}
	inner, _, ok := strings.Cut(rest, after)
	return inner, ok
}
