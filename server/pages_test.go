//go:build unix

package server_test

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/test/testbed"
)

// pages are those of the kinds.
var pages = map[string]string{
	"Backup": "backups.md", "BackupStorageLocation": "locations.md", "DeleteBackupRequest": "deletions.md", "DownloadRequest": "downloads.md",
	"Restore": "restore.md", "Schedule": "schedules.md",
}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPagesNameFields: the page of each kind names each field of its spec and status.
func TestPagesNameFields(t *testing.T) {
	for kind, fields := range kindFields(t) {
		name, ok := pages[kind]
		if !ok {
			t.Errorf("kind %s has no page", kind)
			continue
		}
		text := page(t, name)
		for _, field := range fields {
			// `spec.x`, `status.x`, `x`, or the beginning of `x.y`
			if !regexp.MustCompile("`((spec|status)\\.)?" + field + "[`.\\[]").MatchString(text) {
				t.Errorf("docs/%s does not name the field %s of %s", name, field, kind)
			}
		}
	}
}

// kindFields are the fields of the spec and the status of each kind, as its definition has them.
func kindFields(t *testing.T) map[string][]string {
	t.Helper()
	files, err := deploy.CRDs.ReadDir("crds")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, file := range files {
		text, err := deploy.CRDs.ReadFile("crds/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := testbed.Parse(bytes.TrimSpace(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed {
			kind, _, _ := unstructured.NestedString(d.Object, "spec", "names", "kind")
			versions, _, _ := unstructured.NestedSlice(d.Object, "spec", "versions")
			for _, part := range []string{"spec", "status"} {
				properties, found, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", part, "properties")
				if err != nil || !found {
					t.Fatalf("%s has no %s: %v", kind, part, err)
				}
				out[kind] = append(out[kind], slices.Sorted(maps.Keys(properties))...)
			}
		}
	}
	return out
}

// TestPagesExamplesAreAccepted: what the pages show of Kedge's kinds, a real API server takes; and each page of a kind shows one.
func TestPagesExamplesAreAccepted(t *testing.T) {
	h := newHouse(t, "1.36.3")
	files, err := os.ReadDir("../docs")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{} // "page kind"
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".md") {
			continue
		}
		for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page(t, file.Name()), -1) {
			objects, err := testbed.Parse([]byte(block[1]))
			if err != nil {
				continue // a part of something
			}
			for _, o := range objects {
				if o.GroupVersionKind().GroupVersion() != v1alpha1.GroupVersion {
					continue
				}
				shown[file.Name()+" "+o.GetKind()] = true
				if o.GetNamespace() == "" {
					o.SetNamespace(namespace)
				}
				if err := h.client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict")); err != nil {
					t.Errorf("docs/%s: %s %s: %v", file.Name(), o.GetKind(), o.GetName(), err)
				}
			}
		}
	}
	for kind, name := range pages {
		if !shown[name+" "+kind] {
			t.Errorf("docs/%s shows no %s", name, kind)
		}
	}
}
