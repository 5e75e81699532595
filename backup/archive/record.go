package archive

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Record is the commit record of a backup, backup.json: it is written last, once, and makes the backup exist.
type Record struct {
	FormatVersion int    `json:"formatVersion"`
	FormatMinor   int    `json:"formatMinor"`
	Name          string `json:"name"`
	UID           string `json:"uid"`
	// Attempt names the folder that holds the files; folders of other attempts are remains.
	Attempt string `json:"attempt"`
	// Nonce is by whom this record was written: a writer that lost the reply to its commit knows its own.
	Nonce     string               `json:"nonce"`
	Labels    map[string]string    `json:"labels,omitempty"`
	Spec      v1alpha1.BackupSpec  `json:"spec"`
	Cluster   v1alpha1.ClusterInfo `json:"cluster"`
	Phase     v1alpha1.Phase       `json:"phase"`
	Revision  string               `json:"revision,omitempty"`
	Started   time.Time            `json:"started"`
	Completed time.Time            `json:"completed"`
	Expires   *time.Time           `json:"expires,omitempty"`
	Counts    v1alpha1.Counts      `json:"counts"`
	// SnapshotPlaces are where copies of the volumes' snapshots are, which go with the backup.
	SnapshotPlaces []plugins.Place `json:"snapshotPlaces,omitempty"`
	// Files are all files of the attempt but the signature, sorted by name.
	Files []File `json:"files"`
	// PublicKey is what the files are encrypted to ("age1…").
	PublicKey string `json:"publicKey"`
	// SignedBy is the Ed25519 public key of the signature, as base64 of its SPKI form; empty where there is none.
	SignedBy string `json:"signedBy,omitempty"`
	// Kedge is the version of the program that wrote the backup.
	Kedge string `json:"kedge,omitempty"`

	// APIs and Frames are kept in the file FileTable, encrypted. Write and OpenBackup fill them, listings do not.
	APIs   []API   `json:"-"`
	Frames []Frame `json:"-"`

	raw []byte // the exact bytes of backup.json
}

// File is one stored file of an attempt.
type File struct {
	Name string `json:"name"`
	// Size and SHA256 are those of the bytes in the bucket, encrypted as they are.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// StoredBytes is the size of the backup in the bucket.
func (r *Record) StoredBytes() int64 {
	n := int64(len(r.raw))
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// ID is what messages call the backup: "name/uid".
func (r *Record) ID() string { return r.Name + "/" + r.UID }

func (r *Record) file(name string) (File, bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

func (r *Record) strict() bool { return r.FormatMinor <= FormatMinor }

func backupFolder(name, uid string) string { return backupsPrefix + name + "/" + uid + "/" }
func recordKey(name, uid string) string    { return backupFolder(name, uid) + recordName }

func attemptFolder(name, uid, attempt string) string {
	return backupFolder(name, uid) + attempt + "/"
}

// recordJSON reads a record whose spec may have fields of a newer API: the spec is for people, nothing depends on it.
type recordJSON struct {
	*recordFields
	Spec json.RawMessage `json:"spec"`
}

type recordFields Record

// parseRecord reads backup.json of the backup that lies under name and uid.
func parseRecord(raw []byte, name, uid string) (*Record, error) {
	damage := func(detail string, err error) error {
		return &DamageError{Backup: name + "/" + uid, File: recordName, Offset: -1, Detail: detail, Err: err}
	}
	if len(raw) > maxRecord {
		return nil, damage(fmt.Sprintf("it has %d bytes", len(raw)), nil)
	}
	var head struct{ FormatVersion, FormatMinor int }
	if err := decodeJSON(raw, &head, false); err != nil {
		return nil, damage("it is not a commit record", err)
	}
	if head.FormatVersion > FormatVersion {
		return nil, fmt.Errorf("read backup %s/%s: format %d: %w", name, uid, head.FormatVersion, ErrNewerFormat)
	}
	rec := &Record{raw: raw}
	doc := recordJSON{recordFields: (*recordFields)(rec)}
	if err := openJSON(raw, &doc, head.FormatMinor <= FormatMinor); err != nil {
		return nil, damage("it cannot be read", err)
	}
	if len(doc.Spec) > 0 {
		if err := json.Unmarshal(doc.Spec, &rec.Spec); err != nil {
			return nil, damage("its spec cannot be read", err)
		}
	}
	if err := rec.validate(name, uid); err != nil {
		return nil, damage("it contradicts itself or its place", err)
	}
	return rec, nil
}

func (r *Record) validate(name, uid string) error {
	switch {
	case r.FormatVersion < 1 || r.FormatMinor < 0:
		return fmt.Errorf("format version %d.%d", r.FormatVersion, r.FormatMinor)
	case r.Name != name || r.UID != uid:
		return fmt.Errorf("it is the record of %q/%q", r.Name, r.UID)
	case !isHex(r.Attempt, attemptDigits):
		return fmt.Errorf("attempt %q", r.Attempt)
	case !isHex(r.Nonce, nonceDigits):
		return fmt.Errorf("nonce %q", r.Nonce)
	case r.Counts.Items < 0 || r.Counts.Bytes < 0:
		return fmt.Errorf("negative counts")
	}
	if err := validatePlaces(r.SnapshotPlaces); err != nil {
		return err
	}
	return r.validateFiles()
}

// maxPlaces bounds the places of one backup.
const maxPlaces = 64

// validatePlaces accepts what can be a place: a deletion goes there, and a region becomes a part of a host's name.
func validatePlaces(places []plugins.Place) error {
	if len(places) > maxPlaces {
		return fmt.Errorf("%d places of snapshots", len(places))
	}
	for _, p := range places {
		if p.Region == "" || len(p.Region) > 63 || !isPlain(p.Region) || strings.ContainsAny(p.Region, "._") || len(p.RoleARN) > 2048 || len(p.ExternalID) > 2048 {
			return fmt.Errorf("place of snapshots %q", p)
		}
	}
	return nil
}

func (r *Record) validateFiles() error {
	for i, f := range r.Files {
		switch {
		case !validFileName(f.Name) || f.Name == FileSignature:
			return fmt.Errorf("file name %q", f.Name)
		case i > 0 && r.Files[i-1].Name >= f.Name:
			return fmt.Errorf("files are not sorted at %q", f.Name)
		case f.Size <= 0 || f.Size > 1<<50:
			return fmt.Errorf("file %s has size %d", f.Name, f.Size)
		case !isHex(f.SHA256, 64):
			return fmt.Errorf("file %s has no sha256", f.Name)
		}
	}
	for _, name := range []string{FileItems, FileIndex, FileTable, FileLog, FileReport} {
		if _, ok := r.file(name); !ok {
			return fmt.Errorf("it names no file %s", name)
		}
	}
	return nil
}

// validFileName accepts relative paths of at most three plain segments: they become keys, never paths of a file system.
func validFileName(name string) bool {
	if len(name) > 200 || path.Clean(name) != name || strings.Count(name, "/") > 2 {
		return false
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment[0] == '.' || !isPlain(segment) {
			return false
		}
	}
	return true
}

// isPlain accepts ASCII letters, digits, '-', '_' and '.'.
func isPlain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != ""
}

// validName accepts what a Backup object may be called: a DNS subdomain.
func validName(name string) bool {
	return len(name) <= 253 && isPlain(name) && name[0] != '.' && name[0] != '-' && name == strings.ToLower(name)
}

// validUID accepts uuids and whatever else has only letters, digits and dashes.
func validUID(uid string) bool {
	return len(uid) >= 1 && len(uid) <= 64 && isPlain(uid) && !strings.ContainsAny(uid, "._") && uid[0] != '-'
}
