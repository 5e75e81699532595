package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/testbed"
)

func benchStore(b *testing.B, opts ...testbed.BucketOption) *s3.Store {
	b.Helper()
	return open(b, location(b, testbed.NewBucket(b, opts...)), s3.Options{})
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			store := benchStore(b)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := store.Put(b.Context(), "bench/object", bytes.NewReader(data), plugins.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for name, opts := range map[string][]testbed.BucketOption{"plain": nil, "versioned": {testbed.Versioned()}} {
		for _, size := range []int64{64 << 10, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				store := benchStore(b, opts...)
				if _, err := store.Put(b.Context(), "bench/object", bytes.NewReader(make([]byte, 17<<20)), plugins.PutOptions{}); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					r, err := store.Get(b.Context(), "bench/object", 1000, size)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, r); err != nil || n != size {
						b.Fatal(n, err)
					}
					if err := r.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
