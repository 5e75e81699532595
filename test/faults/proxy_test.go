//go:build unix

package faults

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kedge.dev/kedge/test/testbed"
)

const sent = 256 << 10

// origin is a server that answers with a body as long as the request's, and counts whole requests.
type origin struct {
	*httptest.Server
	whole atomic.Int64
	ca    []byte
}

func newOrigin(t *testing.T, secure bool) *origin {
	t.Helper()
	o := &origin{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != sent {
			return
		}
		o.whole.Add(1)
		_, _ = w.Write(make([]byte, sent))
	})
	o.Server = httptest.NewUnstartedServer(handler)
	if secure {
		o.EnableHTTP2 = true
		o.StartTLS()
		o.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	} else {
		o.Start()
	}
	t.Cleanup(o.Close)
	return o
}

// exchange sends a request through the proxy, once.
func exchange(t *testing.T, p *Proxy) (code, received int, err error) {
	t.Helper()
	cfg := p.Config(&rest.Config{})
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL, io.NopCloser(bytes.NewReader(make([]byte, sent))))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = sent
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, len(body), err
}

func TestFaults(t *testing.T) {
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "http1", true: "http2"}[secure]
		for _, fault := range All() {
			t.Run(name+"/"+string(fault), func(t *testing.T) {
				o := newOrigin(t, secure)
				p := NewProxy(t, o.URL, o.ca, Options{Seed: 7, Rate: 1, Faults: []Fault{fault}, Limit: 1, MaxLatency: time.Millisecond})
				code, received, err := exchange(t, p)
				whole := o.whole.Load()
				switch fault {
				case Latency:
					if err != nil || code != 200 || received != sent {
						t.Errorf("%d, %d bytes, %v", code, received, err)
					}
				case ResetBefore, ResetUpload:
					if err == nil || whole != 0 {
						t.Errorf("%d, %v; the server has seen %d whole requests", code, err, whole)
					}
				case ResetAfter:
					if err == nil || whole != 1 {
						t.Errorf("%d, %v; the server has seen %d whole requests", code, err, whole)
					}
				case Truncate:
					if err == nil || code != 200 || received >= sent || whole != 1 {
						t.Errorf("%d, %d bytes, %v; the server has seen %d whole requests", code, received, err, whole)
					}
				case Status429, Status500, Status503:
					if err != nil || string(fault) != itoa(code) || whole != 0 {
						t.Errorf("%d, %v; the server has seen %d whole requests", code, err, whole)
					}
				}
				if n := p.Counts()[fault]; n != 1 {
					t.Errorf("counted %d times", n)
				}
				if code, received, err = exchange(t, p); err != nil || code != 200 || received != sent {
					t.Errorf("after the limit: %d, %d bytes, %v", code, received, err)
				}
			})
		}
	}
}

func itoa(code int) string { return map[int]string{429: "429", 500: "500", 503: "503"}[code] }

func TestEqualSeedsSpoilEqualRequests(t *testing.T) {
	spoiled := 0
	fates := func(seed uint64) string {
		spoiled = 0
		p := &Proxy{opts: Options{Seed: seed, Rate: 0.3, Faults: All()}, counts: map[Fault]int{}}
		var b strings.Builder
		for range 200 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/", nil)
			if err != nil {
				t.Fatal(err)
			}
			f, _ := p.decide(r)
			b.WriteString(string(f) + ";")
			if f != "" {
				spoiled++
			}
		}
		return b.String()
	}
	first := fates(1)
	if again := fates(1); again != first {
		t.Error("one seed, two fates")
	}
	if other := fates(2); other == first {
		t.Error("two seeds, one fate")
	}
	if spoiled < 30 || spoiled > 100 {
		t.Errorf("of 200 requests %d were spoiled, at a rate of 0.3", spoiled)
	}
}

func TestRealServersThroughAProxy(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.36.3", testbed.NoControllers())
	p := NewProxy(t, cluster.URL, cluster.CA, Options{Seed: 3, Rate: 0.2})
	clients, err := kubernetes.NewForConfig(p.Config(cluster.Master()))
	if err != nil {
		t.Fatal(err)
	}
	retry(t, func(ctx context.Context) error {
		list, err := clients.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) < 4 {
			return errors.New("a truncated list looks whole")
		}
		return err
	})
	t.Log(p)

	bucket := testbed.NewBucket(t)
	p = NewProxy(t, bucket.Endpoint, nil, Options{Seed: 3, Rate: 0.2, RetryAfter: -1})
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(p.URL), Region: bucket.Region, UsePathStyle: true, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(bucket.AccessKey, bucket.SecretKey, ""),
	})
	retry(t, func(ctx context.Context) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket.Name, Key: aws.String("k"), Body: bytes.NewReader(make([]byte, sent))})
		return err
	})
	t.Log(p)
	if len(p.Counts()) == 0 {
		t.Error("no fault was met")
	}
}

// retry calls fn until it has succeeded twenty times.
func retry(t *testing.T, fn func(context.Context) error) {
	t.Helper()
	for good, bad := 0, 0; good < 20; {
		if err := fn(t.Context()); err == nil {
			good++
		} else if bad++; bad > 200 {
			t.Fatal(err)
		}
	}
}
