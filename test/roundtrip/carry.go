//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/test/testbed"
)

// carried is what a way through the engines leaves to compare.
type carried struct {
	archived map[key]bool
	// report has the reasons that the restore's report names objects with.
	report map[key]string
}

// mostBackups bounds how often a source that did not rest meanwhile is backed up again: one with a CronJob never does for long.
const mostBackups = 3

// carry backs one cluster up into a folder and restores it into the other, with Kedge's engines and Kedge's rights. It backs up again
// while atRest says that the source changed meanwhile, so that what is compared is what is in the backup.
func carry(ctx context.Context, from, to *testbed.Cluster, atRest func(context.Context) (bool, error)) (*carried, error) {
	work, err := os.MkdirTemp("", "kedge-roundtrip-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	dir, spool := filepath.Join(work, "bucket"), filepath.Join(work, "spool")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(spool, 0o700)); err != nil {
		return nil, err
	}
	store, err := file.New(v1alpha1.FileLocation{Path: dir}, file.Options{Now: time.Now})
	if err != nil {
		return nil, err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	location, keys, err := archive.Init(ctx, store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	var reader *archive.Reader
	for n, rested := 1, false; n <= mostBackups && !rested; n++ {
		if reader, err = backUp(ctx, from, location, keys, spool, n); err != nil {
			return nil, fmt.Errorf("back up: %w", err)
		}
		if rested, err = atRest(ctx); err != nil {
			return nil, err
		}
	}
	c := &carried{archived: map[key]bool{}}
	err = reader.Rows(ctx, func(*archive.Frame) bool { return true }, func(_ int, row archive.Row) error {
		c.archived[refKey(row.Ref)] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if c.report, err = restoreInto(ctx, to, reader); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return c, nil
}

func refKey(ref plugins.Ref) key {
	return keyOf(schema.GroupResource{Group: ref.Group, Resource: ref.Resource}, ref.Namespace, ref.Name)
}

func kedge(ctx context.Context, c *testbed.Cluster) (*kube.Client, error) {
	cfg, err := c.ServiceAccountConfig(ctx, "kedge")
	if err != nil {
		return nil, err
	}
	return kube.New(cfg, kube.Options{UserAgent: "kedge/roundtrip"})
}

// backUp makes a backup of everything. One that is not complete is an error: these clusters have nothing that cannot be read but what
// dead API services promise.
func backUp(ctx context.Context, c *testbed.Cluster, location *archive.Location, keys *archive.Keys, spool string, n int) (*archive.Reader, error) {
	client, err := kedge(ctx, c)
	if err != nil {
		return nil, err
	}
	engine := &backup.Engine{Kube: client, Open: backup.At(location), Version: "roundtrip", SpoolDir: spool, Now: time.Now, Rand: rand.Reader}
	record, err := engine.Run(ctx, backup.Request{Name: "roundtrip", UID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n)})
	if err != nil {
		return nil, err
	}
	entry, err := location.Find(ctx, record.UID)
	if err != nil {
		return nil, err
	}
	return location.OpenBackup(ctx, entry, keys, archive.ReadOptions{})
}
