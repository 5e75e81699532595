package awsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Kind sorts failures by who can mend them.
type Kind int

// The kinds.
const (
	// Other is everything else: a later attempt may succeed.
	Other Kind = iota
	// Access: the service refused who asked.
	Access
	// Config: what was configured cannot be.
	Config
)

// Diagnosis is a failure in words for people.
type Diagnosis struct {
	Kind   Kind
	Detail string // short, lower case, without the SDK's wrapping; never a secret
	Remedy string // one sentence in the imperative, or empty
}

// As is err in the words of the diagnosis.
func (d Diagnosis) As(err error) error { return &told{d.Detail, err} }

// told is an error of the SDK without the SDK's many words.
type told struct {
	text string
	err  error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.err }

// Diagnose says what an error of the SDK means, where it is not the caller's own cancel. endpoint names where the request went, for messages; it may be empty. now is the client's clock.
func Diagnose(err error, endpoint string, now time.Time) Diagnosis {
	var configured *ConfigError
	var creds *CredentialsError
	var api smithy.APIError
	switch {
	case errors.As(err, &configured):
		return Diagnosis{Kind: Config, Detail: configured.Detail, Remedy: configured.Remedy}
	case errors.As(err, &creds):
		return diagnoseCredentials(creds, now)
	case errors.As(err, &api):
		return diagnoseAPI(err, api, now)
	}
	if d, ok := diagnoseNetwork(err, endpoint, now); ok {
		return d
	}
	if _, ok := errors.AsType[*smithy.OperationError](err); ok {
		return Diagnosis{Detail: innermost(err).Error()} // the SDK's layers repeat each other
	}
	return Diagnosis{Detail: err.Error()}
}

// codes are the error codes that all services of AWS share, and what to do about each.
var codes = map[string]Diagnosis{
	"InvalidAccessKeyId":            {Kind: Access, Remedy: "check which access key is used, and that it exists and is active in the account or the service that the endpoint names"},
	"XAdminUserNotFound":            {Kind: Access, Remedy: "check which access key is used, and that the service that the endpoint names knows it"},
	"InvalidClientTokenId":          {Kind: Access, Remedy: "check which access key is used, and that it exists and is active"},
	"UnrecognizedClientException":   {Kind: Access, Remedy: "check which access key is used, and that it exists and is active"},
	"SignatureDoesNotMatch":         {Kind: Access, Remedy: "check the secret access key; a blank or a cut-off character is the usual cause"},
	"InvalidSignatureException":     {Kind: Access, Remedy: "check the secret access key; a blank or a cut-off character is the usual cause"},
	"IncompleteSignature":           {Kind: Access, Remedy: "check the access key and the secret access key for stray characters"},
	"ExpiredToken":                  {Kind: Access, Remedy: "log in again, or give credentials that renew themselves, such as a role or a profile with SSO"},
	"ExpiredTokenException":         {Kind: Access, Remedy: "log in again, or give credentials that renew themselves, such as a role or a profile with SSO"},
	"TokenRefreshRequired":          {Kind: Access, Remedy: "log in again, or give credentials that renew themselves, such as a role or a profile with SSO"},
	"InvalidToken":                  {Kind: Access, Remedy: "check the session token: it belongs to exactly one access key"},
	"AccessDenied":                  {Kind: Access, Remedy: "allow it to the identity in its IAM policy, and in the policy of the resource where there is one"},
	"AccessDeniedException":         {Kind: Access, Remedy: "allow it to the identity in its IAM policy, and in the policy of the resource where there is one"},
	"NotAuthorized":                 {Kind: Access, Remedy: "allow it to the identity in its IAM policy"},
	"AllAccessDisabled":             {Kind: Access, Remedy: "ask the account's owner why access is disabled"},
	"AccountProblem":                {Kind: Access, Remedy: "ask the account's owner; AWS has restricted the account"},
	"OptInRequired":                 {Kind: Access, Remedy: "sign the account up for the service, or enable the region"},
	"NotSignedUp":                   {Kind: Access, Remedy: "sign the account up for the service"},
	"InvalidIdentityToken":          {Kind: Access, Remedy: "check that the role trusts the cluster's OIDC issuer and that the token's audience is sts.amazonaws.com"},
	"IDPCommunicationError":         {Remedy: "try again; AWS could not reach the OIDC issuer"},
	"RegionDisabledException":       {Kind: Config, Remedy: "enable the region in the account"},
	"RequestExpired":                {Kind: Access, Remedy: "set the clock of this machine"},
	"MalformedPolicyDocument":       {Kind: Config},
	"MissingAuthenticationToken":    {Kind: Access, Remedy: "give credentials; the request went out without any"},
	"AccessDeniedByServicePolicy":   {Kind: Access, Remedy: "ask the organisation's administrator about its service control policies"},
	"MissingSecurityHeader":         {Kind: Config, Remedy: "check that no proxy on the way removes headers"},
	"ServiceUnavailable":            {Remedy: "try again later"},
	"SlowDown":                      {Remedy: "try again later, or with less concurrency"},
	"ThrottlingException":           {Remedy: "try again later, or with less concurrency"},
	"InternalError":                 {Remedy: "try again later"},
	"ConditionalRequestConflict":    {Remedy: "try again; another write to the same key was under way"},
	"OperationAborted":              {Remedy: "try again; another operation on the same resource was under way"},
	"InvalidParameterCombination":   {Kind: Config},
	"PackedPolicyTooLargeException": {Kind: Config},
}

// diagnoseAPI explains what a service answered.
func diagnoseAPI(err error, api smithy.APIError, now time.Time) Diagnosis {
	d := codes[api.ErrorCode()]
	d.Detail = describe(err, api)
	server, known := ServerTime(err)
	switch {
	case api.ErrorCode() == "RequestTimeTooSkewed" || known && isSignatureCode(api.ErrorCode()) && server.Sub(now).Abs() > 5*time.Minute:
		d.Kind = Access
		d.Remedy = "set the clock of this machine"
		if known {
			d.Remedy += fmt.Sprintf(": it says %s, the server says %s", now.UTC().Format(time.RFC3339), server.UTC().Format(time.RFC3339))
		}
	case d.Kind == Other && d.Remedy == "":
		switch Status(err) {
		case http.StatusUnauthorized, http.StatusForbidden:
			d.Kind, d.Remedy = Access, codes["AccessDenied"].Remedy
		case http.StatusProxyAuthRequired:
			d.Kind, d.Remedy = Config, "give the proxy's credentials in HTTPS_PROXY, or name the host in NO_PROXY"
		}
	}
	return d
}

// isSignatureCode says whether a clock that is off may be the cause of the error code.
func isSignatureCode(code string) bool {
	switch code {
	case "SignatureDoesNotMatch", "InvalidSignatureException", "RequestExpired", "AuthFailure":
		return true
	}
	return false
}

// describe is "Code: message (request id)", as short as it can be looked up.
func describe(err error, api smithy.APIError) string {
	text := api.ErrorCode()
	if words := message(api); words != "" && words != text {
		text += ": " + words
	}
	if status := http.StatusText(Status(err)); text == "" || message(api) == status {
		text = fmt.Sprintf("the server answered with status %d (%s)", Status(err), status) // the SDK has made a code of it
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(err, &id) && id.ServiceRequestID() != "" {
		text += " (request " + id.ServiceRequestID() + ")"
	}
	return text
}

// message is what the service says, cut where it never ends.
func message(api smithy.APIError) string {
	words := strings.TrimSpace(api.ErrorMessage())
	if len(words) > 500 {
		words = strings.ToValidUTF8(words[:500], "") + "…"
	}
	return words
}

// diagnoseCredentials explains why there are none.
func diagnoseCredentials(err *CredentialsError, now time.Time) Diagnosis {
	if api, ok := errors.AsType[smithy.APIError](err.Err); ok {
		d := diagnoseAPI(err.Err, api, now)
		d.Kind, d.Detail = Access, "get credentials: "+d.Detail
		if strings.HasPrefix(api.ErrorCode(), "AccessDenied") {
			d.Remedy = "let the role's trust policy name the identity that assumes it (for IRSA the cluster's OIDC issuer and the service account), with the external ID that it asks for"
		}
		return d
	}
	text := err.Err.Error()
	none := Diagnosis{
		Kind: Access, Detail: "no AWS credentials were found",
		Remedy: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile or a credentials file, or run with a role (IRSA, EKS Pod Identity, EC2)",
	}
	switch {
	case strings.Contains(text, "no EC2 IMDS role found"), strings.Contains(text, "static credentials are empty"), strings.Contains(text, "IMDS"):
		return none
	case strings.Contains(text, "failed to retrieve jwt from provide source"), strings.Contains(text, "unable to read file at"):
		return Diagnosis{
			Kind: Access, Detail: "get credentials: the web identity token cannot be read",
			Remedy: "check AWS_WEB_IDENTITY_TOKEN_FILE, and that the pod's service account carries the annotation eks.amazonaws.com/role-arn",
		}
	case strings.Contains(text, "SSO"), strings.Contains(text, "sso"):
		return Diagnosis{Kind: Access, Detail: "get credentials: the SSO session has ended or was never begun", Remedy: "run `aws sso login` for the profile"}
	}
	if d, ok := diagnoseNetwork(err.Err, "the credentials service", now); ok {
		d.Kind, d.Detail = Access, "get credentials: "+d.Detail
		return d
	}
	return Diagnosis{Kind: Access, Detail: "get credentials: " + innermost(err.Err).Error(), Remedy: none.Remedy}
}

// diagnoseNetwork explains why no answer came.
func diagnoseNetwork(err error, endpoint string, now time.Time) (Diagnosis, bool) {
	if endpoint == "" {
		endpoint = "the endpoint"
	}
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		network   net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return Diagnosis{Config, fmt.Sprintf("host %s does not exist", dns.Name), "check region and endpoint; a service other than Amazon's may want path-style addresses"}, true
	case errors.As(err, &dns):
		return Diagnosis{Other, fmt.Sprintf("look up host %s: %s", dns.Name, dns.Err), "check the name servers of this machine, and try again"}, true
	case errors.As(err, &authority):
		return Diagnosis{Config, fmt.Sprintf("the certificate of %s is signed by an authority that this machine does not trust", endpoint), "give the authority's certificate as caBundle"}, true
	case errors.As(err, &hostname):
		return Diagnosis{Config, fmt.Sprintf("the certificate of %s is for another name: %v", endpoint, hostname), "use the name that the certificate has, with path-style addresses if it has no wildcard"}, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Diagnosis{Config, fmt.Sprintf("the certificate of %s is not valid now: %v", endpoint, invalid), fmt.Sprintf("renew it, or set the clock of this machine, which says %s", now.UTC().Format(time.RFC3339))}, true
	case errors.As(err, &invalid), errors.As(err, &verify):
		return Diagnosis{Config, fmt.Sprintf("the certificate of %s is not valid: %v", endpoint, innermost(err)), "give the server a valid certificate"}, true
	case errors.As(err, &record), plainHTTP(err):
		return Diagnosis{Config, fmt.Sprintf("%s does not speak TLS", endpoint), "write the endpoint with http:// if that is meant, or use its TLS port"}, true
	case errors.Is(err, syscall.ECONNREFUSED):
		return Diagnosis{Other, fmt.Sprintf("connection to %s was refused", endpoint), "check that the service runs and that the port is right"}, true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Diagnosis{Other, fmt.Sprintf("connection to %s was broken off", endpoint), "try again; check the network and any proxy on the way"}, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Diagnosis{Other, fmt.Sprintf("%s cannot be reached", endpoint), "check routes, security groups and VPC endpoints"}, true
	case errors.As(err, &network) && network.Timeout():
		return Diagnosis{Other, fmt.Sprintf("%s did not answer in time", endpoint), "check the network, security groups and VPC endpoints, and try again"}, true
	}
	return Diagnosis{}, false
}

// Status is the HTTP status of the answer that err came with, or 0.
func Status(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		return answer.Response.StatusCode
	}
	return 0
}

// Header is a header of the answer that err came with, or "".
func Header(err error, name string) string {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		return answer.Response.Header.Get(name)
	}
	return ""
}

// ServerTime is the clock of the server that err came from.
func ServerTime(err error) (time.Time, bool) {
	at, parseErr := http.ParseTime(Header(err, "Date"))
	return at, parseErr == nil
}

// innermost is the root cause, whose text the wrapping repeats in full.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
