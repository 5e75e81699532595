package main

import (
	"fmt"
	"time"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/podexec"
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

// commands runs commands in pods of the cluster that the flags name.
func (a *app) commands() (*podexec.Client, error) {
	cfg, _, err := a.kube.resolve()
	if err != nil {
		return nil, err
	}
	client, err := podexec.New(cfg)
	if err != nil {
		return nil, usageError(fmt.Errorf("connect to the cluster: %w", err), "")
	}
	return client, nil
}

// throttleNotice is the wait from which a person is told about it.
const throttleNotice = 5 * time.Second
