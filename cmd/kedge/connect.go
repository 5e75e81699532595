package main

import (
	"fmt"
	"time"

	"kedge.dev/kedge/internal/kube"
)

// cluster connects to the cluster that the flags name, and says what the kubeconfig calls it.
func (a *app) cluster(maxInFlight int) (*kube.Client, string, error) {
	cfg, name, err := a.kube.resolve()
	if err != nil {
		return nil, "", err
	}
	client, err := kube.New(cfg, kube.Options{
		UserAgent:   "kedge/" + version,
		MaxInFlight: maxInFlight,
		Now:         a.env.Now,
		OnThrottle: func(reason string, wait time.Duration) {
			if wait >= throttleNotice {
				a.ui.Note("The API server asks to slow down (%s); waiting %s.", reason, wait.Round(time.Second))
			}
		},
	})
	if err != nil {
		return nil, "", usageError(fmt.Errorf("connect to the cluster: %w", err), "")
	}
	return client, name, nil
}

// throttleNotice is the wait from which a person is told about it.
const throttleNotice = 5 * time.Second
