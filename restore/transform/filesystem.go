package transform

import (
	"regexp"
	"strings"
)

// efsDriver is the CSI driver whose volumes and classes name file systems.
const efsDriver = "efs.csi.aws.com"

var fileSystemPattern = regexp.MustCompile(`^fs-[0-9a-f]{8,40}$`)

var fileSystemRules = mappingRules{check: func(s string) string {
	if !fileSystemPattern.MatchString(s) {
		return "is no id of an EFS file system: fs-0123456789abcdef0"
	}
	return ""
}}

// fileSystems maps the EFS file systems of volumes and StorageClasses. An access point is of one file system: a volume that is mounted by one keeps
// its handle here, and gets a new access point where the restore can make one.
func fileSystems(m *mapping) rule {
	return rule{
		mapping: m,
		reads: func(r resource) bool {
			return r == resource{"", "persistentvolumes"} || r == resource{"storage.k8s.io", "storageclasses"}
		},
		apply: func(e *edits) {
			if e.resource == (resource{"", "persistentvolumes"}) {
				e.edit(e.obj, at("spec csi"), inside(m.handle))
				return
			}
			if text(e.obj, "provisioner") == efsDriver {
				e.edit(e.obj, at("parameters fileSystemId"), m.value())
			}
		},
	}
}

// handle maps the file system of "fs-0123", "fs-0123:/folder" and the like with "efs:" in front.
func (m *mapping) handle(e *edits, csi map[string]any) {
	handle := text(csi, "volumeHandle")
	rest, prefixed := strings.CutPrefix(handle, "efs:")
	parts := strings.Split(rest, ":")
	to, ok := m.lookup(parts[0])
	if text(csi, "driver") != efsDriver || !ok {
		return
	}
	if len(parts) > 2 && parts[2] != "" {
		e.remark(reasonKept, "spec.csi.volumeHandle names access point "+parts[2]+" of "+parts[0]+", which "+to+" does not have: where the backup has the volume's files, the restore makes one like it")
		return
	}
	parts[0] = to
	handle = strings.Join(parts, ":")
	if prefixed {
		handle = "efs:" + handle
	}
	csi["volumeHandle"] = handle
	e.changed = true
}
