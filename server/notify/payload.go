package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// Data is what is told: the keys are stable, those of other kinds and of what is not known are left out.
type Data struct {
	Event EventType `json:"event"`
	// Kind is Backup, Restore or Schedule; the next three identify the object.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Cluster is where the server runs.
	Cluster Cluster `json:"cluster"`
	// Phase is the final one of a backup or restore.
	Phase string `json:"phase,omitempty"`
	// Reason is the condition's, and Message says it for people.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Schedule is what made the backup, or what is silent.
	Schedule string `json:"schedule,omitempty"`
	// Location is the backup's.
	Location string `json:"location,omitempty"`
	// Backup is what was restored.
	Backup          string     `json:"backup,omitempty"`
	StartTime       *time.Time `json:"startTime,omitempty"`
	CompletionTime  *time.Time `json:"completionTime,omitempty"`
	DurationSeconds int64      `json:"durationSeconds,omitempty"`
	// Counts are the status' own.
	BackupCounts  *v1alpha1.Counts        `json:"backupCounts,omitempty"`
	RestoreCounts *v1alpha1.RestoreCounts `json:"restoreCounts,omitempty"`
	StoredBytes   int64                   `json:"storedBytes,omitempty"`
	// NextRun is what is overdue, LastSuccess when the schedule's newest usable backup was completed.
	NextRun     *time.Time `json:"nextRun,omitempty"`
	LastSuccess *time.Time `json:"lastSuccess,omitempty"`
}

// Cluster names a cluster.
type Cluster struct {
	// UID is that of the kube-system namespace.
	UID  string `json:"uid"`
	Name string `json:"name,omitempty"`
}

// notice is one thing to be told. Its id is made from the object's uid and what became of it, so that it is the same after a crash.
type notice struct {
	id   string
	time time.Time
	data Data
}

// cloudEvent is CloudEvents 1.0 in structured mode.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            Data      `json:"data"`
}

// maxMessage bounds what is quoted of a status.
const maxMessage = 1000

// overdue is the reason of a Schedule's condition Healthy that means silence.
const overdue = "RunOverdue"

// noticeOf says what there is to be told of an object; nil is nothing.
func noticeOf(object client.Object) *notice {
	var n *notice
	switch o := object.(type) {
	case *v1alpha1.Backup:
		n = backupNotice(o)
	case *v1alpha1.Restore:
		n = restoreNotice(o)
	case *v1alpha1.Schedule:
		n = scheduleNotice(o)
	}
	if n == nil {
		return nil
	}
	d := &n.data
	d.Namespace, d.Name, d.UID = object.GetNamespace(), object.GetName(), string(object.GetUID())
	if runes := []rune(d.Message); len(runes) > maxMessage {
		d.Message = string(runes[:maxMessage]) + "…"
	}
	return n
}

// eventOf is the event of a final phase; "" is none.
func eventOf(phase v1alpha1.Phase) EventType {
	switch phase {
	case v1alpha1.PhaseCompleted:
		return Success
	case v1alpha1.PhasePartiallyFailed:
		return PartialFailure
	case v1alpha1.PhaseFailed:
		return Failure
	default:
		return ""
	}
}

func backupNotice(b *v1alpha1.Backup) *notice {
	s := &b.Status
	event := eventOf(s.Phase)
	if event == "" || s.CompletionTime == nil || b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" {
		return nil // an object that shows what a bucket holds tells no news
	}
	counts := s.Counts
	d := Data{
		Event: event, Kind: "Backup", Phase: string(s.Phase), Schedule: s.Schedule, Location: s.StorageLocation,
		StoredBytes: s.StoredBytes, BackupCounts: &counts,
	}
	d.explain(s.Conditions, "Ready", s.Message)
	d.took(s.StartTime, s.CompletionTime)
	return &notice{id: string(b.UID) + "-" + string(s.Phase), time: s.CompletionTime.Time, data: d}
}

func restoreNotice(r *v1alpha1.Restore) *notice {
	s := &r.Status
	event := eventOf(s.Phase)
	if event == "" || s.CompletionTime == nil {
		return nil
	}
	counts := s.Counts
	d := Data{Event: event, Kind: "Restore", Phase: string(s.Phase), Backup: r.Spec.BackupName, Location: r.Spec.StorageLocation, RestoreCounts: &counts}
	d.explain(s.Conditions, "Ready", s.Message)
	d.took(s.StartTime, s.CompletionTime)
	return &notice{id: string(r.UID) + "-" + string(s.Phase), time: s.CompletionTime.Time, data: d}
}

func scheduleNotice(s *v1alpha1.Schedule) *notice {
	c := meta.FindStatusCondition(s.Status.Conditions, "Healthy")
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != overdue {
		return nil
	}
	d := Data{Event: Silence, Kind: "Schedule", Schedule: s.Name, NextRun: timeOf(s.Status.NextRun), LastSuccess: timeOf(s.Status.LastSuccess)}
	d.explain(s.Status.Conditions, "Healthy", "")
	return &notice{id: string(s.UID) + "-" + string(Silence) + "-" + strconv.FormatInt(c.LastTransitionTime.Unix(), 10), time: c.LastTransitionTime.Time, data: d}
}

func (d *Data) explain(conditions []metav1.Condition, kind, message string) {
	d.Message = message
	if c := meta.FindStatusCondition(conditions, kind); c != nil {
		d.Reason = c.Reason
		if message == "" {
			d.Message = c.Message
		}
	}
}

func (d *Data) took(start, end *metav1.Time) {
	d.StartTime, d.CompletionTime = timeOf(start), timeOf(end)
	if start != nil && end != nil {
		d.DurationSeconds = int64(end.Sub(start.Time) / time.Second)
	}
}

func timeOf(t *metav1.Time) *time.Time {
	if t == nil || t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}

// render makes the body of a request, and its content type.
func (w *Webhook) render(n *notice) (body []byte, contentType string, err error) {
	if w.body != nil {
		body, err = execute(w.body, n.data)
		return body, "application/json", err
	}
	d := &n.data
	body, err = json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: n.id, Source: "/clusters/" + d.Cluster.UID + "/namespaces/" + d.Namespace,
		Type: "dev.kedge." + strings.ToLower(d.Kind) + "." + strings.ToLower(string(d.Event)), Subject: d.Name,
		Time: n.time.UTC(), DataContentType: "application/json", Data: *d,
	})
	return body, "application/cloudevents+json", err
}

// maxBody bounds what a template makes.
const maxBody = 256 << 10

// parseTemplate reads a template and tries it on examples, so that a mistake is found when the server begins and not on the day of a failure.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("webhook").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		data, err := json.Marshal(v)
		return string(data), err
	}}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	now := time.Unix(0, 0).UTC()
	for _, d := range []Data{
		{Event: Failure, Kind: "Backup", Message: "a \"quoted\"\nmessage", StartTime: &now, CompletionTime: &now, BackupCounts: &v1alpha1.Counts{}},
		{Event: Success, Kind: "Restore", StartTime: &now, CompletionTime: &now, RestoreCounts: &v1alpha1.RestoreCounts{}},
		{Event: Silence, Kind: "Schedule"},
	} {
		if _, err := execute(t, d); err != nil {
			return nil, fmt.Errorf("tried on an example of kind %s: %w", d.Kind, err)
		}
	}
	return t, nil
}

func execute(t *template.Template, d Data) ([]byte, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, d); err != nil {
		return nil, err
	}
	if b.Len() > maxBody {
		return nil, fmt.Errorf("it makes more than %d bytes", maxBody)
	}
	if !json.Valid(b.Bytes()) {
		return nil, errors.New("what it makes is not JSON: put values in as {{json .Message}}, which quotes them")
	}
	return b.Bytes(), nil
}
