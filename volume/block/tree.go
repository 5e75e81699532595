package block

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

const (
	// extentBlocks is how many blocks a folder holds: a GiB.
	extentBlocks = 2048
	// sumsFile is in each folder: what sha256sum prints of its blocks.
	sumsFile = "SHA256SUMS"
	sumsLine = 64 + 2 + 10 + 1 // bytes of each of its lines
	// volumeFile at the top says what the tree is.
	volumeFile = "volume.json"
	// progressFile at the top of a checkpoint says which blocks are done.
	progressFile = "progress.json"

	maxExtentJSON = 4 << 20   // a folder's listing: 2048 entries of about 200 bytes
	maxRootJSON   = 128 << 20 // the top's listing: room for 256 TiB
	maxSums       = 1 << 20
	maxProgress   = 4 << 20
	metadataZstd  = "zstd-fastest"
	// metadataPrefix puts the small files of the tree into the packs of folders, apart from the blocks, and into their cache.
	metadataPrefix = "g"
)

// volumeInfo is the volumeFile.
type volumeInfo struct {
	Format    int   `json:"format"`
	SizeBytes int64 `json:"sizeBytes"`
	BlockSize int64 `json:"blockSize"`
}

// blockEntry is one stored block.
type blockEntry struct {
	object object.ID
	size   int64
	sum    [32]byte
}

// extent is the content of one folder, by the blocks' index in the volume.
type extent map[int64]blockEntry

func extentName(i int64) string { return fmt.Sprintf("%07d", i) }

func blockName(index int64) string { return fmt.Sprintf("%010d", index) }

// parseName reads the number of a folder or a block; only its one spelling is good.
func parseName(name string, spell func(int64) string) (int64, bool) {
	n, err := strconv.ParseInt(name, 10, 64)
	return n, err == nil && n >= 0 && spell(n) == name
}

// blockLength is the length of a block of a volume of the given size.
func blockLength(index, sizeBytes int64) int64 { return min(blockSize, sizeBytes-index*blockSize) }

// readObject reads a small object as a whole.
func readObject(ctx context.Context, rep repo.Repository, id object.ID, limit int64) ([]byte, error) {
	r, err := rep.OpenObject(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("object %v has more than %d bytes", id, limit)
	}
	return data, err
}

// readDir reads the listing of a folder.
func readDir(ctx context.Context, rep repo.Repository, id object.ID, limit int64) ([]*snapshot.DirEntry, error) {
	data, err := readObject(ctx, rep, id, limit)
	if err != nil {
		return nil, err
	}
	var dir snapshot.DirManifest
	if err := json.Unmarshal(data, &dir); err != nil {
		return nil, err
	}
	return dir.Entries, nil
}

// root is the top of a copy's tree.
type root struct {
	extents  map[int64]*snapshot.DirEntry
	info     volumeInfo
	progress *snapshot.DirEntry // of a checkpoint
}

// readRoot reads the top of a copy's tree, and checks that it is of a block copy.
func readRoot(ctx context.Context, rep repo.Repository, entry *snapshot.DirEntry) (*root, error) {
	entries, err := readDir(ctx, rep, entry.ObjectID, maxRootJSON)
	if err != nil {
		return nil, fmt.Errorf("read the top folder: %w", err)
	}
	r := &root{extents: map[int64]*snapshot.DirEntry{}}
	for _, e := range entries {
		n, ok := parseName(e.Name, extentName)
		switch {
		case ok && e.Type == snapshot.EntryTypeDirectory:
			r.extents[n] = e
		case e.Name == progressFile:
			r.progress = e
		case e.Name == volumeFile:
			data, err := readObject(ctx, rep, e.ObjectID, maxProgress)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", volumeFile, err)
			}
			if err := json.Unmarshal(data, &r.info); err != nil {
				return nil, fmt.Errorf("read %s: %w", volumeFile, err)
			}
		}
	}
	if r.info.Format != 1 || r.info.BlockSize != blockSize || r.info.SizeBytes < 0 {
		return nil, fmt.Errorf("read %s: format %d with blocks of %d bytes is not known", volumeFile, r.info.Format, r.info.BlockSize)
	}
	for n := range r.extents {
		if n*extentBlocks*blockSize >= r.info.SizeBytes {
			return nil, fmt.Errorf("folder %s is beyond the volume's end", extentName(n))
		}
	}
	return r, nil
}

// readExtent reads a folder. Every block has a checksum, and every checksum a block.
func readExtent(ctx context.Context, rep repo.Repository, n, sizeBytes int64, id object.ID) (extent, error) {
	entries, err := readDir(ctx, rep, id, maxExtentJSON)
	if err != nil {
		return nil, fmt.Errorf("read folder %s: %w", extentName(n), err)
	}
	ext := extent{}
	var sums map[int64][32]byte
	for _, e := range entries {
		index, ok := parseName(e.Name, blockName)
		switch {
		case e.Name == sumsFile:
			data, err := readObject(ctx, rep, e.ObjectID, maxSums)
			if err != nil {
				return nil, fmt.Errorf("read folder %s: %s: %w", extentName(n), sumsFile, err)
			}
			if sums, err = parseSums(data); err != nil {
				return nil, fmt.Errorf("read folder %s: %w", extentName(n), err)
			}
		case !ok || index/extentBlocks != n || e.Type != snapshot.EntryTypeFile || e.FileSize != blockLength(index, sizeBytes) || e.FileSize <= 0:
			return nil, fmt.Errorf("read folder %s: entry %q of %d bytes is no block of it", extentName(n), e.Name, e.FileSize)
		default:
			ext[index] = blockEntry{object: e.ObjectID, size: e.FileSize}
		}
	}
	for index, e := range ext {
		sum, ok := sums[index]
		if !ok {
			return nil, fmt.Errorf("read folder %s: block %d has no checksum", extentName(n), index)
		}
		e.sum = sum
		ext[index] = e
	}
	if len(sums) != len(ext) {
		return nil, fmt.Errorf("read folder %s: %d blocks and %d checksums", extentName(n), len(ext), len(sums))
	}
	return ext, nil
}

// formatSums writes what sha256sum prints, in the order of the blocks.
func formatSums(ext extent) []byte {
	var b bytes.Buffer
	for _, index := range slices.Sorted(maps.Keys(ext)) {
		e := ext[index]
		fmt.Fprintf(&b, "%x  %s\n", e.sum, blockName(index))
	}
	return b.Bytes()
}

func parseSums(data []byte) (map[int64][32]byte, error) {
	sums := map[int64][32]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		digits, name, _ := strings.Cut(lines.Text(), "  ")
		var sum [32]byte
		index, ok := parseName(name, blockName)
		if n, err := hex.Decode(sum[:], []byte(digits[:min(len(digits), 64)])); err != nil || n != 32 || len(digits) != 64 || !ok {
			return nil, fmt.Errorf("%s: line %q", sumsFile, lines.Text())
		}
		sums[index] = sum
	}
	return sums, lines.Err()
}

// writeObject stores bytes as one object.
func writeObject(ctx context.Context, w repo.RepositoryWriter, data []byte, opts object.WriterOptions) (object.ID, error) {
	opts.MetadataCompressor = metadataZstd
	if opts.Compressor == "none" {
		opts.Compressor = ""
	}
	writer := w.NewObjectWriter(ctx, opts)
	_, err := writer.Write(data)
	var id object.ID
	if err == nil {
		id, err = writer.Result()
	}
	return id, errors.Join(err, writer.Close())
}

// writeFile stores a small file of the tree and returns its entry. No times are kept, so that equal folders are equal bytes.
func writeFile(ctx context.Context, w repo.RepositoryWriter, name string, data []byte) (*snapshot.DirEntry, error) {
	id, err := writeObject(ctx, w, data, object.WriterOptions{Description: name, Prefix: metadataPrefix, Compressor: metadataZstd})
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return fileEntry(name, int64(len(data)), id), nil
}

func fileEntry(name string, size int64, id object.ID) *snapshot.DirEntry {
	return &snapshot.DirEntry{Name: name, Type: snapshot.EntryTypeFile, Permissions: 0o600, FileSize: size, ObjectID: id}
}

// writeDir stores a folder's listing and returns its entry.
func writeDir(ctx context.Context, w repo.RepositoryWriter, name string, entries []*snapshot.DirEntry, incomplete string) (*snapshot.DirEntry, error) {
	var b snapshotfs.DirManifestBuilder
	for _, e := range entries {
		b.AddEntry(e)
	}
	dir := b.Build(0, incomplete)
	id, err := snapshotfs.WriteDirManifest(ctx, w, name, dir, metadataZstd)
	if err != nil {
		return nil, fmt.Errorf("write folder %s: %w", name, err)
	}
	return &snapshot.DirEntry{
		Name: name, Type: snapshot.EntryTypeDirectory, Permissions: 0o700, ObjectID: id, DirSummary: dir.Summary,
	}, nil
}

// writeExtent stores a folder; nil where it has no block.
func writeExtent(ctx context.Context, w repo.RepositoryWriter, n int64, ext extent) (*snapshot.DirEntry, error) {
	if len(ext) == 0 {
		return nil, nil
	}
	sums, err := writeFile(ctx, w, sumsFile, formatSums(ext))
	if err != nil {
		return nil, err
	}
	entries := []*snapshot.DirEntry{sums}
	for index, e := range ext {
		entries = append(entries, fileEntry(blockName(index), e.size, e.object))
	}
	return writeDir(ctx, w, extentName(n), entries, "")
}

// writeRoot stores the top of the tree.
func writeRoot(ctx context.Context, w repo.RepositoryWriter, info volumeInfo, extents map[int64]*snapshot.DirEntry, progress []byte, incomplete string) (*snapshot.DirEntry, error) {
	data, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	file, err := writeFile(ctx, w, volumeFile, append(data, '\n'))
	if err != nil {
		return nil, err
	}
	entries := []*snapshot.DirEntry{file}
	if progress != nil {
		if file, err = writeFile(ctx, w, progressFile, progress); err != nil {
			return nil, err
		}
		entries = append(entries, file)
	}
	for _, e := range extents {
		entries = append(entries, e)
	}
	return writeDir(ctx, w, "", entries, incomplete)
}
