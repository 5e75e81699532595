package convert_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/restore/convert"
)

// corpusDir finds the folder of manifests that lies beside the repository.
func corpusDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KEDGE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no corpus of manifests at %s (set KEDGE_CORPUS to have this test run): %v", dir, err)
	}
	return dir
}

// manifests reads every object of a YAML or JSON file, those within Lists too.
func manifests(t *testing.T, file string) []map[string]any {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw)))
	buf := make([]byte, len(raw)+1)
	for {
		n, err := reader.Read(buf)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		asJSON, err := yaml.YAMLToJSON(buf[:n])
		if err != nil {
			continue // a few files of the corpus are broken on purpose
		}
		var obj map[string]any
		if err := utiljson.Unmarshal(asJSON, &obj); err != nil || obj == nil {
			continue
		}
		if items, ok := obj["items"].([]any); ok && strings.HasSuffix(obj["kind"].(string), "List") {
			for _, item := range items {
				out = append(out, item.(map[string]any))
			}
			continue
		}
		out = append(out, obj)
	}
}

// typed decodes an object strictly into its Go type; fields that the type lacks are an error.
func typed(t *testing.T, obj map[string]any) error {
	t.Helper()
	raw, err := utiljson.Marshal(obj)
	if err != nil {
		return err
	}
	gv, _ := schema.ParseGroupVersion(obj["apiVersion"].(string))
	into, err := scheme.New(gv.WithKind(obj["kind"].(string)))
	if runtime.IsNotRegisteredError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	strict, err := kjson.UnmarshalStrict(raw, into)
	return errors.Join(append(strict, err)...)
}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}()

// isOld says whether no Kubernetes of today serves this version, or a later one of the same kind is there.
func isOld(gvk schema.GroupVersionKind) bool {
	if _, gone := convert.NoSuccessor(gvk); gone {
		return true
	}
	s := convert.Successors(gvk)
	return len(s) > 0
}

// TestCorpus converts every object of the old folders to its best successor: nothing is left unknown, and what comes out
// has no field that the successor's type lacks, unless the object itself had unknown fields before.
func TestCorpus(t *testing.T) {
	dir := corpusDir(t)
	folders, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	converted, refused := 0, 0
	for _, folder := range folders {
		name := filepath.Base(folder)
		if !strings.HasPrefix(name, "old-") && !strings.HasPrefix(name, "api-testdata-") {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(folder, "*.*"))
		for _, file := range files {
			for _, obj := range manifests(t, file) {
				c, r := corpusObject(t, name+"/"+filepath.Base(file), obj)
				converted, refused = converted+c, refused+r
			}
		}
	}
	t.Logf("%d objects converted, %d without a successor", converted, refused)
	if converted < 150 {
		t.Errorf("only %d objects were converted; is the corpus whole?", converted)
	}
}

func corpusObject(t *testing.T, name string, obj map[string]any) (converted, refused int) {
	t.Helper()
	kind, _ := obj["kind"].(string)
	apiVersion, _ := obj["apiVersion"].(string)
	gv, _ := schema.ParseGroupVersion(apiVersion)
	gvk := gv.WithKind(kind)
	successors := convert.Successors(gvk)
	if !isOld(gvk) {
		if builtIn(gvk) && clientscheme.Scheme.Recognizes(gvk) && !strings.HasPrefix(gv.Version, "v1") {
			t.Errorf("%s: %s is neither known nor stable", name, gvk)
		}
		return 0, 0
	}
	if len(successors) == 0 {
		_, err := convert.Convert(obj, schema.GroupVersion{Group: "any", Version: "v1"})
		var why *convert.NoSuccessorError
		if !errors.As(err, &why) || why.Reason == "" {
			t.Errorf("%s: %s: want a reason, got %v", name, gvk, err)
		}
		return 0, 1
	}
	if meta, ok := obj["metadata"].(map[string]any); ok {
		delete(meta, "clusterName") // gone from every kind since Kubernetes 1.24
	}
	if strings.HasPrefix(name, "old-") {
		delete(obj, "status") // written by hand there; restores leave it out
	}
	before := typed(t, obj)
	_, err := convert.Convert(obj, successors[0].GroupVersion())
	if errors.Is(err, convert.ErrNoSuccessor) {
		return 0, 1
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0, 0
	}
	if err := typed(t, obj); err != nil && before == nil {
		t.Errorf("%s: %s became %s with fields that it lacks: %v", name, gvk, successors[0].GroupVersion(), err)
	}
	return 1, 0
}

// builtIn says whether Kubernetes itself serves the group.
func builtIn(gvk schema.GroupVersionKind) bool {
	return !strings.Contains(gvk.Group, ".") || strings.HasSuffix(gvk.Group, ".k8s.io")
}
