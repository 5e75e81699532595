//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// serverShown are the metrics that the demo prints.
var serverShown = []string{"kedge_schedule_last_success_timestamp_seconds", "kedge_location_ready", "kedge_location_backups", "kedge_backups_ended_total", "kedge_restores_ended_total"}

// serve shows the server: what is installed, a schedule that takes two backups, and a namespace that comes back without anybody reaching S3.
func (d *demo) serve(ctx context.Context) error {
	d.title("The server: installed in blue with one command (there are no nodes here, so the demo runs its program itself)")
	d.env = append(d.env, "KEDGE_LOCAL=false", "KUBECONFIG="+d.blueConfig)
	if err := d.run(ctx, "install", "--image", "registry.example.com/kedge:demo"); err != nil {
		return err
	}
	metrics, stop, err := d.startServer(ctx)
	if err != nil {
		return err
	}
	if err := d.scheduled(ctx, metrics); err != nil {
		return errors.Join(err, stop())
	}
	return stop()
}

// startServer runs kedge server against blue, and gives the address of its metrics.
func (d *demo) startServer(ctx context.Context) (metrics string, stop func() error, err error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return "", nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "server.log"))
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, d.kedge, "server", "--metrics-address", address, "--health-address", "0", "--cluster-name", "blue")
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return "", nil, errors.Join(err, log.Close())
	}
	return address, func() error {
		err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait(), log.Close())
		if err != nil {
			return fmt.Errorf("stop kedge server: %w", err)
		}
		return nil
	}, nil
}

func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// scheduled takes two backups by a schedule, destroys a namespace, restores it by an object, and shows what the server says of itself.
func (d *demo) scheduled(ctx context.Context, metrics string) error {
	credentials := filepath.Join(d.dir, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", d.bucket.AccessKey, d.bucket.SecretKey)
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		return err
	}
	steps := [][]string{
		{"location", "create", "scheduled", "--s3-bucket", d.bucket.Name, "--prefix", "clusters/blue-scheduled", "--endpoint", d.bucket.Endpoint, "--region", d.bucket.Region,
			"--path-style", "--credentials-file", credentials, "--generate-age-identity", filepath.Join(d.dir, "server-key.txt"), "--give-identity-to-server"},
		{"schedule", "create", "nightly", "--schedule", "0 1 * * *", "--timezone", "Europe/Berlin", "--keep-daily", "7", "--keep-monthly", "12"},
		{"schedule", "run", "nightly", "--wait"},
		{"schedule", "run", "nightly", "--wait"},
		{"schedule", "get"},
		{"backup", "get"},
		{"schedule", "retention", "nightly", "--dry-run"},
	}
	for _, step := range steps {
		if err := d.run(ctx, step...); err != nil {
			return err
		}
	}
	before, err := census(ctx, d.blue, "shop")
	if err != nil {
		return err
	}
	d.title("Disaster again; this time the server restores, and the command line never reaches S3")
	newest, err := d.output(ctx, "backup", "get", "-o", "name")
	if err != nil {
		return err
	}
	names := strings.Fields(string(newest))
	if len(names) < 2 {
		return fmt.Errorf("the schedule made %d backups, want two", len(names))
	}
	slices.Sort(names) // they end in their time
	if err := deleteNamespace(ctx, d.blue, "shop"); err != nil {
		return err
	}
	if err := d.run(ctx, "restore", "create", "shop-by-server", "--from-backup", names[len(names)-1], "--include-namespaces", "shop", "--wait"); err != nil {
		return err
	}
	missing, err := waitFor(ctx, d.blue, before)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("not back after the server's restore: %v", missing)
	}
	fmt.Printf("\nall %d objects of shop are back on blue\n", len(before))
	if err := d.run(ctx, "restore", "describe", "shop-by-server"); err != nil {
		return err
	}
	return d.showMetrics(ctx, metrics)
}

// showMetrics prints some of the server's metrics.
func (d *demo) showMetrics(ctx context.Context, address string) error {
	fmt.Printf("\n$ curl http://%s/metrics\n", address)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 10<<20))
	shown := 0
	for lines.Scan() {
		if slices.ContainsFunc(serverShown, func(name string) bool { return strings.HasPrefix(lines.Text(), name) }) {
			fmt.Println(lines.Text())
			shown++
		}
	}
	if shown == 0 {
		return errors.New("the server shows no metrics of its own")
	}
	return lines.Err()
}
