package mover

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

// What a mover's pod asks for and may take. A copy holds an index of what is stored, and a pack for each write under way.
const (
	requestCPU    = "250m"
	requestMemory = "256Mi"
	limitMemory   = "1Gi"
	goMemoryLimit = "900MiB"
	spoolLimit    = "4Gi"
	// grace is how long a pod may take to save how far it came; a mover needs at most twenty seconds.
	grace = 60
	// retries are the times that Kubernetes starts another pod where one failed in a way that may pass.
	retries = 2
)

// labelName and its value are on all that movers are made of.
const (
	labelName    = "app.kubernetes.io/name"
	nameOfMovers = "kedge-mover"
)

func (m *Mover) meta(t *Task, operation string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        t.name(),
		Labels:      map[string]string{LabelMover: operation, t.Owner.Label: t.Owner.UID, labelName: nameOfMovers, v1alpha1.ExcludeLabel: "true"},
		Annotations: map[string]string{AnnotationClaim: t.Claim, AnnotationWhat: t.Storage},
	}
}

// volume is a second PersistentVolume of the same storage, for the mover's claim alone. Removing it leaves the storage as it is. Where it can be
// mounted stays as it was, so the scheduler sends the pod where the storage is.
func (m *Mover) volume(t *Task, operation string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"}, ObjectMeta: m.meta(t, operation), Spec: *t.PV.Spec.DeepCopy(),
	}
	pv.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: m.Namespace, Name: t.name()}
	pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	pv.Spec.StorageClassName = ""
	pv.Spec.VolumeAttributesClassName = nil
	return pv
}

func (m *Mover) claim(t *Task, operation string) *corev1.PersistentVolumeClaim {
	none := ""
	c := &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: m.meta(t, operation),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: t.PV.Spec.AccessModes, StorageClassName: &none, VolumeName: t.name(), VolumeMode: t.PV.Spec.VolumeMode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: t.PV.Spec.Capacity[corev1.ResourceStorage]}},
		},
	}
	c.Namespace = m.Namespace
	return c
}

// capabilities are those of root that the operation needs over files (docs/mover.md), and no other.
func capabilities(operation string) []corev1.Capability {
	if operation == "copy" {
		return []corev1.Capability{"DAC_OVERRIDE", "FOWNER"}
	}
	return []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}
}

func (m *Mover) job(t *Task, operation string) *batchv1.Job {
	backoff := int32(retries)
	job := &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: m.meta(t, operation),
		Spec: batchv1.JobSpec{
			BackoffLimit: &backoff,
			// What another try cannot mend ends the Job; a node that goes away costs no try.
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
				{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
				{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{2, CodePartial, 4, 5}}},
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: m.meta(t, operation).Labels}, Spec: m.pod(t, operation)},
		},
	}
	job.Namespace = m.Namespace
	return job
}

func (m *Mover) pod(t *Task, operation string) corev1.PodSpec {
	no, yes, root, seconds, mode := false, true, int64(0), int64(grace), int32(0o400)
	spool := resource.MustParse(spoolLimit)
	args := append([]string{
		"mover", operation, "--path=" + dataPath, "--storage-location=" + m.Location, "--result-file=" + corev1.TerminationMessagePathDefault, "--quiet",
	}, t.Args...)
	return corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: m.ServiceAccount, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		TerminationGracePeriodSeconds: &seconds, TopologySpreadConstraints: spread(),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsUser: &root, RunAsGroup: &root, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "mover", Image: m.Image, Args: args,
			Env: []corev1.EnvVar{{Name: "KEDGE_CONFIG", Value: ConfigPath + "/config.yaml"}, {Name: "GOMEMLIMIT", Value: goMemoryLimit}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities(operation)},
			},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(requestCPU), corev1.ResourceMemory: resource.MustParse(requestMemory)},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limitMemory)},
			},
			TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			VolumeMounts: []corev1.VolumeMount{
				{Name: "data", MountPath: dataPath, ReadOnly: t.ReadOnly},
				{Name: "location", MountPath: ConfigPath, ReadOnly: true},
				{Name: "tmp", MountPath: "/tmp"},
			},
		}},
		Volumes: []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: t.name(), ReadOnly: t.ReadOnly}}},
			{Name: "location", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: m.Secret, DefaultMode: &mode}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &spool}}},
		},
	}
}

// spread has the movers of all backups and restores share the nodes evenly, as far as their volumes let them. How many a node takes is bounded by what they
// request.
func spread() []corev1.TopologySpreadConstraint {
	return []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{labelName: nameOfMovers}},
	}}
}
