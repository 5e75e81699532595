package aws

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// largestBody bounds what is read of a request: a block and what goes with it.
const largestBody = 1 << 20

// call is one request on its way through the server.
type call struct {
	*http.Request

	op      string
	service string // of the signature's scope: "ec2", "ebs"
	region  string
	account string
	now     time.Time
	id      string // of the request
	body    []byte
	form    url.Values // of the query protocol
	path    []string   // matches of the operation's path
	perform func(*Cloud, *call) (*answer, *apiError)
}

// apiError is a refusal.
type apiError struct {
	status                int
	code, reason, message string
}

func refuse(code, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
}

// answer is what a service gives back: a status, headers and a body in its own protocol.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// scope finds the access key, the region and the service in a signature (version 4) of the Authorization header.
var scope = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,]+)/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request,`)

// protocol is how a service names its operations and shapes its answers.
type protocol struct {
	operation func(*call) bool // sets op and what belongs to it; false where there is none such
	perform   func(*Cloud, *call) (*answer, *apiError)
	refuse    func(*call, *apiError) *answer
	throttled apiError
}

var protocols = map[string]protocol{
	"ec2":               {queryOperation, (*Cloud).performEC2, refuseQuery, apiError{http.StatusServiceUnavailable, "RequestLimitExceeded", "", "Request limit exceeded."}},
	"ebs":               restProtocol(directOperations, refuseJSON, apiError{http.StatusBadRequest, "RequestThrottledException", "ACCOUNT_THROTTLED", "Rate exceeded."}),
	"elasticfilesystem": restProtocol(fileOperations, refuseFiles, apiError{http.StatusTooManyRequests, "ThrottlingException", "", "Rate exceeded."}),
	"sts":               {tokenOperation, (*Cloud).performToken, refuseToken, apiError{http.StatusBadRequest, "Throttling", "", "Rate exceeded"}},
	"kms":               {keyOperation, (*Cloud).performKey, refuseKey, apiError{http.StatusBadRequest, "ThrottlingException", "", "Rate exceeded"}},
}

func restProtocol(operations []restOperation, refuse func(*call, *apiError) *answer, throttled apiError) protocol {
	find, perform := rest(operations)
	return protocol{find, perform, refuse, throttled}
}

// ServeHTTP answers one request.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if found == nil {
		http.Error(w, "the request is not signed", http.StatusForbidden)
		return
	}
	p, ok := protocols[found[3]]
	if !ok {
		http.Error(w, "no such service: "+found[3], http.StatusNotFound)
		return
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), largestBody)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, largestBody)); err != nil {
		return // the client is gone, or mad
	}
	c.mu.Lock()
	c.nextID++
	in := &call{Request: r, region: found[2], service: found[3], account: c.accounts[found[1]], now: c.opts.Now(), id: fmt.Sprintf("req-%d", c.nextID), body: body.Bytes()}
	c.mu.Unlock()
	if !p.operation(in) {
		c.write(w, p.refuse(in, refuse("InvalidAction", "The action is not valid for this web service.")), in, nil)
		return
	}
	fault := c.count(in.op)
	if fault == nil {
		fault = &Fault{}
	}
	if fault.Before != nil {
		fault.Before()
	}
	if fault.Latency > 0 {
		select {
		case <-time.After(fault.Latency):
		case <-r.Context().Done():
			return
		}
	}
	if fault.Drop {
		cut(w)
		return
	}
	out := c.respond(p, in, fault)
	if fault.LoseReply {
		cut(w)
		return
	}
	c.write(w, out, in, fault)
}

// respond performs the call, unless it is refused before.
func (c *Cloud) respond(p protocol, in *call, fault *Fault) *answer {
	switch {
	case in.account == "":
		return p.refuse(in, &apiError{http.StatusUnauthorized, "AuthFailure", "", "AWS was not able to validate the provided access credentials"})
	case fault.Code != "":
		status := fault.Status
		if status == 0 {
			status = http.StatusBadRequest
		}
		return p.refuse(in, &apiError{status, fault.Code, fault.Reason, fault.Message})
	case c.throttle(in.op):
		throttled := p.throttled
		return p.refuse(in, &throttled)
	}
	out, refused := p.perform(c, in)
	if refused != nil {
		return p.refuse(in, refused)
	}
	return out
}

func (c *Cloud) write(w http.ResponseWriter, out *answer, in *call, fault *Fault) {
	maps.Copy(w.Header(), out.header)
	w.Header().Set("X-Amzn-Requestid", in.id)
	w.Header().Set("Date", in.now.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(out.body)))
	w.WriteHeader(out.status)
	switch {
	case fault != nil && fault.CutShort:
		_, _ = w.Write(out.body[:len(out.body)/2]) // it is to fail
		panic(http.ErrAbortHandler)
	case fault != nil && fault.Damage && len(out.body) > 0:
		out.body = bytes.Clone(out.body)
		out.body[len(out.body)/2] ^= 1
	}
	_, _ = w.Write(out.body) // a client that is gone has its own error
}
