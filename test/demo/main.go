//go:build unix

// Command demo shows the main job on real servers: it starts an old cluster (blue), a new one (green), S3 and a double of EBS on loopback,
// installs applications on blue, backs it up with the data of its volumes, brings a lost namespace back, restores everything into green, and
// then looks for itself what arrived.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/aws"
	"kedge.dev/kedge/test/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	kedge := flag.String("kedge", "bin/kedge", "the `binary` to show")
	blueVersion := flag.String("blue", "1.24.17", "Kubernetes `version` of the old cluster")
	greenVersion := flag.String("green", "1.36.3", "Kubernetes `version` of the new cluster")
	flag.Parse()

	started := time.Now()
	d := &demo{}
	defer d.stop()
	d.title("Starting blue (Kubernetes %s), green (%s) and S3 on loopback", *blueVersion, *greenVersion)
	if err := d.start(ctx, *kedge, *blueVersion, *greenVersion); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.install, d.backUp, d.disaster, d.migrate, d.check, d.serve} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.title("Done in %s", time.Since(started).Round(time.Second))
	return nil
}

// demo is what the steps share.
type demo struct {
	kedge       string
	dir         string
	blue, green *testbed.Cluster
	s3          *testbed.S3
	bucket      *testbed.Bucket
	cloud       *aws.Cloud
	data        map[string]string // digests of the volumes of shop's claims, by claim
	env         []string

	blueConfig, greenConfig string // kubeconfigs of the account that Kedge runs as
}

const (
	backupName  = "before-upgrade"
	restoreName = "into-green"
)

func (d *demo) start(ctx context.Context, kedge, blueVersion, greenVersion string) (err error) {
	if d.kedge, err = filepath.Abs(kedge); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "kedge-demo-"); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		d.blue, err = testbed.StartCluster(groupCtx, blueVersion, testbed.Name("blue"))
		return err
	})
	group.Go(func() (err error) {
		d.green, err = testbed.StartCluster(groupCtx, greenVersion, testbed.Name("green"))
		return err
	})
	group.Go(func() (err error) {
		d.s3, err = testbed.StartS3(groupCtx, false)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if d.bucket, err = d.s3.MakeBucket(ctx, "backups", testbed.Versioned()); err != nil {
		return err
	}
	if err := d.startAWS(ctx); err != nil {
		return err
	}
	if d.blueConfig, err = account(ctx, d.blue); err != nil {
		return err
	}
	if d.greenConfig, err = account(ctx, d.green); err != nil {
		return err
	}
	d.env = append(os.Environ(), d.bucket.Env()...)
	d.env = append(d.env, "KEDGE_LOCAL=true", "KEDGE_CONFIG="+filepath.Join(d.dir, "config.yaml"), "KEDGE_STATE_DIR="+filepath.Join(d.dir, "state"))
	d.env = append(d.env, "AWS_ENDPOINT_URL_EC2="+d.cloud.Endpoint, "AWS_ENDPOINT_URL_EBS="+d.cloud.Endpoint, "AWS_REGION="+d.cloud.Region())
	return nil
}

func account(ctx context.Context, c *testbed.Cluster) (string, error) {
	cfg, err := c.ServiceAccountConfig(ctx, "kedge")
	if err != nil {
		return "", err
	}
	return c.Kubeconfig(cfg)
}

func (d *demo) stop() {
	if d.blue != nil {
		d.blue.Stop()
	}
	if d.green != nil {
		d.green.Stop()
	}
	if d.s3 != nil {
		d.s3.Stop()
	}
	if d.cloud != nil {
		_ = d.cloud.Close()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}

// title prints the headline of a step.
func (d *demo) title(format string, args ...any) {
	fmt.Printf("\n=== %s\n", fmt.Sprintf(format, args...))
}

// run shows a kedge command as a person would type it, and its output.
func (d *demo) run(ctx context.Context, args ...string) error {
	fmt.Printf("\n$ kedge %s\n", d.shown(args))
	cmd := exec.CommandContext(ctx, d.kedge, args...)
	cmd.Env = d.env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kedge %s: %w", strings.Join(args[:min(len(args), 2)], " "), err)
	}
	return nil
}

// output is run for a program that reads the result.
func (d *demo) output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.kedge, args...)
	cmd.Env = d.env
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kedge %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// shown leaves the paths of this run's temporary files out of what is shown.
func (d *demo) shown(args []string) string {
	names := strings.NewReplacer(d.blueConfig, "blue.yaml", d.greenConfig, "green.yaml", d.dir+"/", "")
	return names.Replace(strings.Join(args, " "))
}

func (d *demo) install(ctx context.Context) error {
	n, err := apps.Install(ctx, d.blue)
	if err != nil {
		return err
	}
	fmt.Printf("blue runs at %s, green at %s; %d objects of sample applications are on blue (test/apps)\n", d.blue.URL, d.green.URL, n)
	return nil
}

func (d *demo) backUp(ctx context.Context) error {
	d.title("Making a location: a bucket, and a key that only the person on call holds")
	if err := d.run(ctx, "location", "create", "prod", "--s3-bucket", d.bucket.Name, "--prefix", "clusters/blue",
		"--endpoint", d.bucket.Endpoint, "--region", d.bucket.Region, "--path-style",
		"--generate-age-identity", filepath.Join(d.dir, "key.txt")); err != nil {
		return err
	}
	if err := d.run(ctx, "doctor", "--kubeconfig", d.blueConfig); err != nil {
		return err
	}
	d.title("Backing blue up with the data of its EBS volumes, and checking every byte of the backup")
	spec, err := d.backupSpec()
	if err != nil {
		return err
	}
	if err := d.run(ctx, "backup", "create", backupName, "-f", spec, "--kubeconfig", d.blueConfig); err != nil {
		return err
	}
	if err := d.run(ctx, "backup", "verify", backupName, "--deep"); err != nil {
		return err
	}
	return d.run(ctx, "backup", "get")
}

func (d *demo) disaster(ctx context.Context) error {
	d.title("Disaster: somebody deletes namespace shop on blue")
	before, err := census(ctx, d.blue, "shop")
	if err != nil {
		return err
	}
	if err := deleteNamespace(ctx, d.blue, "shop"); err != nil {
		return err
	}
	if err := d.run(ctx, "restore", "create", "bring-shop-back", "--from-backup", backupName, "--include-namespaces", "shop", "--kubeconfig", d.blueConfig); err != nil {
		return err
	}
	missing, err := waitFor(ctx, d.blue, before)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("not back after the restore: %v", missing)
	}
	fmt.Printf("\nall %d objects that a person or an operator made in shop are back on blue\n", len(before))
	return d.checkData(ctx, d.blue)
}

func (d *demo) migrate(ctx context.Context) error {
	d.title("Moving blue's objects to green: first a preview, which changes nothing")
	if err := d.run(ctx, "restore", "create", restoreName, "--from-backup", backupName, "--kubeconfig", d.greenConfig, "--dry-run"); err != nil {
		return err
	}
	d.title("Then the restore")
	if err := d.run(ctx, "restore", "create", restoreName, "--from-backup", backupName, "--kubeconfig", d.greenConfig); err != nil {
		return err
	}
	if err := d.run(ctx, "restore", "describe", restoreName); err != nil {
		return err
	}
	return d.checkData(ctx, d.green)
}
