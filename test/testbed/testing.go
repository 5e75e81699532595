//go:build unix

package testbed

import (
	"context"
	"errors"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// NewCluster starts a control plane for one test and stops it when the test ends. A test that fails shows the ends of the servers' logs
// when it runs with -v. Where it asks for a node that this machine cannot run, it is skipped.
func NewCluster(tb testing.TB, version string, opts ...ClusterOption) *Cluster {
	tb.Helper()
	c, err := StartCluster(tb.Context(), version, opts...)
	if errors.Is(err, ErrNoNode) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() && testing.Verbose() {
			tb.Logf("end of the API server's log:\n%s", c.Log("kube-apiserver", 4096))
			if c.Node() != nil {
				tb.Logf("end of the node's log:\n%s", c.Log("node", 16384))
			}
		}
		c.Stop()
	})
	return c
}

// NewClusters starts several control planes at once.
func NewClusters(tb testing.TB, versions ...string) []*Cluster {
	tb.Helper()
	clusters := make([]*Cluster, len(versions))
	errs := make([]error, len(versions))
	var wait sync.WaitGroup
	for i, v := range versions {
		wait.Go(func() { clusters[i], errs[i] = StartCluster(tb.Context(), v) })
	}
	wait.Wait()
	for i, c := range clusters {
		if c != nil {
			tb.Cleanup(c.Stop)
		}
		if errs[i] != nil {
			tb.Error(errs[i])
		}
	}
	if tb.Failed() {
		tb.FailNow()
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
func SharedCluster(tb testing.TB, version string) *Cluster {
	tb.Helper()
	version, _, err := parseVersion(version)
	if err != nil {
		tb.Fatal(err)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if c := shared.clusters[version]; c != nil {
		return c
	}
	c, err := StartCluster(context.WithoutCancel(tb.Context()), version)
	if err != nil {
		tb.Fatal(err)
	}
	if shared.clusters == nil {
		shared.clusters = map[string]*Cluster{}
	}
	shared.clusters[version] = c
	return c
}

// Kedge is the configuration of the service account that Kedge runs as in tests.
func (c *Cluster) Kedge(tb testing.TB) *rest.Config {
	tb.Helper()
	cfg, err := c.ServiceAccountConfig(tb.Context(), "kedge")
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// NewBucket makes a bucket for one test, on a server that all tests of a test binary share, and removes it when the test ends.
func NewBucket(tb testing.TB, opts ...BucketOption) *Bucket {
	tb.Helper()
	return newBucket(tb, false, opts)
}

// NewTLSBucket is NewBucket on a server that speaks TLS with a private authority.
func NewTLSBucket(tb testing.TB, opts ...BucketOption) *Bucket {
	tb.Helper()
	return newBucket(tb, true, opts)
}

func newBucket(tb testing.TB, tls bool, opts []BucketOption) *Bucket {
	tb.Helper()
	server := sharedS3(tb, tls)
	b, err := server.MakeBucket(tb.Context(), "", opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Remove(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func sharedS3(tb testing.TB, tls bool) *S3 {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if s := shared.s3[tls]; s != nil {
		return s
	}
	s, err := StartS3(context.WithoutCancel(tb.Context()), tls)
	if err != nil {
		tb.Fatal(err)
	}
	if shared.s3 == nil {
		shared.s3 = map[bool]*S3{}
	}
	shared.s3[tls] = s
	return s
}
