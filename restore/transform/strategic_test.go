package transform

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

var update = flag.Bool("update", false, "write strategic.json anew from client-go's scheme")

// TestStrategicTable compares the table with what it is made from.
func TestStrategicTable(t *testing.T) {
	made := &shapes{Kinds: map[string]map[string]string{}, Shapes: map[string]map[string]shapeField{}}
	for gvk, typ := range scheme.Scheme.AllKnownTypes() {
		if meta, ok := typ.FieldByName("ObjectMeta"); !ok || !meta.Anonymous || gvk.Version == runtime.APIVersionInternal {
			continue
		}
		apiVersion := gvk.GroupVersion().String()
		if made.Kinds[apiVersion] == nil {
			made.Kinds[apiVersion] = map[string]string{}
		}
		made.Kinds[apiVersion][gvk.Kind] = made.add(typ, nil)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	if err := enc.Encode(made); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("strategic.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(b.Bytes(), strategicTable) {
		t.Error("strategic.json is out of date: run go test ./restore/transform -run TestStrategicTable -update")
	}
}

// add notes the shape of a type and gives its name, "" where nothing below it is merged in a way of its own.
func (s *shapes) add(t reflect.Type, above []reflect.Type) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return ""
	}
	name := strings.TrimPrefix(strings.TrimPrefix(t.PkgPath(), "k8s.io/api/"), "k8s.io/apimachinery/pkg/apis/") + "." + t.Name()
	if slices.Contains(above, t) {
		return name
	}
	fields := map[string]shapeField{}
	s.fields(t, append(above, t), fields)
	if len(fields) == 0 {
		return ""
	}
	s.Shapes[name] = fields
	return name
}

func (s *shapes) fields(t reflect.Type, above []reflect.Type, out map[string]shapeField) {
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && key == "" {
			if f.Type.Kind() == reflect.Struct {
				s.fields(f.Type, above, out)
			}
			continue
		}
		field := shapeField{Shape: s.add(f.Type, above), MergeKey: f.Tag.Get("patchMergeKey")}
		if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
			field.Strategies = strings.Split(strategy, ",")
		}
		if key != "-" && key != "" && (field.Shape != "" || field.Strategies != nil || field.MergeKey != "") {
			out[key] = field
		}
	}
}

// TestStrategicMergeAsKubernetes compares merges by the table with merges by Kubernetes' types.
func TestStrategicMergeAsKubernetes(t *testing.T) {
	const original = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, labels: {x: y}, finalizers: [a], ownerReferences: [{uid: "1", name: a}]},
	  spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}, selector: {matchExpressions: [{key: a}]}, template: {spec: {
	  volumes: [{name: v, configMap: {name: c, items: [{key: a}]}}], tolerations: [{key: a}], imagePullSecrets: [{name: a}], hostAliases: [{ip: "1"}],
	  containers: [{name: a, ports: [{containerPort: 1, protocol: TCP}], env: [{name: A, value: x}, {name: B}], args: [a], volumeMounts: [{mountPath: /a, name: v}]}, {name: b}]}}}}`
	for _, patch := range []string{
		`metadata: {labels: {x: null, z: "1"}, finalizers: [b], ownerReferences: [{uid: "2"}, {uid: "1", $patch: delete}]}`,
		`spec: {template: {spec: {containers: [{name: a, ports: [{containerPort: 2}], env: [{name: A, value: y}, {name: B, $patch: delete}], args: [b]}]}}}`,
		`spec: {template: {spec: {containers: [{$patch: replace}, {name: c}]}}}`,
		`spec: {template: {spec: {containers: [{name: b, $patch: delete}, {name: a, volumeMounts: [{mountPath: /b, name: v}]}]}}}`,
		`spec: {template: {spec: {volumes: [{name: v, $retainKeys: [name, emptyDir], emptyDir: {}}], tolerations: [{key: b}], imagePullSecrets: [{name: b}], hostAliases: [{ip: "2"}]}}}`,
		`spec: {strategy: {$retainKeys: [type], type: Recreate}, selector: {matchExpressions: [{key: b}]}}`,
		`{$setElementOrder/x: [a], spec: {template: {spec: {$setElementOrder/containers: [{name: b}, {name: a}], containers: [{name: a, image: x}, {name: b, image: y}]}}}}`,
		`{metadata: {$deleteFromPrimitiveList/finalizers: [a]}, unknown: {a: [1]}}`,
	} {
		t.Run(patch, func(t *testing.T) {
			obj, raw := decode(t, original)
			patchJSON, patchRaw := decode(t, patch)
			typed, err := scheme.Scheme.New(scheme.Scheme.PrioritizedVersionsForGroup("apps")[0].WithKind("Deployment"))
			if err != nil {
				t.Fatal(err)
			}
			want, wantErr := strategicpatch.StrategicMergePatch(raw, patchRaw, typed)
			shape, ok, err := mergingOf("apps/v1", "Deployment")
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			got, gotErr := strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(obj, patchJSON, shape)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("errors are %v and %v", wantErr, gotErr)
			}
			if wantErr != nil {
				return
			}
			var wantMap map[string]any
			if err := utiljson.Unmarshal(want, &wantMap); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantMap, map[string]any(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
