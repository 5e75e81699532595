package archive

import (
	"context"
)

const (
	// shardGroup is how many bytes of neighbouring shards are read with one request.
	shardGroup = 256 << 10
	// shardGap is how many bytes that nobody asked for are read rather than making another request.
	shardGap = 16 << 10
)

// shardRun is a run of frames whose shards are read together: indices into the record's frames.
type shardRun struct {
	frames []int
	at     Range
}

// Rows calls fn for the rows of all frames that match (nil means all), in the archive's order, from one goroutine at a
// time. Only the shards of those frames are read, neighbours with one request, some ahead.
func (r *Reader) Rows(ctx context.Context, match func(*Frame) bool, fn func(frame int, row Row) error) error {
	runs := r.shardRuns(match)
	return inOrder(ctx, len(runs), r.opts.Concurrency,
		func(ctx context.Context, i int) ([][]Row, error) { return r.readShards(ctx, runs[i]) },
		func(i int, shards [][]Row) error {
			for j, rows := range shards {
				for _, row := range rows {
					if err := fn(runs[i].frames[j], row); err != nil {
						return err
					}
				}
			}
			return nil
		})
}

func (r *Reader) shardRuns(match func(*Frame) bool) []shardRun {
	var runs []shardRun
	for i := range r.rec.Frames {
		f := &r.rec.Frames[i]
		if match != nil && !match(f) {
			continue
		}
		end := f.Index.Offset + f.Index.Size
		if n := len(runs); n > 0 {
			last := &runs[n-1]
			if f.Index.Offset-(last.at.Offset+last.at.Size) <= shardGap && end-last.at.Offset <= shardGroup {
				last.frames = append(last.frames, i)
				last.at.Size = end - last.at.Offset
				continue
			}
		}
		runs = append(runs, shardRun{frames: []int{i}, at: f.Index})
	}
	return runs
}

// readShards reads the rows of one run, by frame.
func (r *Reader) readShards(ctx context.Context, run shardRun) ([][]Row, error) {
	t, err := r.take()
	if err != nil {
		return nil, err
	}
	defer r.give(t)
	comp, err := r.index.read(ctx, run.at.Offset, run.at.Size, &t.buffers)
	if err != nil {
		return nil, fileError(r.rec.ID(), FileIndex, run.at.Offset, err)
	}
	out := make([][]Row, len(run.frames))
	for i, frame := range run.frames {
		f := &r.rec.Frames[frame]
		start := f.Index.Offset - run.at.Offset
		raw, err := r.unpack(FileIndex, f.Index, f.IndexRawSize, comp[start:start+f.Index.Size], t)
		if err != nil {
			return nil, err
		}
		rows := make([]Row, 0, f.Items)
		err = parseRows(f, raw, r.rec.strict(), func(row Row) error {
			rows = append(rows, row)
			return nil
		})
		if err := r.walked(FileIndex, f.Index.Offset, err); err != nil {
			return nil, err
		}
		out[i] = rows
	}
	return out, nil
}
