package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FreezeGroupLabel ties pods of one namespace together by its value: their hooks run around the volumes of all of them.
const FreezeGroupLabel = "kedge.dev/freeze-group"

// HookErrorMode says what follows from a command that fails.
// +kubebuilder:validation:Enum=Fail;Continue
type HookErrorMode string

// The modes.
const (
	// HookFail: the volumes behind the command are not taken, and the backup is PartiallyFailed.
	HookFail HookErrorMode = "Fail"
	// HookContinue: the report has a warning.
	HookContinue HookErrorMode = "Continue"
)

// BackupHook is commands that run in pods before and after the data of their volumes is taken. A pod's annotations win over it.
// +kubebuilder:validation:XValidation:rule="(has(self.pre) && size(self.pre) > 0) || (has(self.post) && size(self.post) > 0)",message="a hook without pre and post commands does nothing: add one, or leave the hook out"
type BackupHook struct {
	// Name is what reports call the hook.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// IncludedNamespaces are the namespaces, or globs, in whose pods the commands run. Empty, or "*", means all that the backup has.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	IncludedNamespaces []string `json:"includedNamespaces,omitempty"`
	// ExcludedNamespaces are left out.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// LabelSelector chooses among their pods; unset means all of them.
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Pre run one after the other, before the data is taken.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Pre []HookCommand `json:"pre,omitempty"`
	// Post run one after the other, once the data is taken, also where that failed.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Post []HookCommand `json:"post,omitempty"`
}

// HookCommand is one command in one container.
type HookCommand struct {
	// Container is the pod's first one where unset.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
	// Command is the program and its arguments. There is no shell, unless the program is one.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=8192
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || size(self[0]) > 0",message="the first element names the program"
	Command []string `json:"command"`
	// Timeout is how long the command may run; unset means 30s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))`,message="between 1s and 24h"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// OnError is Fail where unset.
	// +optional
	OnError HookErrorMode `json:"onError,omitempty"`
}

// RestoreHook is commands that run in pods once these were restored. A pod's annotations win over it.
type RestoreHook struct {
	// Name is what reports call the hook.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// IncludedNamespaces are the namespaces, or globs, as they are called in the backup, in whose pods the commands run. Empty, or "*", means all
	// that the restore has.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	IncludedNamespaces []string `json:"includedNamespaces,omitempty"`
	// ExcludedNamespaces are left out.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// LabelSelector chooses among their pods; unset means all of them.
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Post run one after the other, once the pod runs.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Post []RestoreHookCommand `json:"post"`
}

// RestoreHookCommand is one command in one container.
type RestoreHookCommand struct {
	// Container is the pod's first one where unset.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
	// Command is the program and its arguments. There is no shell, unless the program is one.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=8192
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || size(self[0]) > 0",message="the first element names the program"
	Command []string `json:"command"`
	// ExecTimeout is how long the command may run; unset means 30s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))`,message="between 1s and 24h"
	// +optional
	ExecTimeout *metav1.Duration `json:"execTimeout,omitempty"`
	// WaitTimeout is how long the container is waited for; unset means 5m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))`,message="between 1s and 24h"
	// +optional
	WaitTimeout *metav1.Duration `json:"waitTimeout,omitempty"`
	// WaitForReady waits until the container is ready, not only until it runs.
	// +optional
	WaitForReady bool `json:"waitForReady,omitempty"`
	// OnError is Continue where unset; with Fail the restore is PartiallyFailed.
	// +optional
	OnError HookErrorMode `json:"onError,omitempty"`
}
