// Command run starts Kubernetes control planes and an S3 server for a person, prints how to reach them, and stops them on Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/test/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	versions := flag.String("versions", "1.24.17,1.36.3", "Kubernetes `versions` to start, separated by commas; may be empty")
	s3 := flag.Bool("s3", false, "start an S3 server with a bucket \"kedge\"")
	buildOnly := flag.Bool("build-only", false, "build what these versions and the S3 server need, and start nothing")
	minio := flag.Bool("minio", false, "with -build-only: build minio too, which the soak of encryption uses")
	noControllers := flag.Bool("no-controllers", false, "start no controller managers")
	node := flag.Bool("node", false, "give each cluster a node that runs pods (root on Linux, Debian's package tools, Kubernetes 1.31 or later); with -build-only: build what nodes need, where they can run")
	csi := flag.Bool("csi", false, "with -node: give it a CSI driver whose volumes can be snapshotted; with -build-only: build that too, where nodes can run")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	wanted := strings.FieldsFunc(*versions, func(r rune) bool { return r == ',' || r == ' ' })
	if *minio && !*buildOnly {
		return errors.New("-minio is for -build-only: tests start it")
	}
	if *buildOnly {
		return build(ctx, wanted, *node, *csi, *minio)
	}
	var opts []testbed.ClusterOption
	if *noControllers {
		opts = append(opts, testbed.NoControllers())
	}
	if *node {
		opts = append(opts, testbed.WithNode())
	}
	if *csi {
		opts = append(opts, testbed.WithCSI())
	}
	return serve(ctx, wanted, *s3, opts)
}

func build(ctx context.Context, versions []string, node, csi, minio bool) error {
	if err := testbed.Build(ctx, versions...); err != nil {
		return err
	}
	for _, version := range versions {
		err := error(nil)
		if node {
			err = testbed.BuildNode(ctx, version)
		}
		if node && csi && err == nil {
			err = testbed.BuildCSI(ctx)
		}
		if errors.Is(err, testbed.ErrNoNode) { // tests that want one are skipped
			fmt.Fprintln(os.Stderr, "testbed: nothing is built for nodes:", err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if minio {
		return testbed.BuildMinio(ctx)
	}
	return nil
}

func serve(ctx context.Context, versions []string, s3 bool, opts []testbed.ClusterOption) error {
	started := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	clusters := make([]*testbed.Cluster, len(versions))
	for i, version := range versions {
		group.Go(func() (err error) {
			clusters[i], err = testbed.StartCluster(groupCtx, version, opts...)
			return err
		})
	}
	var bucket *testbed.Bucket
	if s3 {
		group.Go(func() error {
			server, err := testbed.StartS3(groupCtx, false)
			if err != nil {
				return err
			}
			bucket, err = server.MakeBucket(groupCtx, "kedge")
			return err
		})
	}
	err := group.Wait()
	defer func() {
		for _, c := range clusters {
			if c != nil {
				c.Stop()
			}
		}
		if bucket != nil {
			bucket.Stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, c := range clusters {
		if err := describe(ctx, c); err != nil {
			return err
		}
	}
	if bucket != nil {
		fmt.Printf("\n# S3, bucket %q\n", bucket.Name)
		for _, kv := range bucket.Env() {
			fmt.Println("export " + kv)
		}
	}
	fmt.Fprintf(os.Stderr, "\nready after %s; Ctrl-C stops everything\n", time.Since(started).Round(100*time.Millisecond))
	return wait(ctx, clusters)
}

func describe(ctx context.Context, c *testbed.Cluster) error {
	cfg, err := c.ServiceAccountConfig(ctx, "kedge")
	if err != nil {
		return err
	}
	kubeconfig, err := c.Kubeconfig(cfg)
	if err != nil {
		return err
	}
	fmt.Printf("\n# Kubernetes %s at %s\nexport KUBECONFIG=%s   # service account kedge, may do everything\nexport KUBECONFIG=%s   # system:masters, for setting up\n",
		c.Version, c.URL, kubeconfig, c.MasterKubeconfig())
	return nil
}

// wait returns nil on Ctrl-C, or says which server ended.
func wait(ctx context.Context, clusters []*testbed.Cluster) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, c := range clusters {
		group.Go(func() error { return c.Wait(groupCtx) })
	}
	group.Go(func() error { <-groupCtx.Done(); return groupCtx.Err() })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}
