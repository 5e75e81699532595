// Package archive is the open format in which backups are kept in a bucket: how they are written, sealed, listed,
// read, verified and deleted. docs/format.md describes the format for those who have no Kedge at hand.
package archive

// The version of the format that this package writes. A reader refuses a higher formatVersion; it accepts a higher
// formatMinor of the same version and then ignores JSON fields that it does not know.
const (
	FormatVersion = 1
	FormatMinor   = 2
	// layoutVersion is the version of what lies around the backups: kedge.json, keys, tombstones.
	layoutVersion = 1
)

// Names of objects below a location.
const (
	locationKey     = "kedge.json"
	keysPrefix      = "keys/"
	backupsPrefix   = "backups/"
	tombstonePrefix = "tombstones/"
	recordName      = "backup.json"
	expiryFolder    = "expiry"
)

// Names of files below an attempt's folder.
const (
	FileItems     = "items.tar.zst.age"
	FileIndex     = "index/items.jsonl.zst.age"
	FileTable     = "index/table.json.zst.age"
	FileLog       = "log.jsonl.zst.age"
	FileReport    = "report.json.zst.age"
	FileVolumes   = "volumes.jsonl.zst.age" // where the data of volumes was taken
	FileSignature = "signature.dsse.json"
)

// Bounds. Everything that is read from a bucket is smaller, or refused before memory is spent on it.
const (
	// MaxItem is the largest object, as JSON, that an archive takes. etcd refuses requests above 1.5 MiB.
	MaxItem = 8 << 20

	maxRow      = 4 << 20  // one line of the index
	maxFrameRaw = 64 << 20 // one frame of items, or of rows, decompressed
	maxRecord   = 16 << 20 // backup.json
	maxSigned   = 24 << 20 // a signature's envelope, which holds the record in base64
	maxTable    = 64 << 20 // frame table and APIs, decompressed
	maxReport   = 256 << 20
	maxLog      = 4 << 30
	maxVolumes  = 256 << 20
	maxSmall    = 64 << 10 // kedge.json, key files, expiry files, tombstones
	maxFrames   = 1 << 20
	maxSeries   = 10000 // numbered files of one series: keys, expiry
)

// Where frames are cut. A frame ends before the item that would take it over frameTarget, and at a change of
// namespace once it holds frameSoft. Larger frames cost memory; smaller ones make a restore of one namespace read more
// than it needs, because each frame and each shard ends somewhere within a chunk of age's.
const (
	frameTarget = 2 << 20
	frameSoft   = 3 << 19
	// A frame of many small objects ends earlier, so that its shard, about 50 to 64 bytes a row, fits into one chunk of age's: a restore
	// of one namespace reads a shard for each resource.
	frameRows     = 1000
	frameRowsSoft = 900
)
