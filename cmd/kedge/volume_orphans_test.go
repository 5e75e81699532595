package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/upkeep"
)

// empty has no snapshots, and cannot look at other places.
type empty struct{ plugins.SnapshotCopier }

func (empty) Name() string { return "ebs" }

func (empty) FindSnapshots(context.Context, map[string]string) ([]plugins.Snapshot, error) {
	return nil, nil
}

func (empty) At(place plugins.Place) (plugins.SnapshotCopier, error) {
	return nil, errors.New("nobody answers in " + place.Region)
}

// TestOrphansUnseen: a place that could not be looked at is told of.
func TestOrphansUnseen(t *testing.T) {
	search := &upkeep.Search{
		Providers: []plugins.VolumeProvider{empty{}}, LocationID: "here", Places: []plugins.Place{{Region: "us-west-2"}},
		Entries: func(context.Context) ([]archive.Entry, error) { return nil, nil },
	}
	found, unseen, err := (&app{}).findOrphans(t.Context(), search)
	if err != nil || len(found) > 0 || unseen == nil || !strings.Contains(unseen.Error(), "nobody answers in us-west-2") {
		t.Errorf("found %v, unseen %v, %v", found, unseen, err)
	}
}
