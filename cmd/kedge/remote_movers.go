package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// moverConfig is the file in the Secret of the movers by which their Jobs know the location.
const moverConfig = "config.yaml"

// checkMovers looks for what the Jobs need that a server runs for the files of volumes: their namespace, and the Secret there. A server without movers has
// no finding.
func (a *app) checkMovers(ctx context.Context, k *kube.Client, d *appsv1.Deployment) []plugins.Finding {
	namespace, secret := argument(d, "--mover-namespace"), argument(d, "--mover-secret")
	if namespace == "" {
		return nil
	}
	const name = "server: movers"
	of := "/api/v1/namespaces/" + url.PathEscape(namespace)
	var ns corev1.Namespace
	err := getJSON(ctx, k, of, nil, &ns)
	if statusOf(err) == http.StatusNotFound {
		return []plugins.Finding{{
			Name: name, Level: plugins.LevelFailed, Detail: "their namespace " + namespace + " is not there, so that no files of volumes can be copied",
			Remedy: `"kubectl create namespace ` + namespace + `", label it (docs/mover.md), put their Secret there, and run "kedge upgrade"`,
		}}
	}
	if err != nil {
		return []plugins.Finding{a.finding(ctx, name, err, "")}
	}
	if secret == "" {
		return []plugins.Finding{{Name: name, Level: plugins.LevelOK, Detail: "their namespace " + namespace + " is there"}}
	}
	var config corev1.Secret
	err = getJSON(ctx, k, of+"/secrets/"+url.PathEscape(secret), nil, &config)
	full := namespace + "/" + secret
	switch {
	case statusOf(err) == http.StatusNotFound:
		return []plugins.Finding{{
			Name: name, Level: plugins.LevelFailed, Detail: "their Secret " + full + " is not there, by which they know the location",
			Remedy: `make it as docs/mover.md says: "kubectl create secret generic ` + secret + ` --namespace ` + namespace + ` --from-file=` + moverConfig + `", with the key files that it names`,
		}}
	case statusOf(err) == http.StatusForbidden:
		return []plugins.Finding{{Name: name, Level: plugins.LevelWarning, Detail: "whether their Secret " + full + " is there cannot be seen: the account may not get it", Remedy: "ask as somebody who may get secrets there"}}
	case err != nil:
		return []plugins.Finding{a.finding(ctx, name, err, "")}
	case len(config.Data[moverConfig]) == 0:
		return []plugins.Finding{{Name: name, Level: plugins.LevelFailed, Detail: "their Secret " + full + " has no " + moverConfig, Remedy: "make it anew as docs/mover.md says"}}
	}
	return []plugins.Finding{{Name: name, Level: plugins.LevelOK, Detail: "their namespace " + namespace + " and their Secret " + secret + " are there"}}
}

// argument is the value of an argument of a Deployment's containers, as the chart writes it; empty where there is none.
func argument(d *appsv1.Deployment, flag string) string {
	for i := range d.Spec.Template.Spec.Containers {
		for _, arg := range d.Spec.Template.Spec.Containers[i].Args {
			if value, found := strings.CutPrefix(arg, flag+"="); found {
				return value
			}
		}
	}
	return ""
}
