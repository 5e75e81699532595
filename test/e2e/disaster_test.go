//go:build unix

package e2e_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/testbed"
)

// TestLostNamespace deletes a namespace whose volumes are retained, and restores it: its claims get their volumes, and with them their data, back.
func TestLostNamespace(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.24.17")
	if _, err := apps.Install(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	claims := clients.CoreV1().PersistentVolumeClaims("shop")
	allBound := func() bool {
		list, err := claims.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if list.Items[i].Status.Phase != corev1.ClaimBound {
				return false
			}
		}
		return len(list.Items) == 3
	}
	until(t, "the claims of shop are bound", allBound)
	w := newWorld(t)
	config := kubeconfig(t, cluster)
	w.must(t, "backup", "create", "good", "--kubeconfig", config)

	if err := clients.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the namespace is gone", func() bool {
		_, err := clients.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	w.must(t, "restore", "create", "--from-backup", "good", "--include-namespaces", "shop", "--kubeconfig", config)
	until(t, "the restored claims of shop are bound", allBound)
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
