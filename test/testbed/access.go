//go:build unix

package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// AccessNamespace is where ServiceAccountConfig puts its service accounts. Comparisons of clusters leave it out.
const AccessNamespace = "kedge-testbed"

// tokenSeconds is how long a service account's token is valid; longer than any test.
const tokenSeconds = 24 * 60 * 60

// ServiceAccountConfig is a client configuration of a service account of that name, made where it is missing, in AccessNamespace.
// It may do everything, by a ClusterRole of its own, but is no member of system:masters: what it does passes RBAC and
// priority and fairness as an administrator's or an operator's requests do.
func (c *Cluster) ServiceAccountConfig(ctx context.Context, name string) (*rest.Config, error) {
	everything := []rbacv1.PolicyRule{
		{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}},
	}
	return c.ServiceAccountConfigWithRules(ctx, name, everything)
}

// ServiceAccountConfigWithRules is ServiceAccountConfig for an account that may do only what the rules say, cluster-wide. An account is
// made once: later rules for the same name change nothing.
func (c *Cluster) ServiceAccountConfigWithRules(ctx context.Context, name string, rules []rbacv1.PolicyRule) (*rest.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cfg := c.accounts[name]; cfg != nil {
		return rest.CopyConfig(cfg), nil
	}
	clients, err := kubernetes.NewForConfig(c.Master())
	if err != nil {
		return nil, err
	}
	if err := makeAccount(ctx, clients, name, rules); err != nil {
		return nil, fmt.Errorf("make service account %s: %w", name, err)
	}
	seconds := int64(tokenSeconds)
	token, err := clients.CoreV1().ServiceAccounts(AccessNamespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask for a token of service account %s: %w", name, err)
	}
	if c.accounts == nil {
		c.accounts = map[string]*rest.Config{}
	}
	c.accounts[name] = c.config(token.Status.Token)
	return rest.CopyConfig(c.accounts[name]), nil
}

func makeAccount(ctx context.Context, clients kubernetes.Interface, name string, rules []rbacv1.PolicyRule) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: AccessNamespace}}
	if _, err := clients.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !isExists(err) {
		return err
	}
	meta := metav1.ObjectMeta{Name: name, Namespace: AccessNamespace}
	account := &corev1.ServiceAccount{ObjectMeta: meta}
	if _, err := clients.CoreV1().ServiceAccounts(AccessNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !isExists(err) {
		return err
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: AccessNamespace + ":" + name}, Rules: rules}
	if _, err := clients.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil && !isExists(err) {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: role.ObjectMeta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: AccessNamespace, Name: name}},
	}
	if _, err := clients.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil && !isExists(err) {
		return err
	}
	return mayUse(ctx, clients, name, rules)
}

// mayUse waits until the server's authorizer has seen the rules: a busy one takes some time.
func mayUse(ctx context.Context, clients kubernetes.Interface, name string, rules []rbacv1.PolicyRule) error {
	i := slices.IndexFunc(rules, func(r rbacv1.PolicyRule) bool { return len(r.Resources) > 0 })
	if i < 0 {
		return nil
	}
	ask := &authorizationv1.ResourceAttributes{Group: rules[i].APIGroups[0], Verb: rules[i].Verbs[0]}
	ask.Resource, ask.Subresource, _ = strings.Cut(rules[i].Resources[0], "/")
	if len(rules[i].ResourceNames) > 0 {
		ask.Name = rules[i].ResourceNames[0]
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + AccessNamespace + ":" + name, ResourceAttributes: ask,
	}}
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		got, err := clients.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		return err == nil && got.Status.Allowed, err
	})
}

// Kubeconfig writes a kubeconfig for one of the cluster's configurations and returns its path. The file goes when the cluster stops.
func (c *Cluster) Kubeconfig(cfg *rest.Config) (string, error) {
	path := c.files(randomHex(4) + ".kubeconfig")
	return path, c.writeKubeconfig(path, cfg)
}

// MasterKubeconfig is the path of a kubeconfig for Master.
func (c *Cluster) MasterKubeconfig() string { return c.files("master.kubeconfig") }

// WriteKubeconfig writes a kubeconfig for one of the cluster's configurations to a path.
func (c *Cluster) WriteKubeconfig(path string, cfg *rest.Config) error {
	return c.writeKubeconfig(path, cfg)
}

func (c *Cluster) writeKubeconfig(path string, cfg *rest.Config) error {
	file := clientcmdapi.NewConfig()
	file.Clusters[c.Name] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	file.AuthInfos[c.Name] = &clientcmdapi.AuthInfo{Token: cfg.BearerToken}
	file.Contexts[c.Name] = &clientcmdapi.Context{Cluster: c.Name, AuthInfo: c.Name}
	file.CurrentContext = c.Name
	data, err := clientcmd.Write(*file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
