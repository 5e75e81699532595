//go:build unix

package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
)

// Restart is a power cut: every process of the node ends at once, its mounts, network and what it kept in memory are gone, and the node is started again
// with what is on its disk. It returns when containerd answers; pods are started again by the kubelet in its own time. What [Node.Reach] has
// shown to pods is shown again, at the same addresses. The scheduler and the controllers run elsewhere and go on; those that live beside the CSI driver
// end without it, and are started again, as a kubelet would.
func (n *Node) Restart(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.process.release(); err != nil { // or its watcher would begin to remove the disk
		return err
	}
	n.end()
	<-n.process.done
	n.cluster.forget(n.process)
	for _, socket := range []string{"node.sock", "host.sock", "containerd.sock", "containerd.sock.ttrpc", "csi.sock", "kubelet/plugins_registry/csi.sock"} {
		if err := os.Remove(n.file(socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what the node has left: %w", err)
		}
	}
	var err error
	if n.process, err = n.cluster.start("node", n.programs.node, "outside", n.file("settings.json")); err != nil {
		return err
	}
	if err := n.answers(ctx, "containerd.sock"); err != nil {
		return err
	}
	for address := range n.reached {
		if _, err := n.reach(ctx, address); err != nil {
			return fmt.Errorf("show %s to pods again: %w", address, err)
		}
	}
	if n.programs.csi == "" {
		return nil
	}
	if err := n.answers(ctx, "csi.sock"); err != nil {
		return err
	}
	for _, p := range n.controllers {
		n.cluster.forget(p)
		p.stop()
	}
	n.controllers, err = n.cluster.startCSIControllers()
	return err
}

// answers waits until somebody listens on a socket of the node.
func (n *Node) answers(ctx context.Context, socket string) error {
	return waitReady(ctx, socket, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", n.file(socket))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}, n.process)
}

// forget takes a server that has ended, or is about to, from the cluster's.
func (c *Cluster) forget(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = slices.DeleteFunc(c.servers, func(other *process) bool { return other == p })
}
