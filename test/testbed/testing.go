//go:build unix

package testbed

import (
	"context"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// NewCluster starts a control plane for one test and stops it when the test ends. A test that fails shows the ends of the servers' logs
// when it runs with -v.
func NewCluster(t testing.TB, version string, opts ...ClusterOption) *Cluster {
	t.Helper()
	c, err := StartCluster(t.Context(), version, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && testing.Verbose() {
			t.Logf("end of the API server's log:\n%s", c.Log("kube-apiserver", 4096))
		}
		c.Stop()
	})
	return c
}

// NewClusters starts several control planes at once.
func NewClusters(t testing.TB, versions ...string) []*Cluster {
	t.Helper()
	clusters := make([]*Cluster, len(versions))
	errs := make([]error, len(versions))
	var wait sync.WaitGroup
	for i, v := range versions {
		wait.Go(func() { clusters[i], errs[i] = StartCluster(t.Context(), v) })
	}
	wait.Wait()
	for i, c := range clusters {
		if c != nil {
			t.Cleanup(c.Stop)
		}
		if errs[i] != nil {
			t.Error(errs[i])
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return clusters
}

var shared struct {
	mu       sync.Mutex
	clusters map[string]*Cluster
	s3       map[bool]*S3
}

// SharedCluster gives a cluster of a version that all tests of a test binary share: they must use namespaces and names of their own.
// It is started by the first that asks, and ends with the process.
func SharedCluster(t testing.TB, version string) *Cluster {
	t.Helper()
	version, _, err := parseVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if c := shared.clusters[version]; c != nil {
		return c
	}
	c, err := StartCluster(context.WithoutCancel(t.Context()), version)
	if err != nil {
		t.Fatal(err)
	}
	if shared.clusters == nil {
		shared.clusters = map[string]*Cluster{}
	}
	shared.clusters[version] = c
	return c
}

// Kedge is the configuration of the service account that Kedge runs as in tests.
func (c *Cluster) Kedge(t testing.TB) *rest.Config {
	t.Helper()
	cfg, err := c.ServiceAccountConfig(t.Context(), "kedge")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// NewBucket makes a bucket for one test, on a server that all tests of a test binary share, and removes it when the test ends.
func NewBucket(t testing.TB, opts ...BucketOption) *Bucket {
	t.Helper()
	return newBucket(t, false, opts)
}

// NewTLSBucket is NewBucket on a server that speaks TLS with a private authority.
func NewTLSBucket(t testing.TB, opts ...BucketOption) *Bucket {
	t.Helper()
	return newBucket(t, true, opts)
}

func newBucket(t testing.TB, tls bool, opts []BucketOption) *Bucket {
	t.Helper()
	server := sharedS3(t, tls)
	b, err := server.MakeBucket(t.Context(), "", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Remove(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func sharedS3(t testing.TB, tls bool) *S3 {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if s := shared.s3[tls]; s != nil {
		return s
	}
	s, err := StartS3(context.WithoutCancel(t.Context()), tls)
	if err != nil {
		t.Fatal(err)
	}
	if shared.s3 == nil {
		shared.s3 = map[bool]*S3{}
	}
	shared.s3[tls] = s
	return s
}
