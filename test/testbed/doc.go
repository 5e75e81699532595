// Package testbed runs real Kubernetes control planes (etcd, kube-apiserver, kube-controller-manager of any version) and a
// real S3 server on loopback addresses, for tests, benchmarks and demonstrations.
//
// The programs are built from their Go modules, once, into a cache outside of the source tree ([CacheDir]); from then on a
// control plane is ready seconds after it was asked for. What is started ends with the test, or with the process that
// started it, however that process ends.
//
// A cluster can have a node that runs pods ([WithNode]), and that a CSI driver whose volumes have snapshots ([WithCSI]).
//
// Tests use [NewCluster], [SharedCluster] and [NewBucket]; commands use [StartCluster] and [StartS3].
package testbed
