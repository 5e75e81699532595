package metrics

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// OwnCluster reads the identity of the cluster, the uid of its kube-system namespace, once; it never changes. reader must not be a cache
// that holds one namespace only.
func OwnCluster(reader client.Reader) func(ctx context.Context) (string, error) {
	var (
		mu  sync.Mutex
		uid string
	)
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if uid != "" {
			return uid, nil
		}
		var ns corev1.Namespace
		if err := reader.Get(ctx, client.ObjectKey{Name: "kube-system"}, &ns); err != nil {
			return "", fmt.Errorf("read the identity of the cluster: %w", err)
		}
		uid = string(ns.UID)
		return uid, nil
	}
}
