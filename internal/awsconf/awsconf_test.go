package awsconf

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func answered(status int, header http.Header, err error) error {
	return &smithy.OperationError{ServiceID: "S3", OperationName: "GetObject", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status, Header: header}}, Err: err,
	}}
}

func TestRetryDelay(t *testing.T) {
	r := NewRetryer(5)
	if r.MaxAttempts() != 5 || NewRetryer(0).MaxAttempts() != 10 {
		t.Errorf("%d attempts and %d", r.MaxAttempts(), NewRetryer(0).MaxAttempts())
	}
	for attempt, longest := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000, 20000} {
		longest *= time.Millisecond
		got, err := r.RetryDelay(attempt, errors.New("x"))
		if err != nil || got < longest/2 || got > longest {
			t.Errorf("attempt %d waits %v, %v; want %v to %v", attempt, got, err, longest/2, longest)
		}
	}
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "600": time.Minute, "-1": 0, "soon": 0, "": 0} {
		err := answered(503, http.Header{"Retry-After": {header}}, errors.New("busy"))
		got, _ := r.RetryDelay(0, err)
		if want == 0 && got > 100*time.Millisecond || want != 0 && got != want {
			t.Errorf("Retry-After %q waits %v", header, got)
		}
	}
}

func TestRetryable(t *testing.T) {
	r := NewRetryer(3, "Extra")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{answered(503, nil, &smithy.GenericAPIError{Code: "SlowDown"}), true},
		{answered(429, nil, &smithy.GenericAPIError{Code: "TooMany"}), true},
		{answered(409, nil, &smithy.GenericAPIError{Code: "Extra"}), true},
		{answered(409, nil, &smithy.GenericAPIError{Code: "Other"}), false},
		{answered(403, nil, &smithy.GenericAPIError{Code: "AccessDenied"}), false},
		{&smithyhttp.RequestSendError{Err: errors.New("connection reset by peer")}, true},
		{&smithyhttp.RequestSendError{Err: errors.New("http: server gave HTTP response to HTTPS client")}, false},
		{&smithyhttp.RequestSendError{Err: &CredentialsError{errors.New("none")}}, false},
	} {
		if got := r.IsErrorRetryable(c.err); got != c.want {
			t.Errorf("%v is retried: %v", c.err, got)
		}
	}
}

func TestDiagnoseBounds(t *testing.T) {
	long := make([]byte, 10_000)
	for i := range long {
		long[i] = 'x'
	}
	d := Diagnose(answered(400, nil, &smithy.GenericAPIError{Code: "Odd", Message: string(long)}), "", time.Time{})
	if len(d.Detail) > 600 {
		t.Errorf("a message of %d bytes", len(d.Detail))
	}
	err := fmt.Errorf("outer: %w", errors.New("inner"))
	if got := Diagnose(err, "", time.Time{}).Detail; got != "outer: inner" {
		t.Errorf("an error that is not the SDK's becomes %q", got)
	}
	if d.As(err).Error() != d.Detail || !errors.Is(d.As(err), err) {
		t.Errorf("As gives %v", d.As(err))
	}
}

func FuzzCheckEndpoint(f *testing.F) {
	for _, seed := range []string{"https://s3.example.com", "http://127.0.0.1:9000", "https://u:p@h", "s3.example.com", "http://", "https://[::1]:1", "http://h/path?q#f", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		err := CheckEndpoint(endpoint)
		var known *ConfigError
		if err != nil && (!errors.As(err, &known) || known.Remedy == "") {
			t.Errorf("%q gives %v", endpoint, err)
		}
	})
}
