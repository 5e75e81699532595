package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
)

// TestNoted looks what is written down of work that ends by itself, is cancelled, is stopped, and cannot be begun.
func TestNoted(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		begins error
		end    func(p *Pool[string], stop func())
		want   []string
		err    error
	}{
		"by itself": {end: func(*Pool[string], func()) {}, want: []string{"begins", "work"}},
		"cancelled": {end: func(p *Pool[string], _ func()) { p.Cancel("a") }, want: []string{"begins", "work"}, err: ErrCancelled},
		"stopped":   {end: func(_ *Pool[string], stop func()) { stop() }, want: []string{"begins", "work", "stopped true"}, err: context.Canceled},
		"refused":   {begins: refused, end: func(*Pool[string], func()) {}, want: []string{"begins"}, err: ErrNotBegun},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New[string](1, 1)
				var noted []string
				var ended error
				gate := make(chan struct{})
				work := Noted(func(ctx context.Context, report func(v1alpha1.Progress)) (string, error) {
					noted = append(noted, "work")
					return held(gate)(ctx, report)
				}, func(context.Context) error {
					noted = append(noted, "begins")
					return c.begins
				}, func(ctx context.Context) error {
					_, bounded := ctx.Deadline()
					noted = append(noted, fmt.Sprint("stopped ", ctx.Err() == nil && bounded))
					return refused
				})
				p.Start("a", types.NamespacedName{Name: "a"}, "", func(ctx context.Context, report func(v1alpha1.Progress)) (result string, err error) {
					result, err = work(ctx, report)
					ended = err
					return result, err
				})
				_, stop := serve(t, p)
				synctest.Wait()
				c.end(p, stop)
				synctest.Wait()
				if c.err == nil {
					close(gate)
				}
				synctest.Wait()
				stop()
				if !slices.Equal(noted, c.want) || !errors.Is(ended, c.err) || c.begins != nil && !errors.Is(ended, c.begins) {
					t.Errorf("noted %q, ended with %v", noted, ended)
				}
			})
		})
	}
}
