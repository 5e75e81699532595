//go:build unix

// Package apps installs sample applications on a cluster: what a team on EKS runs, in the API versions of an old cluster.
package apps

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/test/testbed"
)

//go:embed platform shop operator
var manifests embed.FS

// Namespaces are those that the applications live in.
var Namespaces = []string{"shop", "caches", "cache-system"}

// gitops is the folder whose objects are applied server-side, as Flux and Argo CD do; the others are created as kubectl and Helm 3 do.
const gitops = "operator/"

// Objects are the manifests of the applications, in the order of their files.
func Objects() (created, applied []*unstructured.Unstructured, err error) {
	err = fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := manifests.ReadFile(name)
		if err != nil {
			return err
		}
		objects, err := testbed.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if strings.HasPrefix(name, gitops) {
			applied = append(applied, objects...)
		} else {
			created = append(created, objects...)
		}
		return nil
	})
	return created, applied, err
}

// Install puts the applications on a cluster that serves their versions (1.22 to 1.24) and returns how many objects it sent.
func Install(ctx context.Context, c *testbed.Cluster) (int, error) {
	created, applied, err := Objects()
	if err != nil {
		return 0, err
	}
	post := testbed.ApplyOptions{Create: func(*unstructured.Unstructured) bool { return true }}
	for _, batch := range []struct {
		objects []*unstructured.Unstructured
		opts    testbed.ApplyOptions
	}{{created, post}, {applied, testbed.ApplyOptions{}}} {
		outcomes, err := c.Apply(ctx, batch.objects, batch.opts)
		if err != nil {
			return 0, err
		}
		for _, o := range outcomes {
			if o.Err != nil {
				return 0, fmt.Errorf("%s %s/%s: %w", o.Object.GetKind(), o.Object.GetNamespace(), o.Object.GetName(), o.Err)
			}
		}
	}
	return len(created) + len(applied), adopt(ctx, c)
}

// adopt makes a Cache the owner of the ConfigMap that its operator would have made.
func adopt(ctx context.Context, c *testbed.Cluster) error {
	client, err := dynamic.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	caches := schema.GroupVersionResource{Group: "data.example.com", Version: "v1", Resource: "caches"}
	owner, err := client.Resource(caches).Namespace("caches").Get(ctx, "sessions", metav1.GetOptions{})
	if err != nil {
		return err
	}
	isController := true
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": []metav1.OwnerReference{{
		APIVersion: owner.GetAPIVersion(), Kind: owner.GetKind(), Name: owner.GetName(), UID: owner.GetUID(), Controller: &isController,
	}}}})
	if err != nil {
		return err
	}
	configMaps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	_, err = client.Resource(configMaps).Namespace("caches").Patch(ctx, "sessions-nodes", types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
