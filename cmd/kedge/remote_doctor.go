package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// leaseName is the lease of the server that works; leaseStale is how old its renewal may be.
const (
	leaseName  = "kedge-server"
	leaseStale = time.Minute
)

// serverKinds are the resources of Kedge's kinds.
var serverKinds = []string{"backups", "backupstoragelocations", "deletebackuprequests", "downloadrequests", "restores", "schedules"}

// checkServer looks at a server from outside: its kinds, its deployment, its lease, its locations, and what this account may ask of it.
func (a *app) checkServer(ctx context.Context, c *config) []plugins.Finding {
	namespace := a.kedgeNamespace(c)
	k, _, err := a.cluster(0)
	if err != nil {
		return []plugins.Finding{a.finding(ctx, "server", err, "")}
	}
	kinds, found := a.checkKinds(ctx, k)
	if !found {
		return []plugins.Finding{kinds}
	}
	deployment, d := a.checkDeployment(ctx, k, namespace)
	findings := []plugins.Finding{kinds, deployment, a.checkLease(ctx, k, namespace), a.checkRequests(ctx, k, namespace)}
	if d != nil {
		findings = append(findings, a.checkMovers(ctx, k, d)...)
	}
	r, err := a.connectServer(c)
	if err != nil {
		return append(findings, a.finding(ctx, "server: locations", err, ""))
	}
	return append(findings, r.checkLocations(ctx)...)
}

// checkKinds asks which of Kedge's kinds the API server serves; no right is needed for that.
func (a *app) checkKinds(ctx context.Context, k *kube.Client) (plugins.Finding, bool) {
	const name = "server: kinds"
	response, err := k.Do(ctx, kube.Request{Path: "/apis/" + v1alpha1.GroupVersion.String()})
	if status := statusOf(err); status == http.StatusNotFound {
		return plugins.Finding{Name: name, Level: plugins.LevelFailed, Detail: "the cluster does not know Kedge's kinds", Remedy: `install the server with "kedge install", or ` + localHint}, false
	}
	var list metav1.APIResourceList
	if err == nil {
		err = json.Unmarshal(response.Body, &list)
	}
	if err != nil {
		return a.finding(ctx, name, err, ""), false
	}
	missing := slices.DeleteFunc(slices.Clone(serverKinds), func(kind string) bool {
		return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == kind })
	})
	if len(missing) > 0 {
		return plugins.Finding{Name: name, Level: plugins.LevelFailed, Detail: "the cluster lacks some of Kedge's kinds: " + someOf(missing), Remedy: `bring them up to date with "kedge upgrade"`}, true
	}
	return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: "the cluster serves all of Kedge's kinds"}, true
}

// checkDeployment looks for the server's Deployment, whether its pods are ready, and what version they are. It gives the Deployment, if there is one.
func (a *app) checkDeployment(ctx context.Context, k *kube.Client, namespace string) (plugins.Finding, *appsv1.Deployment) {
	const name = "server: deployment"
	var list appsv1.DeploymentList
	if err := getJSON(ctx, k, "/apis/apps/v1/namespaces/"+namespace+"/deployments", url.Values{"labelSelector": {"app.kubernetes.io/name=kedge"}}, &list); err != nil {
		return a.finding(ctx, name, err, ""), nil
	}
	if len(list.Items) == 0 {
		return plugins.Finding{
			Name: name, Level: plugins.LevelWarning, Detail: "there is no Deployment of Kedge in namespace " + namespace,
			Remedy: `install it with "kedge install", or name its namespace with --kedge-namespace; a server that runs elsewhere is seen by its lease`,
		}, nil
	}
	d := &list.Items[0]
	theirs := d.Labels["app.kubernetes.io/version"]
	text := fmt.Sprintf("Deployment %s has %d of %d pods ready", d.Name, d.Status.ReadyReplicas, d.Status.Replicas)
	if theirs != "" {
		text += ", version " + theirs
	}
	switch {
	case d.Status.ReadyReplicas == 0:
		return plugins.Finding{Name: name, Level: plugins.LevelFailed, Detail: text, Remedy: fmt.Sprintf("\"kubectl describe pods -n %s\" tells why", namespace)}, d
	case theirs != "" && strings.TrimPrefix(theirs, "v") != strings.TrimPrefix(version, "v"):
		return plugins.Finding{Name: name, Level: plugins.LevelWarning, Detail: text + "; this is version " + version, Remedy: `use the same version on both sides: "kedge upgrade"`}, d
	}
	return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: text}, d
}

// checkLease asks whether a server works: its lease is renewed all the time.
func (a *app) checkLease(ctx context.Context, k *kube.Client, namespace string) plugins.Finding {
	const name = "server: leader"
	var lease coordinationv1.Lease
	err := getJSON(ctx, k, "/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases/"+leaseName, nil, &lease)
	if statusOf(err) == http.StatusNotFound {
		return plugins.Finding{Name: name, Level: plugins.LevelWarning, Detail: "no server has ever worked in namespace " + namespace + ", or it runs without leader election", Remedy: "see the logs of its pods"}
	}
	if err != nil {
		return a.finding(ctx, name, err, "")
	}
	holder, renewed := "", time.Time{}
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if lease.Spec.RenewTime != nil {
		renewed = lease.Spec.RenewTime.Time
	}
	if since := a.env.Now().Sub(renewed); holder == "" || since > leaseStale {
		return plugins.Finding{Name: name, Level: plugins.LevelFailed, Detail: "no server works: the lease was last renewed at " + renewed.UTC().Format(time.RFC3339), Remedy: "see the logs of its pods"}
	}
	return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: holder + " works"}
}

// checkRequests asks what this account may ask of the server.
func (a *app) checkRequests(ctx context.Context, k *kube.Client, namespace string) plugins.Finding {
	const name = "server: rights"
	var denied []string
	for _, kind := range serverKinds {
		for _, verb := range []string{"get", "list", "create"} {
			ok, err := reviewAccess(ctx, k, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: kind})
			if err != nil {
				return a.finding(ctx, name, err, "")
			}
			if !ok {
				denied = append(denied, verb+" "+kind)
			}
		}
	}
	if len(denied) == 0 {
		return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: "the account may ask everything of the server in namespace " + namespace}
	}
	return plugins.Finding{Name: name, Level: plugins.LevelWarning, Detail: "the account may not " + someOf(denied), Remedy: "grant it these rights in namespace " + namespace + " where it needs them"}
}

// checkLocations gives the conditions of every location of the server.
func (r *remote) checkLocations(ctx context.Context) []plugins.Finding {
	const name = "server: location"
	found, err := r.locations(ctx, "")
	if err != nil {
		return []plugins.Finding{r.app.finding(ctx, name, err, "")}
	}
	if len(found) == 0 {
		return []plugins.Finding{{Name: name, Level: plugins.LevelWarning, Detail: "there is none in namespace " + r.namespace, Remedy: `"kedge location create" makes one`}}
	}
	var findings []plugins.Finding
	for i := range found {
		findings = append(findings, locationFindings(&found[i], name+" "+found[i].Name+": ")...)
	}
	return findings
}

// getJSON reads an object of the API server.
func getJSON(ctx context.Context, k *kube.Client, path string, query url.Values, dst any) error {
	response, err := k.Do(ctx, kube.Request{Path: path, Query: query})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(response.Body, dst); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// statusOf is the HTTP status that an API server refused a request with; 0 where it did not.
func statusOf(err error) int {
	if status, ok := errors.AsType[*kube.StatusError](err); ok {
		return status.Code
	}
	return 0
}
