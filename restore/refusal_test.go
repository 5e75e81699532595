package restore

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/kube"
)

func TestAsRefusal(t *testing.T) {
	for _, c := range []struct {
		code    int
		message string
		kind    string
		reason  Reason
		by      string
		waits   bool
	}{
		{403, `pods "p" is forbidden: exceeded quota: compute, requested: cpu=1, used: cpu=2, limited: cpu=2`, "pods", RefusedByQuota, "ResourceQuota compute", true},
		{403, `pods "p" is forbidden: status unknown for quota: compute, resources: pods`, "pods", RefusedByQuota, "ResourceQuota compute", true},
		{403, `pods "p" is forbidden: failed quota: compute: must specify limits.cpu for: c`, "pods", RefusedByQuota, "ResourceQuota compute", false},
		{403, `configmaps "c" is forbidden: unable to create new content in namespace a because it is being terminated`, "configmaps", NamespaceTerminating, "API server", true},
		{403, `pods "p" is forbidden: error looking up service account a/web: serviceaccount "web" not found`, "pods", AccountMissing, "API server", true},
		{403, `pods "p" is forbidden: violates PodSecurity "restricted:latest": privileged`, "pods", RefusedByPodSecurity, "Pod Security restricted:latest", false},
		{403, `pods "p" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]`, "pods", RefusedByLimitRange, "LimitRange of a", false},
		{403, `secrets is forbidden: User "u" cannot create resource "secrets" in API group "" in the namespace "a"`, "secrets", Forbidden, "RBAC", false},
		{403, `pods "p" is forbidden: no PriorityClass with name high was found`, "pods", RefusedByAdmission, "API server", false},
		{400, `admission webhook "v.example.com" denied the request: no`, "pods", RefusedByWebhook, "webhook v.example.com", false},
		{500, `Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: Post "https://x": no endpoints available for service "x"`, "", WebhookNotReady, "webhook v.example.com", true},
		{500, `conversion webhook for example.com/v1, Kind=Cart failed: Post "https://x": service "x" not found`, "", WebhookNotReady, "conversion webhook for example.com/v1, Kind=Cart", true},
		{422, `deployments.apps "d" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`, "", RefusedByPolicy, "ValidatingAdmissionPolicy p", false},
		{422, `Service "s" is invalid: spec.ports: Required value`, "", RefusedInvalid, "API server", false},
		{422, `Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated`, "", AddressTaken, "API server", true},
		{422, `Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.0.0.7"]: failed to allocate IP 10.0.0.7: provided IP is already allocated`, "", AddressTaken, "API server", true},
		{404, `namespaces "a" not found`, "namespaces", NamespaceMissing, "API server", true},
		{404, `the server could not find the requested resource`, "", NotServed, "API server", true},
		{500, `boom`, "", ServerError, "API server", true},
		{503, `the server is currently unable to handle the request`, "", ServerError, "API server", true},
	} {
		err := fmt.Errorf("wrapped: %w", &kube.StatusError{Code: c.code, Message: c.message, Details: &metav1.StatusDetails{Kind: c.kind}})
		r := asRefusal(err, "pods", "a")
		if r.reason != c.reason || r.by != c.by || (r.wait != "") != c.waits {
			t.Errorf("%d %s:\ngot  %+v\nwant %s by %q, waits %v", c.code, c.message, r, c.reason, c.by, c.waits)
		}
	}
	if r := asRefusal(fmt.Errorf("x: %w", kube.ErrUnreachable), "pods", "a"); r.reason != Unreachable || r.wait != waitServer {
		t.Errorf("unreachable: %+v", r)
	}
}

func TestReasonTexts(t *testing.T) {
	for r, text := range reasonTexts {
		if r == "" || text == "" {
			t.Errorf("%q: %q", r, text)
		}
	}
}
