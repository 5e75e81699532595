package restore

import "kedge.dev/kedge/plugins/actions"

// Reason is a CamelCase code that says why an object is not simply created. The codes are part of the report's format:
// docs/restore.md lists them with what a reader can do.
type Reason string

// Why objects are left out of a restore, before or while they are read.
const (
	// NeverRestored: objects of its kind say something of the old cluster only.
	NeverRestored Reason = "NeverRestored"
	// Remade: the target makes the object by itself, most of them from an owner.
	Remade Reason = actions.ReasonRemade
	// Finished: a Job or a pod has run to its end and would run again.
	Finished Reason = actions.ReasonFinished
	// NodeBound: the object belongs to a node, and nodes are not restored.
	NodeBound Reason = actions.ReasonNodeBound
	// ServerManaged: the target's API server makes the object and keeps it up to date.
	ServerManaged Reason = actions.ReasonServerManaged
	// ServerManagedDiffers: the same, and the archived one was changed by somebody.
	ServerManagedDiffers Reason = "ServerManagedDiffers"
	// KedgeOwn: backups and restores of Kedge itself are found in their bucket, not restored.
	KedgeOwn Reason = "KedgeOwn"
	// BeingDeleted: the object was on its way out when the backup was made.
	BeingDeleted Reason = actions.ReasonBeingDeleted
	// NotCreatable: the API has no create verb.
	NotCreatable Reason = "NotCreatable"
	// OtherVersion: the same object is restored from another archived version of it.
	OtherVersion Reason = "OtherVersion"
	// NoSuccessor: no API of the target takes the object's place.
	NoSuccessor Reason = "NoSuccessor"
	// NotServed: the target does not know the object's API.
	NotServed Reason = "NotServed"
	// NameCollision: two objects of the backup would get the same name in the target.
	NameCollision Reason = "NameCollision"
)

// What an object meets in the target.
const (
	// Exists: the target has the object, and it is the same.
	Exists Reason = "Exists"
	// ExistsDiffers: the target has the object, and it differs.
	ExistsDiffers Reason = "ExistsDiffers"
	// Merged: what the archived object has and the target's lacked was added.
	Merged Reason = actions.ReasonMerged
	// Rebound: a volume that was released by a claim that is gone is handed to the restored claim.
	Rebound Reason = "Rebound"
	// VolumeInUse: the target's volume is for another claim than the archived one.
	VolumeInUse Reason = "VolumeInUse"
	// RecreateRefused: recreating the object would delete more than it.
	RecreateRefused Reason = "RecreateRefused"
	// Dropped: a field that the user chose was left out.
	Dropped Reason = actions.ReasonDropped
	// Changed: something means, or is, something else in the target.
	Changed Reason = actions.ReasonChanged
	// EmptyVolume: a claim gets a new, empty volume.
	EmptyVolume Reason = actions.ReasonEmptyVolume
	// VolumeFilled: a volume was made with the data of the backup.
	VolumeFilled Reason = "VolumeFilled"
	// VolumeNotFilled: the volume with the data of the backup could not be made, so its PersistentVolume was not either.
	VolumeNotFilled Reason = "VolumeNotFilled"
	// TemporaryLeft: what was needed only while volumes were made could not be removed.
	TemporaryLeft Reason = "TemporaryLeft"
	// VolumesKept: files of volumes stay as they are, as the restore does not ask for those of the backup.
	VolumesKept Reason = "VolumesKept"
	// VolumeUnchecked: whether the storage of a volume can be reached still could not be seen, or it is reached another way and nobody has looked for its files.
	VolumeUnchecked Reason = "VolumeUnchecked"
	// Converted: the target takes the object in another version.
	Converted Reason = "Converted"
	// OwnerDropped: an owner is neither restored nor in the target, so the reference to it is left out.
	OwnerDropped Reason = "OwnerDropped"
	// OwnerCycle: objects own each other; the reference is left out.
	OwnerCycle Reason = "OwnerCycle"
	// ManagedFieldsLost: the field managers could not be put back.
	ManagedFieldsLost Reason = "ManagedFieldsLost"
	// StatusNotRestored: the status could not be put back.
	StatusNotRestored Reason = "StatusNotRestored"
	// ServerWarning: the server took the object with a warning.
	ServerWarning Reason = "ServerWarning"
	// NamespaceMade: the backup does not hold the namespace, so an empty one was made.
	NamespaceMade Reason = "NamespaceMade"
	// BackendNotReady: an admission webhook or API service was created though what answers for it is not ready.
	BackendNotReady Reason = "BackendNotReady"
	// NotEstablished: a CustomResourceDefinition was not accepted by the server in time.
	NotEstablished Reason = "NotEstablished"
	// HookLeftOut: an init container that an annotation asks for was not added.
	HookLeftOut Reason = actions.ReasonHookLeftOut
	// HookFailed: a command in a restored pod failed, or could not be run.
	HookFailed Reason = "HookFailed"
	// ReportNotKept: the report could not be written beside the backups.
	ReportNotKept Reason = "ReportNotKept"
	// AttemptFailed: an attempt of the server at the restore failed.
	AttemptFailed Reason = "AttemptFailed"
	// CountsUnknown: what earlier attempts restored is not in the report.
	CountsUnknown Reason = "CountsUnknown"
	// UnusedRule: a transform of the restore matched nothing.
	UnusedRule Reason = "UnusedRule"
)

// Why the target does not take an object.
const (
	// RefusedInvalid: the server finds the object invalid.
	RefusedInvalid Reason = "RefusedInvalid"
	// AddressTaken: another Service has the node port or the IP that the object asks for.
	AddressTaken Reason = "AddressTaken"
	// RefusedByWebhook: an admission webhook of the target denied it.
	RefusedByWebhook Reason = "RefusedByWebhook"
	// RefusedByPolicy: a ValidatingAdmissionPolicy of the target denied it.
	RefusedByPolicy Reason = "RefusedByPolicy"
	// RefusedByPodSecurity: Pod Security admission denied it.
	RefusedByPodSecurity Reason = "RefusedByPodSecurity"
	// RefusedByQuota: a ResourceQuota has no room for it.
	RefusedByQuota Reason = "RefusedByQuota"
	// RefusedByLimitRange: a LimitRange denied it.
	RefusedByLimitRange Reason = "RefusedByLimitRange"
	// RefusedByAdmission: another admission plugin of the server denied it.
	RefusedByAdmission Reason = "RefusedByAdmission"
	// Forbidden: the user who restores may not do it.
	Forbidden Reason = "Forbidden"
	// WebhookNotReady: an admission or conversion webhook of the target does not answer.
	WebhookNotReady Reason = "WebhookNotReady"
	// NamespaceTerminating: the target's namespace is being deleted.
	NamespaceTerminating Reason = "NamespaceTerminating"
	// NamespaceMissing: the namespace is not there.
	NamespaceMissing Reason = "NamespaceMissing"
	// AccountMissing: the pod's ServiceAccount is not there.
	AccountMissing Reason = "AccountMissing"
	// ExistsFail: the target has the object, and the policy makes that an error.
	ExistsFail Reason = "ExistsFail"
	// StillDeleting: the target's object is being deleted and does not go away.
	StillDeleting Reason = "StillDeleting"
	// Conflict: the object changed again and again while it was updated.
	Conflict Reason = "Conflict"
	// Unprepared: the archived object could not be made ready: it is damaged, or a transform or conversion failed.
	Unprepared Reason = "Unprepared"
	// ServerError: the server failed.
	ServerError Reason = "ServerError"
	// Unreachable: the server could not be reached any more.
	Unreachable Reason = "Unreachable"
	// OwnerWaits: the object waits for its owner.
	OwnerWaits Reason = "OwnerWaits"
	// NotReached: the restore was stopped before the object's turn.
	NotReached Reason = "NotReached"
)
