//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/bench/objects"
	"kedge.dev/kedge/test/testbed"
)

// server is an API server and the kubeconfig of the account that both programs use on it.
type server struct {
	cluster    *testbed.Cluster
	kubeconfig string
}

// onServer runs fn on a fresh server. No controllers run: nothing is done but what is measured.
func (b *bench) onServer(ctx context.Context, fn func(*server) error) error {
	c, err := testbed.StartCluster(ctx, version, testbed.NoControllers())
	if err != nil {
		return err
	}
	defer c.Stop()
	cfg, err := c.ServiceAccountConfig(ctx, "kedge")
	if err != nil {
		return err
	}
	path, err := c.Kubeconfig(cfg)
	if err != nil {
		return err
	}
	return fn(&server{c, path})
}

// result is what one run of kedge took.
type result struct {
	name            string
	seconds, memory float64 // MiB at its peak, as the kernel counted it
	rate            float64
	reference       float64 // of lists
	createRate      float64 // of the reference that made the objects
}

// backups fills a server with the reference, and measures lists and backups in turn.
func (b *bench) backups(ctx context.Context, count, connections int) (result, error) {
	var best result
	err := b.onServer(ctx, func(s *server) error {
		line, err := b.create(ctx, s, count, connections)
		if err != nil {
			return err
		}
		best.createRate = value(line, "rate")
		for i := range b.repeat {
			if i == 0 || i == b.repeat-1 {
				line, err := b.runReference(ctx, s, "list")
				if err != nil {
					return err
				}
				best.reference = max(best.reference, value(line, "rate"))
			}
			if err := b.backup(ctx, s, fmt.Sprintf("bench-%d-%d", count, i), &best); err != nil {
				return err
			}
		}
		return nil
	})
	return best, err
}

func (b *bench) backup(ctx context.Context, s *server, name string, best *result) error {
	var made v1alpha1.Backup
	r, err := b.runKedge(ctx, &made, "backup", "create", name, "--kubeconfig", s.kubeconfig, "--storage-location", "bench", "-o", "json")
	if err != nil {
		return err
	}
	if made.Status.Phase != v1alpha1.PhaseCompleted {
		return fmt.Errorf("backup %s is %s, not Completed", name, made.Status.Phase)
	}
	rate := float64(made.Status.Counts.Items) / r.seconds
	fmt.Fprintf(b.out, "kedge backup objects=%d seconds=%.3f rate=%.0f memory=%.0fMiB cpu=%.2fs stored=%d\n", made.Status.Counts.Items, r.seconds, rate, r.memory, r.cpu, made.Status.StoredBytes)
	best.memory = max(best.memory, r.memory)
	if rate > best.rate {
		best.name, best.rate, best.seconds = name, rate, r.seconds
	}
	return nil
}

// restore brings all objects of the benchmark into a fresh server.
func (b *bench) restore(ctx context.Context, backup string) (result, error) {
	var out result
	err := b.onServer(ctx, func(s *server) error {
		var made v1alpha1.Restore
		r, err := b.runKedge(ctx, &made, "restore", "create", "all-"+backup, "--from-backup", backup, "--kubeconfig", s.kubeconfig, "--storage-location", "bench",
			"--include-namespaces", objects.Prefix+"*", "-o", "json")
		if err != nil {
			return err
		}
		if made.Status.Counts.Created < b.count {
			return fmt.Errorf("restore of %s created %d objects, want %d: %+v", backup, made.Status.Counts.Created, b.count, made.Status)
		}
		out = result{seconds: r.seconds, memory: r.memory, rate: float64(made.Status.Counts.Created) / r.seconds}
		fmt.Fprintf(b.out, "kedge restore created=%d seconds=%.3f rate=%.1f memory=%.0fMiB cpu=%.2fs\n", made.Status.Counts.Created, out.seconds, out.rate, out.memory, r.cpu)
		return nil
	})
	return out, err
}

// restoreNamespace restores one namespace through the counting proxy and compares the bytes that it read with those of the frames that
// hold what it restored.
func (b *bench) restoreNamespace(ctx context.Context, backup string) error {
	namespace := fmt.Sprintf("%s%05d", objects.Prefix, objects.Namespaces(b.count)/2)
	needed, err := b.frames(ctx, backup, namespace)
	if err != nil {
		return err
	}
	return b.onServer(ctx, func(s *server) error {
		b.proxy.reset()
		var made v1alpha1.Restore
		r, err := b.runKedge(ctx, &made, "restore", "create", "one-"+backup, "--from-backup", backup, "--kubeconfig", s.kubeconfig, "--storage-location", "counted",
			"--include-namespaces", namespace, "-o", "json")
		if err != nil {
			return err
		}
		read := b.proxy.read(backup)
		fmt.Fprintf(b.out, "kedge restore of %s created=%d seconds=%.3f read=%d frames=%d requests=%d %s\n", namespace, made.Status.Counts.Created, r.seconds, read, needed, b.proxy.requests(), b.proxy.files(backup))
		b.figure("restore-namespace-bytes", float64(read), float64(needed), "bytes")
		return nil
	})
}

// makeLocations tells kedge of the bucket, directly and through the proxy.
func (b *bench) makeLocations(ctx context.Context) error {
	common := []string{"--s3-bucket", b.bucket.Name, "--region", b.s3.Region, "--path-style"}
	args := append([]string{"location", "create", "bench", "--endpoint", b.s3.Endpoint, "--generate-age-identity", b.identity()}, common...)
	if _, err := b.runKedge(ctx, nil, args...); err != nil {
		return err
	}
	args = append([]string{"location", "add", "counted", "--endpoint", b.proxy.url, "--age-identity-file", b.identity()}, common...)
	_, err := b.runKedge(ctx, nil, args...)
	return err
}

func (b *bench) identity() string { return filepath.Join(b.dir, "identity.txt") }

// environment gives the store's credentials to this process's own reader.
func (b *bench) environment() error {
	for _, kv := range b.s3.Env() {
		for i := range kv {
			if kv[i] == '=' {
				if err := os.Setenv(kv[:i], kv[i+1:]); err != nil {
					return err
				}
				break
			}
		}
	}
	return os.Setenv("AWS_EC2_METADATA_DISABLED", strconv.FormatBool(true))
}
