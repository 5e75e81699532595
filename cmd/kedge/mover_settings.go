package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/volume/mover"
)

// moverFlagNames are the flags of bindMovers.
var moverFlagNames = []string{"mover-namespace", "mover-image", "mover-secret", "mover-service-account"}

// moverHint says what settings of movers need.
const moverHint = "name --mover-namespace, --mover-image and --mover-secret; docs/mover.md says how to prepare them"

// bindMovers adds the flags that say how Jobs for the files of volumes are run.
func bindMovers(flags *pflag.FlagSet, s *mover.Settings) {
	flags.StringVar(&s.Namespace, "mover-namespace", "", "`namespace` of Jobs that copy and restore the files of volumes which no provider knows (default: there are none)")
	flags.StringVar(&s.Image, "mover-image", "", "`image` of these Jobs: Kedge's own")
	flags.StringVar(&s.Secret, "mover-secret", "kedge-location", "`name` of the Secret in their namespace with config.yaml, and the key files that it names, at "+mover.ConfigPath)
	flags.StringVar(&s.ServiceAccount, "mover-service-account", "", "`name` of their service account, as which they reach the bucket (default: the namespace's)")
	annotate(flags, groupMovers, moverFlagNames...)
}

// mover runs Jobs in the cluster as the kubeconfig's user; nil where the flags ask for none.
func (a *app) mover(client *kube.Client, location string) (*mover.Mover, error) {
	if err := a.movers.Check(); err != nil {
		return nil, usageError(fmt.Errorf("move the files of volumes: %w", err), moverHint)
	}
	return a.movers.With(client, location, a.env.Now), nil
}
