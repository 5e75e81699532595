package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clusterFlags say which cluster, with the names and meanings of kubectl.
type clusterFlags struct {
	kubeconfig string
	overrides  clientcmd.ConfigOverrides
}

// bind adds the flags. They are bound by hand to client-go's own overrides: the ready-made set of kubectl brings in half as much
// code again as the rest of this program.
func (c *clusterFlags) bind(flags *pflag.FlagSet) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default $KUBECONFIG, else ~/.kube/config, else the pod's service account)")
	o := &c.overrides
	fs.StringVar(&o.CurrentContext, clientcmd.FlagContext, "", "`name` of the kubeconfig context")
	fs.StringVar(&o.Context.Cluster, clientcmd.FlagClusterName, "", "`name` of the kubeconfig cluster")
	fs.StringVar(&o.Context.AuthInfo, clientcmd.FlagAuthInfoName, "", "`name` of the kubeconfig user")
	fs.StringVarP(&o.ClusterInfo.Server, clientcmd.FlagAPIServer, "s", "", "`URL` of the API server")
	fs.StringVar(&o.ClusterInfo.CertificateAuthority, clientcmd.FlagCAFile, "", "`file` with the API server's certificate authority")
	fs.BoolVar(&o.ClusterInfo.InsecureSkipTLSVerify, clientcmd.FlagInsecure, false, "do not check the API server's certificate (insecure)")
	fs.StringVar(&o.ClusterInfo.TLSServerName, clientcmd.FlagTLSServerName, "", "`name` to expect in the API server's certificate")
	fs.StringVar(&o.ClusterInfo.ProxyURL, clientcmd.FlagProxyURL, "", "`URL` of a proxy to the API server")
	fs.StringVar(&o.AuthInfo.ClientCertificate, clientcmd.FlagCertFile, "", "`file` with a client certificate")
	fs.StringVar(&o.AuthInfo.ClientKey, clientcmd.FlagKeyFile, "", "`file` with the client certificate's key")
	fs.StringVar(&o.AuthInfo.Token, clientcmd.FlagBearerToken, "", "bearer `token` for the API server")
	fs.StringVar(&o.AuthInfo.Impersonate, clientcmd.FlagImpersonate, "", "`user` to impersonate")
	fs.StringVar(&o.AuthInfo.ImpersonateUID, clientcmd.FlagImpersonateUID, "", "`uid` to impersonate")
	fs.StringArrayVar(&o.AuthInfo.ImpersonateGroups, clientcmd.FlagImpersonateGroup, nil, "`group` to impersonate (repeatable)")
	fs.StringVar(&o.Timeout, clientcmd.FlagTimeout, "0", "longest time for one request to the API server (\"30s\"; 0 means no limit)")
	fs.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{groupAnnotation: {groupCluster}}
		flags.AddFlag(f)
	})
}

// resolve gives the connection, and what the kubeconfig calls the cluster.
func (c *clusterFlags) resolve() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	rules.WarnIfAllMissing = false
	if c.kubeconfig != "" {
		if _, err := os.Stat(c.kubeconfig); err != nil {
			return nil, "", usageError(fmt.Errorf("read the kubeconfig: %w", err), "")
		}
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &c.overrides)
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", c.configError(loader, err)
	}
	return cfg, c.clusterName(loader, cfg), nil
}

func (c *clusterFlags) configError(loader clientcmd.ClientConfig, err error) error {
	if raw, rawErr := loader.RawConfig(); rawErr == nil && clientcmd.IsEmptyConfig(err) && len(raw.Contexts) > 0 {
		context := orElse(c.overrides.CurrentContext, raw.CurrentContext)
		return usageError(fmt.Errorf("read the kubeconfig: it lacks the cluster that context %q names", context), "choose another with --context")
	}
	if clientcmd.IsEmptyConfig(err) || errors.Is(err, rest.ErrNotInCluster) {
		return usageError(errors.New("find the cluster: there is no kubeconfig, and this is not a pod"), "name one with --kubeconfig or KUBECONFIG")
	}
	hint := ""
	if clientcmd.IsContextNotFound(err) || strings.Contains(err.Error(), "does not exist") {
		hint = "\"kubectl config get-contexts\" lists what the kubeconfig knows"
	}
	return usageError(fmt.Errorf("read the kubeconfig: %s", strings.TrimPrefix(oneLine(err.Error()), "invalid configuration: ")), hint)
}

// clusterName is the name of the cluster in the kubeconfig, or the host where it has none.
func (c *clusterFlags) clusterName(loader clientcmd.ClientConfig, cfg *rest.Config) string {
	raw, err := loader.RawConfig()
	if err == nil {
		name := orElse(c.overrides.CurrentContext, raw.CurrentContext)
		if c.overrides.Context.Cluster != "" {
			return c.overrides.Context.Cluster
		}
		if context := raw.Contexts[name]; context != nil && context.Cluster != "" {
			return context.Cluster
		}
	}
	host := cfg.Host[strings.LastIndex(cfg.Host, "/")+1:]
	host, _, _ = strings.Cut(host, ":")
	return host
}
