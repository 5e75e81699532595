package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ExistingResourcePolicy says what happens to an object that the target has already.
// +kubebuilder:validation:Enum=Skip;Update;Recreate;Fail
type ExistingResourcePolicy string

// The policies for existing objects.
const (
	// PolicySkip leaves the existing object as it is and reports whether it differs.
	PolicySkip ExistingResourcePolicy = "Skip"
	// PolicyUpdate changes it as UpdateMode says.
	PolicyUpdate ExistingResourcePolicy = "Update"
	// PolicyRecreate deletes it and creates the archived one.
	PolicyRecreate ExistingResourcePolicy = "Recreate"
	// PolicyFail makes it an error.
	PolicyFail ExistingResourcePolicy = "Fail"
)

// UpdateMode is how PolicyUpdate changes an object.
// +kubebuilder:validation:Enum=Merge;Exact
type UpdateMode string

// The update modes.
const (
	// UpdateMerge applies the archived object server-side: fields that it does not have stay.
	UpdateMerge UpdateMode = "Merge"
	// UpdateExact replaces the object by PUT with the live resourceVersion: fields that it does not have go.
	UpdateExact UpdateMode = "Exact"
)

// RestoreSpec says what is restored, from where, and how it is changed on its way.
// +kubebuilder:validation:XValidation:rule="!has(self.labelSelector) || !has(self.orLabelSelectors) || size(self.orLabelSelectors) == 0",message="labelSelector and orLabelSelectors exclude each other: put both into orLabelSelectors"
// +kubebuilder:validation:XValidation:rule="!(has(self.includedResources) || has(self.excludedResources) || has(self.includeClusterResources)) || !(has(self.includedClusterScopedResources) || has(self.excludedClusterScopedResources) || has(self.includedNamespaceScopedResources) || has(self.excludedNamespaceScopedResources))",message="includedResources, excludedResources and includeClusterResources cannot be combined with the fields that name resources of one scope"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="cancel cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.waitTimeout) || duration(self.waitTimeout) >= duration('0s')",message="waitTimeout is negative"
type RestoreSpec struct {
	// BackupName names the backup, or its uid where a name stands for several.
	// +kubebuilder:validation:MinLength=1
	BackupName string `json:"backupName"`
	// StorageLocation names the location that holds it. Empty means the default one.
	// +optional
	StorageLocation string `json:"storageLocation,omitempty"`

	// Selection says which of the archived objects are restored.
	Selection `json:",inline"`

	// ExistingResourcePolicy is Skip where unset.
	// +optional
	ExistingResourcePolicy ExistingResourcePolicy `json:"existingResourcePolicy,omitempty"`
	// UpdateMode is Merge where unset.
	// +optional
	UpdateMode UpdateMode `json:"updateMode,omitempty"`

	// NamespaceMapping renames namespaces, in the objects and in references to them.
	// +optional
	NamespaceMapping map[string]string `json:"namespaceMapping,omitempty"`
	// PreserveNodePorts keeps the node ports of Services, which else are kept only where a user chose them.
	// +optional
	PreserveNodePorts bool `json:"preserveNodePorts,omitempty"`
	// PreserveClusterIPs keeps the cluster IPs of Services.
	// +optional
	PreserveClusterIPs bool `json:"preserveClusterIPs,omitempty"`
	// IncludeControlled restores also what a controller makes again from its owner: the pods of a ReplicaSet, EndpointSlices, …
	// +optional
	IncludeControlled bool `json:"includeControlled,omitempty"`
	// RestoreStatus names the resources whose status is restored, with globs; none where empty.
	// +optional
	RestoreStatus []string `json:"restoreStatus,omitempty"`
	// Transforms change objects on their way.
	// +optional
	Transforms *Transforms `json:"transforms,omitempty"`
	// Volumes says what is done with volumes. FromBackup where unset, but
	// for files of EFS volumes: these stay as they are in their file system unless FromBackup is set.
	// +optional
	Volumes VolumeRestore `json:"volumes,omitempty"`
	// EBSDriver is the CSI driver that EBS volumes and StorageClasses get: ebs.csi.eks.amazonaws.com in an EKS Auto Mode cluster. Where
	// unset, CSI ones stay as they are, and in-tree ones become ebs.csi.aws.com's where the target has lost the in-tree code.
	// +kubebuilder:validation:Enum=ebs.csi.aws.com;ebs.csi.eks.amazonaws.com
	// +optional
	EBSDriver string `json:"ebsDriver,omitempty"`
	// RequireSignature refuses a backup that no trusted key signed.
	// +optional
	RequireSignature bool `json:"requireSignature,omitempty"`
	// Hooks are commands that run in restored pods. Annotations of a pod win over them.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Hooks []RestoreHook `json:"hooks,omitempty"`
	// WaitTimeout bounds each wait for readiness: a CRD's establishment, a webhook's backend. Zero means 5 minutes.
	// +optional
	WaitTimeout metav1.Duration `json:"waitTimeout,omitempty"`

	// ServiceAccountName is the account, in the namespace of this object, as which the server writes to the cluster. Empty means
	// the server's own, unless the server requires one.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Cancel stops the restore; what was restored stays, and the report names it. It cannot be taken back.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// Transforms change objects on their way into a cluster. The maps go from an old value to a new one; a key may end in "*" where
// a value is an image or an ARN, and then stands for a prefix.
type Transforms struct {
	// StorageClasses maps StorageClass names, in claims, volumes and claim templates.
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// Images maps image references by prefix: "registry.old/*" to "registry.new/*".
	Images map[string]string `json:"images,omitempty"`
	// NodeSelectors maps "key=value" in node selectors; an empty new value removes the entry.
	NodeSelectors map[string]string `json:"nodeSelectors,omitempty"`
	// Zones maps availability zones in node selectors, node affinity, volumes and StorageClasses.
	Zones map[string]string `json:"zones,omitempty"`
	// FileSystems maps EFS file systems (fs-…) in volumes and StorageClasses. A volume that is mounted by an access point gets one like it
	// on the new file system, where the backup has its files.
	FileSystems map[string]string `json:"fileSystems,omitempty"`
	// KMSKeys maps the ARNs of KMS keys that EBS volumes are encrypted with: of new volumes with the backup's data, and in StorageClasses.
	KMSKeys map[string]string `json:"kmsKeys,omitempty"`
	// RoleARNs maps IAM role ARNs in service accounts' eks.amazonaws.com/role-arn annotation.
	RoleARNs map[string]string `json:"roleARNs,omitempty"`
	// LoadBalancerValues maps security groups, subnets, certificate ARNs in annotations of Services and Ingresses.
	LoadBalancerValues map[string]string `json:"loadBalancerValues,omitempty"`
	// Modifiers are applied in order, after everything above.
	Modifiers []ResourceModifier `json:"modifiers,omitempty"`
}

// ResourceModifier changes the objects that it selects; exactly one of its patches is set.
type ResourceModifier struct {
	// Resources selects by resource, as in Selection. Empty means all.
	Resources []string `json:"resources,omitempty"`
	// Namespaces selects by namespace, before mapping, with globs.
	Namespaces []string `json:"namespaces,omitempty"`
	// NameRegex selects by name (RE2).
	NameRegex string `json:"nameRegex,omitempty"`
	// LabelSelector selects by label.
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Condition is a CEL expression over "object".
	Condition string `json:"condition,omitempty"`

	// JSONPatch is a list of operations as in RFC 6902.
	JSONPatch []JSONPatchOperation `json:"jsonPatch,omitempty"`
	// MergePatch is a document as in RFC 7386, in YAML or JSON.
	MergePatch string `json:"mergePatch,omitempty"`
	// StrategicMergePatch is a Kubernetes strategic merge patch, in YAML or JSON; for built-in kinds.
	StrategicMergePatch string `json:"strategicMergePatch,omitempty"`
	// Expression is a CEL expression over "object" whose value, a map, replaces the object.
	Expression string `json:"expression,omitempty"`
}

// JSONPatchOperation is one operation of RFC 6902.
type JSONPatchOperation struct {
	Op   string `json:"op"`
	Path string `json:"path"`
	From string `json:"from,omitempty"`
	// Value is any JSON value, written as JSON text: "3", "\"three\"", "{\"a\":1}".
	Value string `json:"value,omitempty"`
}

// RestoreCounts sum up a restore. Every object of the plan is in exactly one of them.
type RestoreCounts struct {
	Planned   int `json:"planned"`
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Skipped   int `json:"skipped"`
	Failed    int `json:"failed"`
	// Warnings is how many remarks the report holds.
	Warnings int `json:"warnings"`
}

// RestoreStatus says what became of a restore. Its condition is Ready: True where everything selected is in the cluster.
type RestoreStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Attempts is how often a server began or went on with the restore; waiting for its turn is no attempt.
	Attempts int `json:"attempts,omitempty"`
	// Failures is how many of the attempts failed; one that ended with its server did not. After five the restore has failed.
	Failures int `json:"failures,omitempty"`
	// Stops is how many of the attempts were ended by a server that was stopped in order. The others, that did not fail, ended with their server.
	Stops int `json:"stops,omitempty"`
	// RefusedSince is since when the restore could not be begun; unset once it is queued.
	RefusedSince *metav1.Time `json:"refusedSince,omitempty"`
	// Progress is there while the restore runs.
	Progress *Progress `json:"progress,omitempty"`
	// BackupUID is the backup that is restored: a name may come to stand for another.
	BackupUID string `json:"backupUID,omitempty"`

	Phase          Phase         `json:"phase,omitempty"`
	Message        string        `json:"message,omitempty"`
	Counts         RestoreCounts `json:"counts,omitempty"`
	Target         *ClusterInfo  `json:"target,omitempty"`
	StartTime      *metav1.Time  `json:"startTime,omitempty"`
	CompletionTime *metav1.Time  `json:"completionTime,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kr,categories=kedge
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Backup",type=string,JSONPath=`.spec.backupName`
// +kubebuilder:printcolumn:name="Created",type=integer,JSONPath=`.status.counts.created`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.counts.failed`
// +kubebuilder:printcolumn:name="Started",type=date,JSONPath=`.status.startTime`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`

// Restore brings objects of a backup into a cluster.
type Restore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RestoreSpec   `json:"spec,omitempty"`
	Status RestoreStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// RestoreList is a list of restores.
type RestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Restore `json:"items"`
}
