package location

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// barred is a service whose other places answer nothing but an error.
type barred struct {
	plugins.SnapshotCopier

	err error
}

func (b barred) At(plugins.Place) (plugins.SnapshotCopier, error) { return b, nil }

func (b barred) FindSnapshots(context.Context, map[string]string) ([]plugins.Snapshot, error) {
	return nil, b.err
}

// TestLeavePlaces: by force the copies in a place that refuses are left, and told of; one that does not answer is tried again.
func TestLeavePlaces(t *testing.T) {
	denied, away := fmt.Errorf("assume the role: %w", plugins.ErrAccess), errors.New("no answer")
	for _, c := range []struct {
		err         error
		leave, look bool
		left        int
		want        error
	}{
		{nil, false, false, 0, nil},
		{denied, false, false, 0, denied},
		{denied, false, true, 0, denied},
		{denied, true, false, 1, nil},
		{denied, true, true, 0, nil},
		{away, true, false, 0, away},
	} {
		left := 0
		r := &removal{Outside: archive.Outside{Places: []plugins.Place{{Region: "r"}}, LeavePlaces: c.leave, Look: c.look}, left: func(context.Context, error) { left++ }}
		if err := r.fromPlaces(t.Context(), []plugins.VolumeProvider{barred{err: c.err}}); !errors.Is(err, c.want) || left != c.left {
			t.Errorf("%+v: %v, %d left", c, err, left)
		}
	}
}
