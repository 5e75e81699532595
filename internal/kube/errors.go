package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/pbjson"
)

// Errors that callers test for, with errors.Is.
var (
	// ErrRevisionGone means that the server cannot answer at the revision asked for: it was compacted (410 Expired), or the
	// server does not have it yet (504 or 500, a future revision). A new revision helps.
	ErrRevisionGone = errors.New("the revision is not to be had")
	// ErrUnknownOutcome means that a request that changes something was sent and its reply was lost: it may have been
	// carried out. The caller looks before it repeats it.
	ErrUnknownOutcome = errors.New("the outcome of the request is unknown")
	// ErrUnreachable means that no connection to the server could be made.
	ErrUnreachable = errors.New("the server cannot be reached")
)

// StatusError is an answer of the server that is not a success. It satisfies errors.As for apimachinery's APIStatus, so
// apierrors.IsNotFound and its like work on it.
type StatusError struct {
	Method, Path string
	Code         int // of HTTP
	Reason       metav1.StatusReason
	Message      string
	Details      *metav1.StatusDetails
	RetryAfter   time.Duration // 0 where the server did not say
}

// Error says what was asked and what the server answered.
func (e *StatusError) Error() string {
	msg := e.Message
	if msg == "" {
		msg = http.StatusText(e.Code)
	}
	return fmt.Sprintf("%s %s: %s (HTTP %d%s)", strings.ToLower(e.Method), e.Path, msg, e.Code, spaced(string(e.Reason)))
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

// Status gives the answer as apimachinery has it.
func (e *StatusError) Status() metav1.Status {
	return metav1.Status{Status: metav1.StatusFailure, Code: int32(e.Code), Reason: e.Reason, Message: e.Message, Details: e.Details}
}

// Causes are the server's detailed reasons, such as one for each field that it refuses.
func (e *StatusError) Causes() []metav1.StatusCause {
	if e.Details == nil {
		return nil
	}
	return e.Details.Causes
}

// Is makes errors.Is(err, ErrRevisionGone) work.
func (e *StatusError) Is(target error) bool {
	return target == ErrRevisionGone && e.revisionGone()
}

// revisionGone knows the three ways in which API servers of different versions refuse a revision: the watch cache's and etcd's
// compaction (410), the watch cache's wait for a revision that does not come (504 with a cause), and etcd's own error passed on (500).
func (e *StatusError) revisionGone() bool {
	switch e.Code {
	case http.StatusGone:
		return true
	case http.StatusGatewayTimeout:
		for _, c := range e.Causes() {
			if c.Type == metav1.CauseTypeResourceVersionTooLarge {
				return true
			}
		}
		return strings.Contains(e.Message, "Too large resource version")
	case http.StatusInternalServerError:
		return strings.Contains(e.Message, "required revision is a future revision") || strings.Contains(e.Message, "required revision has been compacted")
	}
	return false
}

// Code gives the HTTP status of err, 0 where err is no answer of the server.
func Code(err error) int {
	if se, ok := errors.AsType[*StatusError](err); ok {
		return se.Code
	}
	return 0
}

// RevisionError means that a page of a list came from another revision than the one asked for.
type RevisionError struct {
	Path, Want, Got string
}

// Error says which list and which revisions.
func (e *RevisionError) Error() string {
	return fmt.Sprintf("list %s: page is of revision %s, not of %s", e.Path, e.Got, e.Want)
}

// readStatus reads a metav1.Status in either encoding.
func readStatus(body []byte) (st metav1.Status, ok bool) {
	if st, ok = pbjson.Status(body); ok {
		return st, true
	}
	return st, json.Unmarshal(body, &st) == nil && st.Kind == "Status"
}

// statusError makes an error of an answer. The body is a metav1.Status where an API server wrote it, and anything else where a
// proxy did; then only its beginning is quoted.
func statusError(req Request, resp *http.Response, body []byte, retryAfter time.Duration) *StatusError {
	e := &StatusError{Method: req.Method, Path: req.Path, Code: resp.StatusCode, RetryAfter: retryAfter}
	if st, ok := readStatus(body); ok {
		e.Reason, e.Message, e.Details = st.Reason, st.Message, st.Details
		if e.RetryAfter == 0 && st.Details != nil && st.Details.RetryAfterSeconds > 0 {
			e.RetryAfter = time.Duration(st.Details.RetryAfterSeconds) * time.Second
		}
		return e
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(body), "?"))
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	e.Message = text
	return e
}
