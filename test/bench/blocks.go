//go:build unix

package main

import (
	"context"
)

func (b *bench) volumeBlocks(ctx context.Context, blocks int64, repeat int) error {
	return nil
}
