package volumes

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

var (
	regionName = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	roleName   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$`)
)

// mostPlaces bounds where copies of one snapshot go.
const mostPlaces = 8

// checkCopies checks where copies of snapshots are to go, as an API server does for objects.
func checkCopies(s *v1alpha1.VolumeSelection) error {
	const field = "spec.volumes.snapshotCopies"
	switch n := len(s.SnapshotCopies); {
	case n == 0:
		return nil
	case n > mostPlaces:
		return fmt.Errorf("%s: %d are more than %d", field, n, mostPlaces)
	case !s.Snapshots():
		return fmt.Errorf("%s: no snapshots are kept that could be copied: set a method Snapshot or Both", field)
	}
	seen := map[plugins.Place]bool{}
	for i, c := range s.SnapshotCopies {
		if err := checkCopy(c); err != nil {
			return fmt.Errorf("%s[%d].%w", field, i, err)
		}
		place := plugins.Place{Region: c.Region, RoleARN: c.RoleARN}
		if seen[place] {
			return fmt.Errorf("%s[%d]: %s is named twice", field, i, place)
		}
		seen[place] = true
	}
	return nil
}

func checkCopy(c v1alpha1.SnapshotCopy) error {
	switch {
	case !regionName.MatchString(c.Region):
		return fmt.Errorf("region: %q is no region: write it as eu-central-1", c.Region)
	case c.RoleARN != "" && !roleName.MatchString(c.RoleARN):
		return fmt.Errorf("roleARN: %q is no ARN of a role: write it as arn:aws:iam::444455556666:role/NAME", c.RoleARN)
	case c.ExternalID != "" && c.RoleARN == "":
		return errors.New("externalID: it goes with roleARN, which is not set")
	case strings.HasPrefix(c.KMSKeyID, "arn:") && !strings.Contains(c.KMSKeyID, ":kms:"+c.Region+":"):
		return fmt.Errorf("kmsKeyID: %s is a key of another region than %s", c.KMSKeyID, c.Region)
	}
	return nil
}

// Places are where a selection wants copies of snapshots. Nil wants none.
func Places(s *v1alpha1.VolumeSelection) (places []plugins.Place) {
	if s == nil {
		return nil
	}
	for _, c := range s.SnapshotCopies {
		places = append(places, placeOf(c))
	}
	return places
}

func placeOf(c v1alpha1.SnapshotCopy) plugins.Place {
	return plugins.Place{Region: c.Region, RoleARN: c.RoleARN, ExternalID: c.ExternalID}
}

// Elsewhere gives the providers of other places, of those that copy snapshots there.
func Elsewhere(providers []plugins.VolumeProvider, places []plugins.Place) (there []plugins.VolumeProvider, err error) {
	var errs []error
	for _, p := range providers {
		copier, ok := p.(plugins.SnapshotCopier)
		if !ok {
			continue
		}
		for _, place := range places {
			at, err := copier.At(place)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			there = append(there, at)
		}
	}
	return there, errors.Join(errs...)
}
