//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"kedge.dev/kedge/test/scale"
)

// What the server is measured with, and how much it may take.
const (
	schedules     = 200
	backups       = 2000
	latency       = 50 * time.Millisecond
	idle          = 150 * time.Second
	mostMemory    = 150.0 // MiB
	mostFirstSync = 10.0  // seconds
	mostRequests  = 1.0   // to the API server, each second
)

// server measures kedge server beside many schedules and backups, of which it knows nothing at first.
func (b *bench) server(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "# server: %d schedules, %d backups, S3 %s away\n", schedules, backups, latency)
	w, err := scale.Start(ctx, scale.Options{Schedules: schedules, Backups: backups, Latency: latency, Kedge: b.kedge, Dir: dir})
	if err != nil {
		return err
	}
	defer w.Close()
	f, err := scale.Measure(ctx, w, idle, b.out)
	if err != nil {
		return err
	}
	b.figure("server-memory", float64(f.Memory)/(1<<20), mostMemory, "MiB")
	b.figure("server-first-sync", f.FirstSync.Seconds(), mostFirstSync, "s")
	b.figure("server-idle-requests", float64(f.API.Total())/f.Idle.Seconds(), mostRequests, "requests/s")
	b.figure("server-idle-s3-requests", float64(f.S3.Total())/f.Idle.Minutes(), 2+backups*objectsOfBackup/1000, "requests/minute")
	return nil
}

// objectsOfBackup is how many objects a small backup is in the bucket: a list has a thousand. A sync cannot do with fewer requests than list them
// all, and the tombstones.
const objectsOfBackup = 7
