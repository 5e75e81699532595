package kube

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/version"

	"kedge.dev/kedge/internal/rawjson"
)

// ClusterInfo identifies a cluster.
type ClusterInfo struct {
	UID     string // of the kube-system namespace
	Version string // gitVersion of the API server
}

// ClusterInfo reads what identifies the cluster.
func (c *Client) ClusterInfo(ctx context.Context) (ClusterInfo, error) {
	var info version.Info
	if err := c.getJSON(ctx, "/version", &info); err != nil {
		return ClusterInfo{}, fmt.Errorf("read the server's version: %w", err)
	}
	uid, err := c.ClusterUID(ctx)
	return ClusterInfo{UID: uid, Version: info.GitVersion}, err
}

// ClusterUID reads the uid of the kube-system namespace, which nobody can make again.
func (c *Client) ClusterUID(ctx context.Context) (string, error) {
	resp, err := c.Do(ctx, Request{Path: "/api/v1/namespaces/kube-system"})
	if err != nil {
		return "", fmt.Errorf("read the uid of namespace kube-system, by which the cluster is known: %w", err)
	}
	head, err := rawjson.ReadHead(resp.Body)
	if err != nil {
		return "", fmt.Errorf("read namespace kube-system: %w", err)
	}
	if head.UID == "" {
		return "", errors.New("read namespace kube-system: it has no uid")
	}
	return head.UID, nil
}
