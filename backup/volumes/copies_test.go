package volumes

import (
	"errors"
	"testing"
	"time"

	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

// TestLookAgain: a copy that is gone before the backup is sealed is an error of its claim, and of no other.
func TestLookAgain(t *testing.T) {
	clock := repositorytest.NewClock(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	repo, err := repository.OpenOrCreate(t.Context(), repositorytest.NewStore(clock.Now), "a password for tests", repository.CreateOptions{}, repository.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close(t.Context())
	failed := errors.New("it failed before")
	gone, snapshotOnly, before := &taking{copyID: "0123456789abcdef0123456789abcdef"}, &taking{}, &taking{copyID: "x", err: failed}
	if err := lookAgain(t.Context(), repo, []*taking{gone, snapshotOnly, before}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(gone.err, repository.ErrNoCopy) || gone.reason != ReasonCopyFailed {
		t.Errorf("of the copy that is gone: %v, %s", gone.err, gone.reason)
	}
	if snapshotOnly.err != nil || !errors.Is(before.err, failed) {
		t.Errorf("of the others: %v, %v", snapshotOnly.err, before.err)
	}
}
