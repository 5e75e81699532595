package efs

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Driver is the CSI driver of Amazon EFS.
const Driver = "efs.csi.aws.com"

// Handle is what a PersistentVolume of the driver calls its storage: a file system, a folder in it, an access point by which it is mounted. The
// driver writes it as "fs-0123:/folder:fsap-4567", where what comes after the file system may be missing, or be empty ("fs-0123::fsap-4567"), and
// newer ones may put "efs:" in front (aws-efs-csi-driver, "Static provisioning").
type Handle struct {
	prefix string // "efs:" or nothing
	// FileSystem is its id: "fs-0123456789abcdef0".
	FileSystem string
	// Folder is below the access point's own, where there is one; "" is all of it.
	Folder string
	// AccessPoint is its id, or "".
	AccessPoint string
}

var (
	fileSystemID  = regexp.MustCompile(`^fs-[0-9a-f]{8,40}$`)
	accessPointID = regexp.MustCompile(`^fsap-[0-9a-f]{8,40}$`)
)

// ParseHandle reads a handle of the driver. Those of "s3files:" are no EFS file systems.
func ParseHandle(text string) (Handle, error) {
	var h Handle
	rest := text
	if after, ok := strings.CutPrefix(text, "efs:"); ok {
		h.prefix, rest = "efs:", after
	}
	parts := strings.Split(rest, ":")
	if len(parts) > 3 || !fileSystemID.MatchString(parts[0]) {
		return Handle{}, fmt.Errorf("%q is no handle of an EFS volume", text)
	}
	h.FileSystem = parts[0]
	if len(parts) > 1 {
		h.Folder = parts[1]
	}
	if len(parts) > 2 && parts[2] != "" {
		if !accessPointID.MatchString(parts[2]) {
			return Handle{}, fmt.Errorf("%q is no handle of an EFS volume: %q is no access point", text, parts[2])
		}
		h.AccessPoint = parts[2]
	}
	return h, nil
}

// String is the handle as the driver writes it.
func (h Handle) String() string {
	out := h.prefix + h.FileSystem
	if h.Folder != "" || h.AccessPoint != "" {
		out += ":" + h.Folder
	}
	if h.AccessPoint != "" {
		out += ":" + h.AccessPoint
	}
	return out
}

// HandleOf gives the handle of a PersistentVolume; ok is false where it is not one of EFS.
func HandleOf(pv *corev1.PersistentVolume) (handle string, ok bool) {
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != Driver {
		return "", false
	}
	_, err := ParseHandle(pv.Spec.CSI.VolumeHandle)
	return pv.Spec.CSI.VolumeHandle, err == nil
}
