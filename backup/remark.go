package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// Severity says what a remark is about.
type Severity string

// The severities. SeverityError alone makes a backup PartiallyFailed.
const (
	SeverityWarning Severity = "Warning"
	SeverityError   Severity = "Error"
	SeveritySkipped Severity = "Skipped"
)

// Reasons of remarks.
const (
	ReasonExcludedByLabel   = "ExcludedByLabel"
	ReasonNotPersisted      = "NotPersisted"      // the resource is computed, not stored: nothing could be restored
	ReasonServedTwice       = "ServedTwice"       // the same objects are archived under another group
	ReasonForbidden         = "Forbidden"         // the account may not list it
	ReasonUnavailable       = "Unavailable"       // the service behind an aggregated API does not answer
	ReasonConversionFailed  = "ConversionFailed"  // the conversion webhook of a definition does not answer
	ReasonListFailed        = "ListFailed"        // any other failure of a list
	ReasonUnreadable        = "Unreadable"        // an object that is not as it should be
	ReasonTooLarge          = "TooLarge"          // an object larger than an archive may hold
	ReasonExpressionFailed  = "ExpressionFailed"  // spec.expression cannot be evaluated on the object
	ReasonNotServed         = "NotServed"         // a definition none of whose versions the server offers
	ReasonVersionUnknown    = "VersionUnknown"    // the storage version could not be learned
	ReasonNoMatch           = "NoMatch"           // a pattern that stands for nothing
	ReasonNamespaceNotFound = "NamespaceNotFound" // an included namespace that does not exist
	ReasonTerminating       = "Terminating"       // a namespace that is being deleted
)

// remarks collects what the report will say.
type remarks struct {
	mu    sync.Mutex
	notes []string
	list  []judged
	parts []*remarks
}

type judged struct {
	severity Severity
	archive.Remark
}

// part gives remarks that can be forgotten without the others.
func (r *remarks) part() *remarks {
	p := &remarks{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = append(r.parts, p)
	return p
}

func (r *remarks) add(s Severity, m archive.Remark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, judged{s, m})
}

func (r *remarks) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// forget drops what was said.
func (r *remarks) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes, r.list = nil, nil
}

// all gives what was said here and in the parts.
func (r *remarks) all() (notes []string, list []judged) {
	r.mu.Lock()
	defer r.mu.Unlock()
	notes, list = slices.Clone(r.notes), slices.Clone(r.list)
	for _, p := range r.parts {
		moreNotes, more := p.all()
		notes, list = append(notes, moreNotes...), append(list, more...)
	}
	return notes, list
}

// report sorts the remarks, so that equal clusters give equal reports. What was said twice of an object, as it was met in two lists, is said once.
func (r *remarks) report() archive.Report {
	notes, list := r.all()
	slices.SortStableFunc(list, func(a, b judged) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(refKey(a.Ref), refKey(b.Ref)), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	list = slices.CompactFunc(list, func(a, b judged) bool {
		return a.Ref != nil && b.Ref != nil && *a.Ref == *b.Ref && a.severity == b.severity && a.Reason == b.Reason && a.Message == b.Message
	})
	slices.Sort(notes)
	out := archive.Report{Notes: notes}
	for _, m := range list {
		switch m.severity {
		case SeverityError:
			out.Errors = append(out.Errors, m.Remark)
		case SeverityWarning:
			out.Warnings = append(out.Warnings, m.Remark)
		case SeveritySkipped:
			out.Skipped = append(out.Skipped, m.Remark)
		}
	}
	return out
}

func refKey(ref *plugins.Ref) string {
	if ref == nil {
		return ""
	}
	return ref.GroupResource() + "/" + ref.Version + " " + archive.Key(ref.Namespace, ref.Name)
}

// publish tells the remarks of a reading that stands.
func (r *remarks) publish(e Events) {
	if e.Remark == nil {
		return
	}
	report := r.report()
	for _, m := range report.Errors {
		e.Remark(SeverityError, m)
	}
	for _, m := range report.Warnings {
		e.Remark(SeverityWarning, m)
	}
	for _, m := range report.Skipped {
		e.Remark(SeveritySkipped, m)
	}
}

// onResource is a remark on a whole resource, or on what one namespace has of it.
func onResource(t *target, namespace, reason, format string, args ...any) archive.Remark {
	m := archive.Remark{Resource: t.name(), Reason: reason, Message: fmt.Sprintf(format, args...)}
	if namespace != "" {
		m.Message = "in namespace " + namespace + ": " + m.Message
	}
	return m
}

func onItem(ref plugins.Ref, reason, format string, args ...any) archive.Remark {
	return archive.Remark{Ref: &ref, Resource: ref.GroupResource(), Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// fatal tells errors that end a backup from those that concern one resource.
func fatal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, kube.ErrUnreachable) || errors.Is(err, errSink) || kube.Code(err) == http.StatusUnauthorized
}

// lost says that an error ends the backup, or the pinned revision at which was asked. Where no revision was asked for, a server that answers as if it had
// gone speaks of its own resource only.
func lost(ctx context.Context, err error) bool {
	return fatal(ctx, err) || errors.Is(err, kube.ErrRevisionGone)
}

// errSink marks errors of the archive: no resource is to blame for them.
var errSink = errors.New("write the archive")

// listFailure says why a resource could not be listed and what helps.
func listFailure(t *target, namespace string, err error) archive.Remark {
	var se *kube.StatusError
	if !errors.As(err, &se) {
		return onResource(t, namespace, ReasonListFailed, "%v", err)
	}
	switch {
	case se.Code == http.StatusForbidden:
		return onResource(t, namespace, ReasonForbidden, "%s: grant \"list\" on %s to the account that Kedge uses, or leave the resource out of the selection", se.Message, t.res.GroupResource())
	case strings.Contains(se.Message, "conversion webhook"):
		return onResource(t, namespace, ReasonConversionFailed, "%s: repair the conversion webhook of CustomResourceDefinition %s, without which nobody can read these objects", se.Message, t.res.GroupResource())
	case se.Code == http.StatusServiceUnavailable:
		return onResource(t, namespace, ReasonUnavailable, "%s: repair the service behind the API, or delete APIService %s.%s if it is a left-over", se.Message, t.res.Version, t.res.Group)
	}
	return onResource(t, namespace, ReasonListFailed, "%v", err)
}
