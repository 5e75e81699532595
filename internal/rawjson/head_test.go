package rawjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const sampleObject = `{"metadata":{"name":"cart","namespace":"shop","uid":"0b9f6f0e-5d56-4b9a-8f3f-0d6a0a7b1c2d","resourceVersion":"48213","generation":3,"creationTimestamp":"2025-11-02T10:11:12Z",` +
	`"labels":{"app.kubernetes.io/name":"cart","app.kubernetes.io/part-of":"shop","team":"blue"},"annotations":{"deployment.kubernetes.io/revision":"3","note":"caf\u00e9"},` +
	`"ownerReferences":[{"apiVersion":"shop.example.com/v1","kind":"Store","name":"main","uid":"u1","controller":true,"blockOwnerDeletion":true}],` +
	`"managedFields":[{"manager":"helm","operation":"Apply","apiVersion":"apps/v1","time":"2025-11-02T10:11:12Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{"f:team":{}}},"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"cart\"}":{".":{},"f:image":{},"f:name":{}}}}}}}},` +
	`{"manager":"kube-controller-manager","operation":"Update","apiVersion":"apps/v1","time":"2025-11-02T10:12:12Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:replicas":{}}},"subresource":"status"}]},` +
	`"spec":{"replicas":2,"selector":{"matchLabels":{"app":"cart"}},"template":{"metadata":{"creationTimestamp":null,"labels":{"app":"cart"}},"spec":{"containers":[{"name":"cart","image":"registry.example.com/shop/cart:1.2.3","ports":[{"containerPort":8080,"protocol":"TCP"}],"resources":{"limits":{"memory":"256Mi"}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst"}}},` +
	`"status":{"observedGeneration":3,"replicas":2,"conditions":[{"type":"Available","status":"True","lastUpdateTime":"2025-11-02T10:12:12Z","reason":"MinimumReplicasAvailable","message":"Deployment has minimum availability."}]}}`

func TestReadHead(t *testing.T) {
	got, err := ReadHead([]byte(sampleObject), "note", "absent")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := Head{
		Name: "cart", Namespace: "shop", UID: "0b9f6f0e-5d56-4b9a-8f3f-0d6a0a7b1c2d", ResourceVersion: "48213", CreationTimestamp: "2025-11-02T10:11:12Z",
		Labels:      map[string]string{"app.kubernetes.io/name": "cart", "app.kubernetes.io/part-of": "shop", "team": "blue"},
		Annotations: map[string]string{"note": "café"},
		Owners:      []Owner{{APIVersion: "shop.example.com/v1", Kind: "Store", Name: "main", UID: "u1", Controller: true, BlockOwnerDeletion: &yes}},
		Applied:     true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadHeadRefuses(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	for name, in := range map[string]string{
		"nothing": "", "an array": "[]", "a string": `"x"`, "cut": `{"metadata":{"name":"x"`, "more": `{} {}`, "a number for a name": `{"metadata":{"name":1}}`,
		"name twice": `{"metadata":{"name":"a","name":"b"}}`, "name twice in disguise": `{"metadata":{"name":"a","\u006eame":"b"}}`, "metadata twice": `{"metadata":{},"metadata":{}}`,
		"label twice": `{"metadata":{"labels":{"a":"1","a":"2"}}}`, "control character": "{\"a\":\"\x01\"}", "bad escape": `{"a":"\x"}`, "bad number": `{"a":01}`,
		"trailing comma": `{"a":1,}`, "no colon": `{"a" 1}`, "literal": `{"a":nul}`, "deep": `{"a":` + deep + `}`, "mismatch": `{"a":[1}`,
	} {
		if _, err := ReadHead([]byte(in)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestApplied(t *testing.T) {
	for entry, want := range map[string]bool{
		`{"operation":"Apply"}`:                            true,
		`{"operation":"Update"}`:                           false,
		`{"operation":"Apply","subresource":"status"}`:     false,
		`{"operation":"Apply","subresource":"scale"}`:      true,
		`{"fieldsV1":{"operation":"Apply"},"manager":"x"}`: false,
	} {
		got, err := ReadHead([]byte(`{"metadata":{"managedFields":[` + entry + `]}}`))
		if err != nil || got.Applied != want {
			t.Errorf("%s: %v, %v", entry, got.Applied, err)
		}
	}
}

func TestWithTypeMeta(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"metadata":{}}`, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{}}`},
		{` { } `, `{"apiVersion":"apps/v1","kind":"Deployment"} `},
		{`{"kind":"Deployment","apiVersion":"apps/v1","a":1}`, `{"kind":"Deployment","apiVersion":"apps/v1","a":1}`},
	} {
		got, err := WithTypeMeta([]byte("x"), []byte(c.in), "apps/v1", "Deployment")
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%s: %s, %v", c.in, got, err)
		}
		if !json.Valid(got[1:]) {
			t.Errorf("%s: invalid", got)
		}
	}
	for _, in := range []string{`{"kind":"Pod"}`, `{"apiVersion":"v1","kind":"Deployment"}`, `[]`, `{"kind":"Deployment"}`} {
		if _, err := WithTypeMeta(nil, []byte(in), "apps/v1", "Deployment"); err == nil {
			t.Errorf("%s: no error", in)
		}
	}
}

// FuzzReadHead holds the reader against encoding/json and apimachinery's own types.
func FuzzReadHead(f *testing.F) {
	for _, s := range []string{
		sampleObject, `{}`, `{"metadata":null}`, `{"metadata":{"labels":null,"ownerReferences":[null]}}`, `{"kind":"\ud83d\ude00","apiVersion":"\ud800"}`,
		`{"metadata":{"deletionTimestamp":"2025-01-01T00:00:00Z","finalizers":["a","b"]}}`, `{"a":[1,-0.5e+7,true,false,null,"\/"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		head, err := ReadHead(in)
		if err != nil {
			return // stricter by intent; TestReadHeadRefuses says in what
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q", in)
		}
		var want struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name, Namespace, UID, ResourceVersion, GenerateName string
				Labels                                              map[string]string
				Finalizers                                          []string
				OwnerReferences                                     []metav1.OwnerReference
			} `json:"metadata"`
		}
		if hasFoldedKeys(in) || json.Unmarshal(in, &want) != nil {
			return // encoding/json takes keys of any case for its fields
		}
		m := want.Metadata
		if head.APIVersion != want.APIVersion || head.Kind != want.Kind || head.Name != m.Name || head.Namespace != m.Namespace || head.UID != m.UID ||
			head.ResourceVersion != m.ResourceVersion || head.GenerateName != m.GenerateName || len(head.Owners) != len(m.OwnerReferences) {
			t.Fatalf("%q: %+v, want %+v", in, head, want)
		}
		if len(head.Labels)+len(m.Labels) > 0 && !cmp.Equal(head.Labels, m.Labels) {
			t.Fatalf("%q: labels %v, want %v", in, head.Labels, m.Labels)
		}
		out, err := head.WithTypeMeta(nil, in, head.APIVersion, head.Kind)
		if err != nil || string(out) != string(in) {
			if head.APIVersion != "" || head.Kind != "" {
				t.Fatalf("%q: %q, %v", in, out, err)
			}
		}
	})
}

// hasFoldedKeys says that a key of the text differs by case only from one that is read.
func hasFoldedKeys(in []byte) bool {
	dec := json.NewDecoder(strings.NewReader(string(in)))
	for {
		token, err := dec.Token()
		if err != nil {
			return false
		}
		s, _ := token.(string)
		for _, k := range []string{"apiVersion", "kind", "metadata", "name", "namespace", "uid", "resourceVersion", "generateName", "labels", "finalizers", "ownerReferences", "controller", "blockOwnerDeletion"} {
			if s != k && strings.EqualFold(s, k) {
				return true
			}
		}
	}
}

func BenchmarkReadHead(b *testing.B) {
	raw := []byte(sampleObject)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadHead(raw); err != nil {
			b.Fatal(err)
		}
	}
}
