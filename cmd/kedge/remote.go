package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
)

// remote is Kedge's server in a cluster. It is reached by the objects in its namespace alone, with the rights of the kubeconfig's user.
type remote struct {
	app       *app
	client    client.Client
	namespace string
	// cluster is what the kubeconfig calls the cluster.
	cluster string
}

// mode is where commands do their work.
type mode int

const (
	// modeUnsaid: neither flag, environment nor configuration says it.
	modeUnsaid mode = iota
	modeLocal
	modeServer
)

// mode reads what is said about --local: by the flag, the environment, the configuration, in this order. A configuration with locations that
// says nothing means this process.
func (a *app) mode(c *config) (mode, error) {
	if a.flags.local.given {
		return modeOf(a.flags.local.value), nil
	}
	if text := a.env.Getenv("KEDGE_LOCAL"); text != "" {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return 0, usageError(fmt.Errorf("read KEDGE_LOCAL: %q is neither true nor false", text), "")
		}
		return modeOf(on), nil
	}
	switch {
	case c.Local != nil:
		return modeOf(*c.Local), nil
	case len(c.Locations) > 0:
		return modeLocal, nil
	}
	return modeUnsaid, nil
}

func modeOf(local bool) mode {
	if local {
		return modeLocal
	}
	return modeServer
}

// choose says where a command does its work: in this process, with the configuration, where the remote is nil; else by the server.
func (a *app) choose() (*config, *remote, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	m, err := a.mode(c)
	if err != nil {
		return nil, nil, err
	}
	if m == modeLocal {
		return c, nil, nil
	}
	r, err := a.connectServer(c)
	return c, r, err
}

// chooseLocations is choose for commands about locations, which this machine can have before anything else: where nothing is said, a cluster
// with Kedge's kinds decides for the server, and everything else for this machine.
func (a *app) chooseLocations(ctx context.Context) (*config, *remote, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	m, err := a.mode(c)
	if err != nil || m == modeLocal {
		return c, nil, err
	}
	if m == modeUnsaid && !a.serverThere(ctx) {
		return c, nil, nil
	}
	r, err := a.connectServer(c)
	return c, r, err
}

// probeTimeout bounds the question whether a cluster has Kedge's kinds, which is asked on the way to something else.
const probeTimeout = 5 * time.Second

// serverThere says whether the cluster of the kubeconfig answers that it has Kedge's kinds.
func (a *app) serverThere(ctx context.Context) bool {
	k, _, err := a.cluster(1)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err = k.Do(ctx, kube.Request{Method: http.MethodGet, Path: "/apis/" + v1alpha1.GroupVersion.String()})
	return err == nil
}

// kedgeNamespace is where the server's objects are: --kedge-namespace, $KEDGE_NAMESPACE, "namespace" of the configuration, or "kedge".
func (a *app) kedgeNamespace(c *config) string {
	return orElse(a.flags.namespace, orElse(a.env.Getenv("KEDGE_NAMESPACE"), orElse(c.Namespace, "kedge")))
}

// connectServer makes the client of the server's objects; nothing is asked yet.
func (a *app) connectServer(c *config) (*remote, error) {
	namespace := a.kedgeNamespace(c)
	if err := checkName("namespace", namespace); err != nil {
		return nil, usageError(fmt.Errorf("read the namespace of Kedge's server: %w", err), "")
	}
	cfg, name, err := a.kube.resolve()
	if err != nil {
		return nil, addHint(err, localHint)
	}
	cfg.UserAgent = "kedge/" + version
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	made, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: fixedMapper()})
	if err != nil {
		return nil, usageError(fmt.Errorf("connect to the cluster: %w", err), "")
	}
	return &remote{app: a, client: made, namespace: namespace, cluster: name}, nil
}

// fixedMapper knows the kinds that commands use, so that none has to be looked up in the cluster first.
func fixedMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion, corev1.SchemeGroupVersion})
	for _, kind := range []string{"Backup", "BackupStorageLocation", "DeleteBackupRequest", "DownloadRequest", "Restore", "Schedule"} {
		m.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	m.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	return m
}

// localHint is the way out for those who have no server.
const localHint = `add --local to run in this process, or set KEDGE_LOCAL=1, or "local: true" in the configuration file`

// onlyLocal is the error of what the server does not do.
func onlyLocal(what, why string) error {
	return usageError(fmt.Errorf("%s: not through the server: %s", what, why), "add --local: this machine then needs access to the bucket and a key that opens it")
}
