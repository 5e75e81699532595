package awsconf

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kedge.dev/kedge/internal/gate"
)

// The waits between attempts: the first is below twice firstWait, each next one up to twice as long, none longer than longestWait unless the
// server asks for more, which is obeyed up to longestObeyed.
const (
	defaultAttempts = 10
	firstWait       = 100 * time.Millisecond
	longestWait     = 20 * time.Second
	longestObeyed   = time.Minute
)

// retryer is the SDK's standard one with a shorter first wait, no quota over all requests (each is bounded by itself), and an ear for Retry-After.
type retryer struct{ aws.RetryerV2 }

// NewRetryer retries what a later attempt may do better: lost connections, timeouts, 429, 5xx, throttling, and the codes given, up to attempts times
// in all (10 where zero). What another attempt cannot change is not tried again: an untrusted certificate, a host that does not exist, missing credentials.
func NewRetryer(attempts int, codes ...string) aws.Retryer {
	if attempts <= 0 {
		attempts = defaultAttempts
	}
	more := retry.RetryableErrorCode{Codes: map[string]struct{}{}}
	for _, code := range codes {
		more.Codes[code] = struct{}{}
	}
	standard := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.MaxBackoff = longestWait
		o.Backoff = retry.BackoffDelayerFunc(backoff)
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless)}, o.Retryables...)
		o.Retryables = append(o.Retryables, more, retry.IsErrorRetryableFunc(cutShort), retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusTooManyRequests: {}}})
	})
	return retryer{standard}
}

// RetryDelay is the wait before the next attempt: the server's wish where it is the longer one.
func (r retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	wait, waitErr := r.RetryerV2.RetryDelay(attempt, err)
	return max(wait, retryAfter(err)), waitErr
}

func backoff(attempt int, _ error) (time.Duration, error) {
	ceiling := longestWait
	if shift := min(max(attempt, 0), 16); firstWait<<shift < longestWait {
		ceiling = firstWait << shift
	}
	// Not below half, so that many clients spread but none hammers.
	return ceiling/2 + rand.N(ceiling/2), nil //nolint:gosec // jitter is no secret
}

// retryAfter is the wait in seconds that the answer's header asks for.
func retryAfter(err error) time.Duration {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil {
		return 0
	}
	seconds, err := strconv.Atoi(answer.Response.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestObeyed)
}

// hopeless recognises what the SDK counts among failed connections and would try again.
func hopeless(err error) aws.Ternary {
	var (
		creds       *CredentialsError
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		invalid     x509.CertificateInvalidError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, gate.ErrShut), errors.As(err, &creds), errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname),
		errors.As(err, &invalid), errors.As(err, &record), plainHTTP(err):
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// cutShort recognises an answer whose connection broke in the middle, which the SDK takes for a malformed one.
func cutShort(err error) aws.Ternary {
	var syntax *xml.SyntaxError
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &syntax) && strings.Contains(syntax.Msg, "unexpected EOF") {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// plainHTTP says whether TLS was spoken to a server that speaks plain HTTP.
func plainHTTP(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
