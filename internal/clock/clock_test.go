package clock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"kedge.dev/kedge/internal/clock"
)

func TestSleep(t *testing.T) {
	if err := clock.Sleep(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := clock.Sleep(ctx, time.Hour); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}
