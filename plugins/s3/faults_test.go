//go:build unix

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

// TestFaultyNetwork works on a real bucket through a proxy that delays, resets, cuts and refuses every fifth request: each operation succeeds, or fails
// with an error of the store's, and what is in the bucket in the end is whole.
func TestFaultyNetwork(t *testing.T) {
	for name, bucket := range map[string][]testbed.BucketOption{"plain": nil, "versioned": {testbed.Versioned()}} {
		t.Run(name, func(t *testing.T) {
			b := testbed.NewBucket(t, bucket...)
			proxy := faults.NewProxy(t, b.Endpoint, nil, faults.Options{Seed: 7, Rate: 0.2, RetryAfter: -1})
			loc := location(t, b)
			direct := open(t, loc, s3.Options{})
			loc.Endpoint = proxy.URL
			store := open(t, loc, s3.Options{PartSize: 5 << 20, WholeSize: -1})

			var group errgroup.Group
			group.SetLimit(4)
			results := make([]error, 40)
			for i := range results {
				group.Go(func() error {
					results[i] = roundTrip(t.Context(), store, i)
					return nil
				})
			}
			_ = group.Wait()
			failed := 0
			for i, err := range results {
				var known *plugins.StoreError
				if err != nil && !errors.As(err, &known) {
					t.Errorf("object %d: %v", i, err)
				}
				if err != nil {
					failed++
					t.Logf("object %d: %v", i, err)
				}
				checkWhole(t, direct, i, err == nil)
			}
			// With ten attempts at a fault in five, hardly anything fails; a store that does not try again fails in half of them.
			if failed > 4 {
				t.Errorf("%d of %d failed", failed, len(results))
			}
			t.Log(proxy)
		})
	}
}

// faultyObject is the content of the i-th object; every tenth goes in parts.
func faultyObject(i int) (key string, content []byte) {
	size := 1000 * i
	if i%10 == 0 {
		size = 11 << 20
	}
	content = make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(i)})
	_, _ = source.Read(content) // never fails
	return fmt.Sprintf("faulty/%02d", i), content
}

// roundTrip stores an object conditionally, reads it and a part of it, finds it in a list, and deletes every third.
func roundTrip(ctx context.Context, store plugins.ObjectStore, i int) error {
	key, content := faultyObject(i)
	_, err := store.Put(ctx, key, stream{bytes.NewReader(content)}, plugins.PutOptions{IfNoneMatch: true})
	if err != nil && !errors.Is(err, plugins.ErrExists) { // the reply to the first attempt was lost
		return err
	}
	for _, offset := range []int{0, len(content) / 2} {
		r, err := store.Get(ctx, key, int64(offset), -1)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if !bytes.Equal(got, content[offset:]) {
			return fmt.Errorf("%s reads as %d other bytes", key, len(got))
		}
	}
	seen := 0
	if err := store.List(ctx, key, func(plugins.ObjectInfo) error { seen++; return nil }); err != nil {
		return err
	}
	if seen != 1 {
		return fmt.Errorf("%s is %d times in the list", key, seen)
	}
	if i%3 == 0 {
		return store.Delete(ctx, key)
	}
	return nil
}

type stream struct{ io.Reader }

// checkWhole looks past the proxy: an object is whole or not there, and there where it should be.
func checkWhole(t *testing.T, store plugins.ObjectStore, i int, ok bool) {
	t.Helper()
	key, content := faultyObject(i)
	r, err := store.Get(t.Context(), key, 0, -1)
	if errors.Is(err, plugins.ErrNotFound) {
		if ok && i%3 != 0 {
			t.Errorf("%s is not there", key)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%s holds %d other bytes, %v", key, len(got), err)
	}
	if ok && i%3 == 0 {
		t.Errorf("%s was deleted and is there", key)
	}
}
