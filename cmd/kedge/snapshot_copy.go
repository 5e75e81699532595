package main

import (
	"fmt"
	"strings"

	"kedge.dev/kedge/api/v1alpha1"
)

// snapshotCopyForm is how --snapshot-copy is written.
const snapshotCopyForm = "region=…,kms-key=…,role=…,external-id=…"

// parseSnapshotCopy reads a place that snapshots are copied to. The engine checks it as it checks a spec.
func parseSnapshotCopy(value string) (c v1alpha1.SnapshotCopy, err error) {
	given := map[string]bool{}
	for item := range strings.SplitSeq(value, ",") {
		key, text, ok := strings.Cut(item, "=")
		key, text = strings.TrimSpace(key), strings.TrimSpace(text)
		field := map[string]*string{"region": &c.Region, "kms-key": &c.KMSKeyID, "role": &c.RoleARN, "external-id": &c.ExternalID}[key]
		switch {
		case !ok || text == "" || field == nil:
			return c, fmt.Errorf("%q is not of the form %s", item, snapshotCopyForm)
		case given[key]:
			return c, fmt.Errorf("%s is given twice: a further place needs a further --snapshot-copy", key)
		}
		given[key], *field = true, text
	}
	if c.Region == "" {
		return c, fmt.Errorf("%q names no region", value)
	}
	return c, nil
}

// bindSnapshotCopies binds the places that snapshots are copied to; the flag may be repeated.
func bindSnapshotCopies(b *binder, s *v1alpha1.BackupSpec) {
	b.add(&boundFlag{
		kind: "place",
		reset: func() {
			if s.Volumes != nil {
				s.Volumes.SnapshotCopies = nil
			}
		},
		set: func(value string) error {
			c, err := parseSnapshotCopy(value)
			if err != nil {
				return err
			}
			if s.Volumes == nil {
				s.Volumes = &v1alpha1.VolumeSelection{}
			}
			s.Volumes.SnapshotCopies = append(s.Volumes.SnapshotCopies, c)
			return nil
		},
	}, "snapshot-copy", "", "another region, or account, that snapshots of volumes are copied to: "+snapshotCopyForm+" (repeatable)")
}
