package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
)

// sourceError is the failure of the reader that a Put was given.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read what is to be stored: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// strangerError is an answer that no S3 gives.
type strangerError struct{ detail, remedy string }

func (e *strangerError) Error() string { return e.detail }

// fail makes err the error of an operation: with a sentinel of package plugins and a remedy where they are known.
func (s *Store) fail(ctx context.Context, op, key string, err error) error {
	e := &plugins.StoreError{Op: op, Store: s.String(), Key: key, Err: err}
	var source *sourceError
	var stranger *strangerError
	switch {
	case errors.As(err, &source): // the store has no part in it
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
		if !errors.Is(e.Err, ctx.Err()) {
			e.Err = fmt.Errorf("%w: %w", ctx.Err(), e.Err)
		}
	case errors.Is(err, gate.ErrShut): // neither has it
	case errors.Is(err, plugins.ErrRetained):
		e.Remedy = "wait until the retention ends"
	case errors.Is(err, errNoLock):
		e.Remedy = lockRemedy
	case errors.Is(err, errChanged):
		e.Remedy = "read it again"
	case plugins.Permanent(err):
	case errors.As(err, &stranger):
		e.Err, e.Remedy = fmt.Errorf("%w: %w", plugins.ErrConfig, stranger), stranger.remedy
	default:
		s.diagnose(e, err)
	}
	return e
}

// diagnose explains what S3, the network or the credentials' source said.
func (s *Store) diagnose(e *plugins.StoreError, err error) {
	d := awsconf.Diagnose(err, s.where(), s.opts.Now())
	sentinel := map[awsconf.Kind]error{awsconf.Access: plugins.ErrAccess, awsconf.Config: plugins.ErrConfig}[d.Kind]
	e.Remedy = d.Remedy
	if special, ok := s.special(e.Op, err); ok {
		sentinel, e.Remedy = special.sentinel, special.remedy
		d.Detail += special.detail
	}
	cause := d.As(err)
	if sentinel != nil {
		e.Err = fmt.Errorf("%w: %w", sentinel, cause)
	} else {
		e.Err = cause
	}
}

const lockRemedy = "enable object lock on the bucket, or leave objectLock unset"

var errNoLock = fmt.Errorf("%w: the bucket has no object lock", plugins.ErrUnsupported)

// meaning is what an error code means here.
type meaning struct {
	sentinel error
	detail   string // behind the service's own words
	remedy   string
}

// meanings are S3's own error codes ("Error responses" of the Amazon S3 API reference).
var meanings = map[string]meaning{
	"NoSuchBucket":                  {plugins.ErrConfig, "", "create the bucket, or correct its name, region and endpoint"},
	"InvalidBucketName":             {plugins.ErrConfig, "", "give a name of 3 to 63 lower-case letters, digits, dots and hyphens"},
	"NoSuchKey":                     {plugins.ErrNotFound, "", ""},
	"NoSuchVersion":                 {plugins.ErrNotFound, "", ""},
	"PreconditionFailed":            {plugins.ErrExists, "", ""},
	"KeyTooLongError":               {plugins.ErrInvalidKey, "", "give a shorter prefix"},
	"NotImplemented":                {plugins.ErrUnsupported, "", "use a service that implements it; `kedge doctor` names what Kedge needs"},
	"EntityTooLarge":                {plugins.ErrUnsupported, "", "raise the part size"},
	"InvalidObjectState":            {plugins.ErrAccess, "", "restore the object from its archive storage class first, and keep lifecycle rules off Kedge's prefix"},
	"QuotaExceeded":                 {nil, "", "raise the quota of the bucket, or delete old backups"},
	"XMinioStorageFull":             {nil, "", "free some space, or delete old backups"},
	"StorageFull":                   {nil, "", "free some space, or delete old backups"},
	"ObjectParentIsFile":            {plugins.ErrInvalidKey, "", ""},
	"ExistingObjectIsDirectory":     {plugins.ErrInvalidKey, "", ""},
	"ObjectExistsAsDirectory":       {plugins.ErrInvalidKey, "", ""},
	"XMinioParentIsObject":          {plugins.ErrInvalidKey, "", ""},
	"XMinioObjectExistsAsDirectory": {plugins.ErrInvalidKey, "", ""},
	"KMS.DisabledException":         {plugins.ErrConfig, "", "enable the KMS key that encrypts the bucket's objects"},
	"KMS.NotFoundException":         {plugins.ErrConfig, "", "correct sseKMSKeyID: the key must exist in the bucket's region"},
	"KMS.KMSInvalidStateException":  {plugins.ErrConfig, "", "cancel the deletion of the KMS key, or name another one"},
	"KMS.InvalidKeyUsageException":  {plugins.ErrConfig, "", "name a symmetric encryption key as sseKMSKeyID"},
}

// special are the meanings that Diagnose, which knows no S3, does not have.
func (s *Store) special(op string, err error) (meaning, bool) {
	api := code(err)
	text := apiMessage(err)
	if m, ok := meanings[api]; ok {
		return m, true
	}
	switch {
	case wrongRegion(err):
		m := meaning{plugins.ErrConfig, "", "set the region to the bucket's"}
		if region := regionOf(err); region != "" {
			m.detail = fmt.Sprintf(": the bucket is in %s, the request went to %s", region, s.region)
			m.remedy = "set the region to " + region
		} else if s.endpoint != "" {
			m.remedy = "set the region that the endpoint " + s.endpoint + " expects"
		}
		return m, true
	case api == "InvalidRequest" && strings.Contains(strings.ReplaceAll(text, " ", ""), "ObjectLockConfiguration"):
		return meaning{plugins.ErrUnsupported, "", lockRemedy}, true
	case strings.HasPrefix(api, "AccessDenied") && strings.Contains(text, "kms:"):
		return meaning{plugins.ErrAccess, "", "allow kms:GenerateDataKey and kms:Decrypt on the bucket's KMS key, in the identity's policy and in the key's"}, true
	case api == "AccessDenied" || api == "Forbidden":
		return meaning{plugins.ErrAccess, "", s.accessRemedy(op)}, true
	case notFound(err) && op == "open", notFound(err) && op == "list":
		return meanings["NoSuchBucket"], true
	}
	return meaning{}, false
}

// actions are the IAM actions that each operation needs.
var actions = map[string]string{
	"open":   "s3:GetBucketVersioning and s3:ListBucket",
	"put":    "s3:PutObject (and s3:PutObjectRetention with object lock)",
	"get":    "s3:GetObject (s3:GetObjectVersion where the bucket has versions)",
	"stat":   "s3:GetObject and s3:ListBucket (s3:ListBucketVersions where the bucket has versions)",
	"list":   "s3:ListBucket (s3:ListBucketVersions where the bucket has versions)",
	"delete": "s3:DeleteObject (s3:DeleteObjectVersion where the bucket has versions)",
	"retain": "s3:PutObjectRetention, s3:GetObjectRetention and s3:ListBucketVersions",
}

func (s *Store) accessRemedy(op string) string {
	return fmt.Sprintf("allow the identity %s on %s, and look for denials in the bucket's policy and the organisation's", actions[op], s.bucket)
}

// wrongRegion says whether the request should have gone to another region.
func wrongRegion(err error) bool {
	switch code(err) {
	case "PermanentRedirect", "TemporaryRedirect", "MovedPermanently", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "IncorrectEndpoint":
		return true
	}
	return awsconf.Status(err) == http.StatusMovedPermanently
}

// expectedRegion is where AuthorizationHeaderMalformed names it.
var expectedRegion = regexp.MustCompile(`expecting '([a-z0-9-]+)'`)

// regionOf is the bucket's region, where the answer tells.
func regionOf(err error) string {
	if region := awsconf.Header(err, "X-Amz-Bucket-Region"); region != "" {
		return region
	}
	if match := expectedRegion.FindStringSubmatch(apiMessage(err)); match != nil {
		return match[1]
	}
	return ""
}

// retained tells retention from missing rights, both of which S3 calls AccessDenied.
func (s *Store) retained(ctx context.Context, key, id string, cause error) error {
	in := &awss3.HeadObjectInput{Bucket: &s.bucket, Key: s.fullKey(key)}
	if id != "" {
		in.VersionId = &id
	}
	out, err := s.client.HeadObject(ctx, in)
	switch {
	case err == nil && out.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn:
		return fmt.Errorf("%w: it has a legal hold", plugins.ErrRetained)
	case err == nil && aws.ToTime(out.ObjectLockRetainUntilDate).After(s.opts.Now()):
		return &plugins.RetainedError{Until: *out.ObjectLockRetainUntilDate}
	case strings.Contains(strings.ToLower(apiMessage(cause)), "object lock"):
		return plugins.ErrRetained
	}
	return cause
}

// code is the error code that a service answered with, or "".
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

func apiMessage(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorMessage()
	}
	return ""
}

// notFound says whether an object or a version is not there. A HEAD has no code but its status.
func notFound(err error) bool {
	switch code(err) {
	case "NoSuchKey", "NoSuchVersion", "NotFound":
		return true
	case "InvalidArgument":
		// What some services call a version that was there when it was listed.
		return strings.Contains(strings.ToLower(apiMessage(err)), "version id")
	}
	return false
}

// refuseStrangers makes an answer that is no S3's an error, where the SDK would find no field that it knows, and no fault.
func refuseStrangers(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("kedge:RefuseStrangers", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		answer, ok := out.RawResponse.(*smithyhttp.Response)
		if !ok || awsmiddleware.GetOperationName(ctx) == "GetObject" && err == nil {
			return out, metadata, err // an object may be anything
		}
		if stranger := recognise(answer); stranger != nil {
			return out, metadata, stranger
		}
		return out, metadata, err
	}), middleware.Before)
}

// recognise says what an answer is if it is no S3's. A load balancer's own page about an error of a server behind it is not meant.
func recognise(answer *smithyhttp.Response) error {
	kind := answer.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(kind, "text/html") && answer.StatusCode < http.StatusInternalServerError:
		name := "the server"
		if server := answer.Header.Get("Server"); server != "" {
			name += " (" + server + ")"
		}
		return &strangerError{
			fmt.Sprintf("%s answered with a web page, status %d", name, answer.StatusCode),
			"set the endpoint to the S3 API's address, not to its console's or a proxy's",
		}
	case answer.StatusCode == http.StatusBadRequest && kind == "" && !answer.ProtoAtLeast(1, 1):
		// What a server of Go's says to plain HTTP on its TLS port.
		return &strangerError{"the server does not answer like S3; it may want TLS", "write the endpoint with https://"}
	}
	return nil
}
