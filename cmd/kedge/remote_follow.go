package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/internal/term"
)

// The pace of following an object. The server writes progress once a second.
const (
	followFirst = 200 * time.Millisecond
	followEvery = time.Second
	// unansweredFor is how long the API server may be away while something is followed.
	unansweredFor = time.Minute
	// unseenFor is how long an object may stay without a look of a server before it is said.
	unseenFor = 15 * time.Second
)

// follow reads an object again and again until look says that this is the end. It asks and does not watch: that needs no further right, and
// survives what stands between here and the API server. An API server that is away for a while is waited for.
func (r *remote) follow(ctx context.Context, object client.Object, look func() (done bool)) error {
	r.app.following.Store(true) // Ctrl-C ends the following and nothing else
	defer r.app.following.Store(false)
	name, wait := object.GetName(), followFirst
	answered := r.app.env.Now()
	for {
		err := r.get(ctx, name, object)
		now := r.app.env.Now()
		switch {
		case err == nil && look():
			return nil
		case err == nil:
			answered = now
		case ctx.Err() != nil:
			return ctx.Err()
		case !passing(err) || now.Sub(answered) > unansweredFor:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, followEvery)
	}
}

// stoppedFollowing is the error of Ctrl-C while the server works: it goes on.
func stoppedFollowing(kind, name string) error {
	return codeError(exitCancelled, fmt.Errorf("follow %s %s: stopped; the server goes on with it", kind, name),
		fmt.Sprintf("\"kedge %s get %s\" shows where it stands, \"kedge %s cancel %s\" stops it", kind, name, kind, name))
}

// watchRun follows a backup or a restore to its end and shows its progress. It says so where no server seems to care.
func (r *remote) watchRun(ctx context.Context, object client.Object, kind string, state func() (v1alpha1.Phase, *v1alpha1.Progress)) error {
	bar := r.app.ui.Progress(kind+" "+object.GetName(), "objects")
	defer bar.Done()
	begun, warned := r.app.env.Now(), false
	err := r.follow(ctx, object, func() bool {
		phase, progress := state()
		switch {
		case phase == "" && !warned && r.app.env.Now().Sub(begun) > unseenFor:
			warned = true
			r.app.ui.Warn("no server has looked at it yet; \"kedge doctor\" checks whether one runs")
		case progress != nil:
			bar.Set(term.State{Done: progress.Done, Total: progress.Total, Bytes: progress.Bytes, Doing: progressStage(progress)})
		case phase != "":
			bar.Set(term.State{Doing: string(phase)})
		}
		return phase.Final()
	})
	if ctx.Err() != nil {
		return stoppedFollowing(kind, object.GetName())
	}
	return err
}

// progressStage says what a run is doing.
func progressStage(p *v1alpha1.Progress) string {
	if p.Stage == string(backup.StageVolumes) && p.Volumes > 0 {
		return volumesDoing(p)
	}
	return p.Stage
}
