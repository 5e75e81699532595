// Package objects makes the objects of the benchmarks: of many kinds, in many namespaces, 1 to 5 KB each as a server stores
// them, and the same for the same number.
package objects

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
)

// Object is one object to be created.
type Object struct {
	Path string // of the collection to POST to
	Body []byte
}

// Prefix begins the names of the namespaces.
const Prefix = "bench-"

// perNamespace is how many objects live in a namespace, the Namespace itself among them.
const perNamespace = 50

// Collections are the paths of all objects, for a list of them.
var Collections = []string{
	"/api/v1/configmaps", "/api/v1/secrets", "/api/v1/services", "/api/v1/serviceaccounts", "/api/v1/namespaces",
	"/apis/apps/v1/deployments", "/apis/rbac.authorization.k8s.io/v1/roles", "/apis/rbac.authorization.k8s.io/v1/rolebindings",
	"/apis/networking.k8s.io/v1/ingresses", "/apis/bench.kedge.dev/v1/widgets",
}

// DefinitionName is the name of the widgets' CustomResourceDefinition.
const DefinitionName = "widgets.bench.kedge.dev"

// Definition is the CustomResourceDefinition of the widgets; it comes before everything else.
func Definition() Object {
	return Object{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", mustJSON(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": DefinitionName},
		"spec": map[string]any{
			"group": "bench.kedge.dev", "scope": "Namespaced",
			"names": map[string]any{"plural": "widgets", "singular": "widget", "kind": "Widget"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	})}
}

// Namespaces is how many namespaces hold n objects.
func Namespaces(n int) int { return (n + perNamespace - 1) / perNamespace }

// Namespace makes the i-th namespace.
func Namespace(i int) Object {
	return Object{"/api/v1/namespaces", mustJSON(map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name(i), "labels": map[string]any{"team": "team-" + strconv.Itoa(i%17), "pod-security.kubernetes.io/enforce": "baseline"}},
	})}
}

func name(i int) string { return fmt.Sprintf("%s%05d", Prefix, i) }

// At makes the object with the number i, which is not a namespace's: i modulo 50 is 1 to 49.
func At(i int) Object {
	ns, k := name(i/perNamespace), i%perNamespace
	r := rand.New(rand.NewPCG(uint64(i), 7))
	switch {
	case k < 15:
		return configMap(r, ns, k)
	case k < 26:
		return secret(r, ns, k)
	case k < 32:
		return deployment(r, ns, k)
	case k < 37:
		return service(ns, k)
	case k < 41:
		return plain("/api/v1/namespaces/"+ns+"/serviceaccounts", "v1", "ServiceAccount", ns, "account", k, map[string]any{"automountServiceAccountToken": false})
	case k < 43:
		return role(ns, k)
	case k < 45:
		return binding(ns, k)
	case k < 46:
		return ingress(ns, k)
	}
	return widget(r, ns, k)
}

// All calls fn for every object of a set of n, namespaces first, so that any later order works.
func All(n int, fn func(Object) error) error {
	for i := range Namespaces(n) {
		if err := fn(Namespace(i)); err != nil {
			return err
		}
	}
	return Rest(n, fn)
}

// Rest calls fn for every object of a set of n that is not a namespace.
func Rest(n int, fn func(Object) error) error {
	for i := range n {
		if i%perNamespace == 0 {
			continue
		}
		if err := fn(At(i)); err != nil {
			return err
		}
	}
	return nil
}

func meta(ns, kind string, k int) map[string]any {
	return map[string]any{
		"name": kind + "-" + strconv.Itoa(k), "namespace": ns,
		"labels":      map[string]any{"app.kubernetes.io/name": kind, "app.kubernetes.io/instance": kind + "-" + strconv.Itoa(k), "app.kubernetes.io/part-of": ns},
		"annotations": map[string]any{"bench.kedge.dev/owner": "team-" + strconv.Itoa(k%17) + "@example.com", "meta.helm.sh/release-name": ns},
	}
}

func plain(path, apiVersion, kind, ns, name string, k int, fields map[string]any) Object {
	o := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta(ns, name, k)}
	maps.Copy(o, fields)
	return Object{path, mustJSON(o)}
}

// words is text that compresses about as configuration does.
func words(r *rand.Rand, n int) string {
	vocabulary := []string{"server", "port", "timeout", "enabled", "true", "false", "level", "info", "debug", "retry", "max", "min", "connection", "pool", "cache", "ttl", "seconds", "upstream", "listen", "path"}
	b := make([]byte, 0, n+24)
	for len(b) < n {
		b = append(b, vocabulary[r.IntN(len(vocabulary))]...)
		b = append(b, '=')
		b = strconv.AppendInt(b, r.Int64N(1_000_000), 10)
		b = append(b, '\n')
	}
	return string(b)
}

func configMap(r *rand.Rand, ns string, k int) Object {
	return plain("/api/v1/namespaces/"+ns+"/configmaps", "v1", "ConfigMap", ns, "config", k, map[string]any{
		"data": map[string]any{"application.properties": words(r, 300+r.IntN(2500)), "mode": "production"},
	})
}

func secret(r *rand.Rand, ns string, k int) Object {
	key := make([]byte, 300+r.IntN(1500))
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	return plain("/api/v1/namespaces/"+ns+"/secrets", "v1", "Secret", ns, "secret", k, map[string]any{
		"type": "Opaque", "data": map[string]any{"key": base64.StdEncoding.EncodeToString(key), "user": "YWRtaW4="},
	})
}

func deployment(r *rand.Rand, ns string, k int) Object {
	app := map[string]any{"app": "web-" + strconv.Itoa(k)}
	env := []any{}
	for i := range 4 + r.IntN(8) {
		env = append(env, map[string]any{"name": "SETTING_" + strconv.Itoa(i), "value": strconv.Itoa(r.IntN(1 << 30))})
	}
	probe := map[string]any{"httpGet": map[string]any{"path": "/healthz", "port": 8080}, "periodSeconds": 10}
	container := map[string]any{
		"name": "web", "image": "registry.example.com/team/web:1." + strconv.Itoa(k), "env": env, "livenessProbe": probe, "readinessProbe": probe,
		"ports":        []any{map[string]any{"containerPort": 8080, "name": "http"}},
		"resources":    map[string]any{"requests": map[string]any{"cpu": "100m", "memory": "128Mi"}, "limits": map[string]any{"memory": "256Mi"}},
		"volumeMounts": []any{map[string]any{"name": "config", "mountPath": "/etc/web"}},
	}
	return plain("/apis/apps/v1/namespaces/"+ns+"/deployments", "apps/v1", "Deployment", ns, "web", k, map[string]any{"spec": map[string]any{
		"replicas": 2, "selector": map[string]any{"matchLabels": app},
		"template": map[string]any{"metadata": map[string]any{"labels": app}, "spec": map[string]any{
			"containers": []any{container}, "volumes": []any{map[string]any{"name": "config", "configMap": map[string]any{"name": "config-1"}}},
		}},
	}})
}

func service(ns string, k int) Object {
	return plain("/api/v1/namespaces/"+ns+"/services", "v1", "Service", ns, "svc", k, map[string]any{"spec": map[string]any{
		"clusterIP": "None", "selector": map[string]any{"app": "web-" + strconv.Itoa(k)},
		"ports": []any{map[string]any{"name": "http", "port": 80, "targetPort": 8080}, map[string]any{"name": "metrics", "port": 9090, "targetPort": 9090}},
	}})
}

const rbacPath = "/apis/rbac.authorization.k8s.io/v1/namespaces/"

func role(ns string, k int) Object {
	rules := []any{}
	for _, res := range []string{"pods", "configmaps", "secrets", "services", "events"} {
		rules = append(rules, map[string]any{"apiGroups": []any{""}, "resources": []any{res}, "verbs": []any{"get", "list", "watch"}})
	}
	return plain(rbacPath+ns+"/roles", "rbac.authorization.k8s.io/v1", "Role", ns, "role", k, map[string]any{"rules": rules})
}

func binding(ns string, k int) Object {
	return plain(rbacPath+ns+"/rolebindings", "rbac.authorization.k8s.io/v1", "RoleBinding", ns, "binding", k, map[string]any{
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "role-41"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "account-38", "namespace": ns}},
	})
}

func ingress(ns string, k int) Object {
	backend := map[string]any{"service": map[string]any{"name": "svc-33", "port": map[string]any{"number": 80}}}
	return plain("/apis/networking.k8s.io/v1/namespaces/"+ns+"/ingresses", "networking.k8s.io/v1", "Ingress", ns, "ing", k, map[string]any{"spec": map[string]any{
		"rules": []any{map[string]any{"host": ns + ".example.com", "http": map[string]any{"paths": []any{map[string]any{"path": "/", "pathType": "Prefix", "backend": backend}}}}},
	}})
}

func widget(r *rand.Rand, ns string, k int) Object {
	parts := []any{}
	for i := range 5 + r.IntN(25) {
		parts = append(parts, map[string]any{"name": "part-" + strconv.Itoa(i), "size": r.IntN(1000), "colour": []string{"red", "green", "blue"}[r.IntN(3)], "enabled": r.IntN(2) == 0})
	}
	return plain("/apis/bench.kedge.dev/v1/namespaces/"+ns+"/widgets", "bench.kedge.dev/v1", "Widget", ns, "widget", k, map[string]any{
		"spec": map[string]any{"parts": parts, "note": words(r, 200+r.IntN(800))}, "status": map[string]any{"phase": "Ready"},
	})
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps, slices, strings and numbers always marshal
	}
	return b
}
