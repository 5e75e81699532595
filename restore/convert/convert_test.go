package convert_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/restore/convert"
)

var update = flag.Bool("update", false, "write what conversions do into testdata; read the difference before it is committed")

// TestConvert runs the pairs of testdata: each a txtar file with the object (in.yaml), the version (to.txt), and what
// becomes of it: out.yaml and warnings.txt, or refused.txt. TestOraclePairs checks them against Kubernetes' own code.
func TestConvert(t *testing.T) {
	for _, file := range pairFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, sections := pairOf(t, file)
			obj := parsedYAML(t, sections["in.yaml"])
			warnings, err := convert.Convert(obj, versionOf(t, sections))
			got := map[string]string{}
			switch {
			case errors.Is(err, convert.ErrNoSuccessor):
				got["refused.txt"] = err.Error() + "\n"
			case err != nil:
				t.Fatal(err)
			default:
				out, err := yaml.Marshal(obj)
				if err != nil {
					t.Fatal(err)
				}
				got["out.yaml"] = string(out)
				for _, w := range warnings {
					got["warnings.txt"] += w + "\n"
				}
				if err := typed(t, obj); err != nil {
					t.Errorf("the result has fields that its type lacks: %v", err)
				}
			}
			settle(t, file, archive, sections, got)
		})
	}
}

func pairFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 60 {
		t.Fatalf("found %d pairs: %v", len(files), err)
	}
	return files
}

func pairOf(t *testing.T, file string) (*txtar.Archive, map[string]string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
	}
	return archive, sections
}

func versionOf(t *testing.T, sections map[string]string) schema.GroupVersion {
	t.Helper()
	gv, err := schema.ParseGroupVersion(strings.TrimSpace(sections["to.txt"]))
	if err != nil {
		t.Fatal(err)
	}
	return gv
}

// settle compares what there is with what is wanted, or writes it down.
func settle(t *testing.T, file string, archive *txtar.Archive, want, got map[string]string) {
	t.Helper()
	if !*update {
		for _, name := range []string{"out.yaml", "warnings.txt", "refused.txt"} {
			if diff := cmp.Diff(want[name], got[name]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		return
	}
	archive.Files = append(archive.Files[:0:0], txtar.File{Name: "to.txt", Data: []byte(want["to.txt"])}, txtar.File{Name: "in.yaml", Data: []byte(want["in.yaml"])})
	for _, name := range []string{"out.yaml", "warnings.txt", "refused.txt"} {
		if got[name] != "" {
			archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(got[name])})
		}
	}
	if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
		t.Fatal(err)
	}
}

func parsedYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(raw, &obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestSuccessors(t *testing.T) {
	for _, tt := range []struct{ apiVersion, kind, want string }{
		{"extensions/v1beta1", "Ingress", "networking.k8s.io/v1 networking.k8s.io/v1beta1"},
		{"networking.k8s.io/v1", "Ingress", "networking.k8s.io/v1beta1 extensions/v1beta1"},
		{"extensions/v1beta1", "Deployment", "apps/v1 apps/v1beta2 apps/v1beta1"},
		{"autoscaling/v2beta1", "HorizontalPodAutoscaler", "autoscaling/v2 autoscaling/v1 autoscaling/v2beta2"},
		{"policy/v1beta1", "PodSecurityPolicy", ""},
		{"v1", "Pod", ""},
		{"example.com/v1", "Shop", ""},
	} {
		gv, err := schema.ParseGroupVersion(tt.apiVersion)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range convert.Successors(gv.WithKind(tt.kind)) {
			got = append(got, s.GroupVersion().String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s %s: got %v, want %s", tt.apiVersion, tt.kind, got, tt.want)
		}
	}
}

func TestConvertErrors(t *testing.T) {
	v1 := schema.GroupVersion{Group: "apps", Version: "v1"}
	for name, obj := range map[string]map[string]any{
		"nil":            nil,
		"no kind":        {"apiVersion": "v1"},
		"odd version":    {"apiVersion": "a/b/c", "kind": "X"},
		"custom":         {"apiVersion": "example.com/v1", "kind": "Shop"},
		"another target": {"apiVersion": "batch/v1beta1", "kind": "CronJob"},
	} {
		if _, err := convert.Convert(obj, v1); !errors.Is(err, convert.ErrUnknown) {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	obj := map[string]any{"apiVersion": "apps/v1", "kind": "Deployment"}
	if w, err := convert.Convert(obj, v1); err != nil || w != nil || len(obj) != 2 {
		t.Errorf("its own version: %v %v %v", w, err, obj)
	}
}

// FuzzConvert gives every conversion any JSON as an object of its kind.
func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	kinds := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range archive.Files {
			if s.Name != "in.yaml" {
				continue
			}
			raw, err := yaml.YAMLToJSON(s.Data)
			if err != nil {
				f.Fatal(err)
			}
			var obj map[string]any
			if err := json.Unmarshal(raw, &obj); err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
			kinds[obj["apiVersion"].(string)+" "+obj["kind"].(string)] = true
		}
	}
	f.Add([]byte(`{"spec":[],"metadata":{"annotations":{"autoscaling.alpha.kubernetes.io/metrics":"[1,null,{}]"}},"webhooks":[null,1],"endpoints":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for k := range kinds {
			apiVersion, kind, _ := strings.Cut(k, " ")
			gv, _ := schema.ParseGroupVersion(apiVersion)
			for _, to := range convert.Successors(gv.WithKind(kind)) {
				var obj map[string]any
				if utiljson.Unmarshal(raw, &obj) != nil || obj == nil {
					return
				}
				obj["apiVersion"], obj["kind"] = apiVersion, kind
				if _, err := convert.Convert(obj, to.GroupVersion()); err == nil && obj["apiVersion"] != to.GroupVersion().String() {
					t.Errorf("%s became %v", to, obj["apiVersion"])
				}
			}
		}
	})
}
