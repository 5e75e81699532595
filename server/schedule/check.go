package schedule

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/schedule/clock"
)

// The reasons of the condition Ready.
const (
	ReasonValid                  = "Valid"
	ReasonInvalidName            = "InvalidName"
	ReasonInvalidSchedule        = "InvalidSchedule"
	ReasonInvalidTimeZone        = "InvalidTimeZone"
	ReasonInvalidNameTemplate    = "InvalidNameTemplate"
	ReasonInvalidTemplate        = "InvalidTemplate"
	ReasonServiceAccountRequired = "ServiceAccountRequired"
	ReasonNoKey                  = "NoKey"
)

const (
	// defaultNameTemplate names backups where the spec does not.
	defaultNameTemplate = "{schedule}-{time}"
	// nameTime is the layout of {time}.
	nameTime = "20060102150405"
	// minDeadline is the shortest startingDeadline: a new leader needs longer.
	minDeadline = 10 * time.Second
	// maxJitter is the longest jitter.
	maxJitter = 24 * time.Hour
	// maxScheduleName is what fits the value of a label.
	maxScheduleName = validation.LabelValueMaxLength
)

// placeholder is what stands in braces in a name template.
var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// checkTimes reads when a schedule runs. Its errors are stalled: only another spec helps.
func checkTimes(spec *v1alpha1.ScheduleSpec) (*clock.Times, error) {
	location, err := clock.LoadZone(spec.TimeZone)
	if err != nil {
		return nil, outcome.Stalled(ReasonInvalidTimeZone, err)
	}
	times, err := clock.Parse(spec.Schedule, location)
	if err != nil {
		return nil, outcome.Stalled(ReasonInvalidSchedule, err)
	}
	if d := spec.StartingDeadline; d != nil && d.Duration < minDeadline {
		return nil, outcome.Stalled(ReasonInvalidSchedule, fmt.Errorf("spec.startingDeadline: %s is shorter than %s, which a server may need to begin", d.Duration, minDeadline))
	}
	if j := spec.Jitter; j != nil && (j.Duration < 0 || j.Duration > maxJitter) {
		return nil, outcome.Stalled(ReasonInvalidSchedule, fmt.Errorf("spec.jitter: %s is not between 0s and %s", j.Duration, maxJitter))
	}
	return times, nil
}

// checkTemplate refuses what no Backup could be made from.
func checkTemplate(s *v1alpha1.Schedule, requireAccount bool) error {
	if len(s.Name) > maxScheduleName {
		return outcome.Stalled(ReasonInvalidName, fmt.Errorf("metadata.name: it is longer than the %d bytes that a label of its backups can hold", maxScheduleName))
	}
	if err := checkNameTemplate(s); err != nil {
		return outcome.Stalled(ReasonInvalidNameTemplate, err)
	}
	if err := checkBackup(&s.Spec.Template); err != nil {
		return outcome.Stalled(ReasonInvalidTemplate, err)
	}
	if requireAccount && s.Spec.Template.Spec.ServiceAccountName == "" {
		return outcome.Stalled(ReasonServiceAccountRequired, errors.New("spec.template.spec.serviceAccountName: this server backs up only as an account that the backup names"))
	}
	return nil
}

func checkNameTemplate(s *v1alpha1.Schedule) error {
	template := cmp.Or(s.Spec.NameTemplate, defaultNameTemplate)
	for _, p := range placeholder.FindAllString(template, -1) {
		if p != "{schedule}" && p != "{time}" {
			return fmt.Errorf("spec.nameTemplate: %s is not known: there are {schedule} and {time}", p)
		}
	}
	if !strings.Contains(template, "{time}") {
		return errors.New("spec.nameTemplate: it has no {time}, so all backups would have one name")
	}
	name := nameOf(s, time.Unix(0, 0))
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return fmt.Errorf("spec.nameTemplate: it makes %q, which cannot be a name: %s", name, wrong[0])
	}
	if most := validation.DNS1123SubdomainMaxLength - 1 - otherDigits; len(name) > most {
		return fmt.Errorf("spec.nameTemplate: it makes names of %d bytes; at most %d are left", len(name), most)
	}
	return nil
}

func checkBackup(t *v1alpha1.BackupTemplate) error {
	path := field.NewPath("spec", "template")
	errs := metavalidation.ValidateLabels(t.Metadata.Labels, path.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Metadata.Annotations, path.Child("metadata", "annotations"))...)
	if len(errs) > 0 {
		return errs.ToAggregate()
	}
	if t.Metadata.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" {
		return fmt.Errorf("spec.template.metadata.annotations: %s marks what was found in a bucket: leave it out", v1alpha1.ArchiveUIDAnnotation)
	}
	if t.Spec.Cancel {
		return errors.New("spec.template.spec.cancel: it would stop every backup at once: leave it out, or set spec.paused")
	}
	if t.Spec.TTL.Duration < 0 {
		return errors.New("spec.template.spec.ttl: it is negative: leave it out to keep backups until they are deleted")
	}
	if _, err := selection.Compile(t.Spec.Selection); err != nil {
		return inTemplate(err)
	}
	if _, err := volumes.Compile(t.Spec.Volumes); err != nil {
		return fmt.Errorf("spec.template.%w", err) // which begins with the field
	}
	if _, err := hooks.Compile(t.Spec.Hooks); err != nil {
		return fmt.Errorf("spec.template.%w", err)
	}
	return nil
}

// inTemplate moves the errors of a selection to where a schedule has it.
func inTemplate(err error) error {
	moved := func(err error) error {
		if own, ok := errors.AsType[*selection.FieldError](err); ok {
			return &selection.FieldError{Field: "spec.template." + own.Field, Err: own.Err}
		}
		return err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return moved(err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, inTemplate(e))
	}
	return errors.Join(errs...)
}

// nameOf is the name of the backup for a time.
func nameOf(s *v1alpha1.Schedule, at time.Time) string {
	template := cmp.Or(s.Spec.NameTemplate, defaultNameTemplate)
	return strings.NewReplacer("{schedule}", s.Name, "{time}", at.UTC().Format(nameTime)).Replace(template)
}

// NewBackup is the object that a run creates.
func (o *Owner) NewBackup(name string) *v1alpha1.Backup {
	s := o.schedule
	template := s.Spec.Template.DeepCopy()
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: s.Namespace,
			Labels: template.Metadata.Labels, Annotations: template.Metadata.Annotations,
		},
		Spec: template.Spec,
	}
	if b.Labels == nil {
		b.Labels = map[string]string{}
	}
	if b.Annotations == nil {
		b.Annotations = map[string]string{}
	}
	b.Labels[v1alpha1.ScheduleLabel], b.Annotations[v1alpha1.RunAnnotation] = s.Name, o.mark(name)
	if s.Spec.UseOwnerReferencesInBackup {
		b.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "Schedule", Name: s.Name, UID: s.UID, Controller: new(true),
		}}
	}
	return b
}
