package backup

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/internal/kube"
)

// fakeServer streams canned lists of deployments, so that a benchmark measures the engine alone.
type fakeServer struct {
	perPage []byte // items of a page of pageSize, with commas
	total   int
}

const (
	fakePage     = 500
	fakeRevision = "4711"
)

func newFakeServer(total int) *fakeServer {
	var items bytes.Buffer
	for i := range fakePage {
		if i > 0 {
			items.WriteByte(',')
		}
		// %06d in the name is overwritten for each page.
		fmt.Fprintf(&items, `{"metadata":{"name":"web-%06d","namespace":"shop","uid":"%032d","resourceVersion":"%d","creationTimestamp":"2025-01-01T00:00:00Z","labels":{"app":"web","team":"blue"},`, i, i, i+100)
		items.WriteString(`"managedFields":[{"manager":"kubectl","operation":"Update","apiVersion":"apps/v1","time":"2025-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:team":{}}},"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:name":{}}}}}}}}]},`)
		fmt.Fprintf(&items, `"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"web"}},"template":{"spec":{"containers":[{"name":"web","image":"registry.example.com/web:%d","env":[`, i%7, i)
		for e := range 12 {
			fmt.Fprintf(&items, `{"name":"SETTING_%d","value":"%d"},`, e, e*i*7919%100003)
		}
		items.WriteString(`{"name":"END","value":"1"}]}]}}},"status":{"replicas":1}}`)
	}
	return &fakeServer{perPage: items.Bytes(), total: total}
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/version":
		_, _ = w.Write([]byte(`{"gitVersion":"v1.36.3"}`))
	case "/api":
		_, _ = w.Write([]byte(`{"versions":[]}`))
	case "/apis":
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		_, _ = w.Write([]byte(`{"items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1","freshness":"Current","resources":[{"resource":"deployments","responseKind":{"kind":"Deployment"},"scope":"Namespaced","verbs":["list","get","create"]}]}]}]}`))
	case "/api/v1/namespaces/kube-system":
		_, _ = w.Write([]byte(`{"metadata":{"name":"kube-system","uid":"u"}}`))
	case "/apis/apiextensions.k8s.io/v1/customresourcedefinitions":
		fmt.Fprintf(w, `{"kind":"CustomResourceDefinitionList","metadata":{"resourceVersion":%q},"items":[]}`, fakeRevision)
	default:
		f.list(w, r)
	}
}

func (f *fakeServer) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("limit") == "1" {
		fmt.Fprintf(w, `{"kind":"DeploymentList","apiVersion":"apps/v1","metadata":{"resourceVersion":%q,"continue":"x","remainingItemCount":%d},"items":[]}`, fakeRevision, f.total)
		return
	}
	page, _ := strconv.Atoi(q.Get("continue"))
	more := ""
	if (page+1)*fakePage < f.total {
		more = fmt.Sprintf(`,"continue":"%d"`, page+1)
	}
	fmt.Fprintf(w, `{"kind":"DeploymentList","apiVersion":"apps/v1","metadata":{"resourceVersion":%q%s},"items":[`, fakeRevision, more)
	_, _ = w.Write(bytes.ReplaceAll(f.perPage, []byte(`"web-000`), fmt.Appendf(nil, `"web-%03d`, page)))
	_, _ = w.Write([]byte("]}"))
}

// BenchmarkRun measures the engine with its archive in a folder; one operation is one backup of 20,000 objects.
func BenchmarkRun(b *testing.B) {
	const total = 20000
	fake := newFakeServer(total)
	server := httptest.NewServer(fake)
	defer server.Close()
	client, err := kube.New(&rest.Config{Host: server.URL}, kube.Options{})
	if err != nil {
		b.Fatal(err)
	}
	v := newVault(b)
	e := newEngine(b, client, v)
	b.SetBytes(int64(len(fake.perPage)) * total / fakePage)
	n := 0
	for b.Loop() {
		n++
		record, err := e.Run(b.Context(), Request{Name: "bench", UID: fmt.Sprintf("%s%012d", "0a6bd2a0-0000-4000-8000-", n)})
		if err != nil {
			b.Fatal(err)
		}
		if record.Counts.Items != total {
			b.Fatalf("%d items", record.Counts.Items)
		}
	}
	b.ReportMetric(float64(total)*float64(n)/b.Elapsed().Seconds(), "objects/s")
}
