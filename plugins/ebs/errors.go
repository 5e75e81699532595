package ebs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// meaning is what an error code means here.
type meaning struct {
	sentinel error
	remedy   string
}

// The error codes that are told apart.
const (
	volumeGone   = "InvalidVolume.NotFound"
	snapshotGone = "InvalidSnapshot.NotFound"
)

const (
	grantRemedy = "allow it to the identity in its IAM policy"
	quotaRemedy = "ask AWS for a higher quota in this region (Service Quotas, Amazon Elastic Block Store), or delete what is not needed"
	zoneRemedy  = "name a zone of the provider's region"
	keyRemedy   = "check that the KMS key exists in the region, is enabled, and that its policy lets the identity use it and create grants"
)

// meanings are the services' own error codes ("Error codes" of the EC2 API Reference, "Errors" of each action of the EBS direct APIs Reference).
var meanings = map[string]meaning{
	volumeGone:                         {plugins.ErrVolumeGone, ""},
	snapshotGone:                       {plugins.ErrVolumeGone, ""},
	"ResourceNotFoundException":        {plugins.ErrVolumeGone, ""},
	"InvalidVolumeID.Malformed":        {plugins.ErrConfig, ""},
	"InvalidSnapshotID.Malformed":      {plugins.ErrConfig, ""},
	"InvalidParameterValue":            {plugins.ErrConfig, ""},
	"InvalidParameterDependency":       {plugins.ErrConfig, ""},
	"InvalidParameterCombination":      {plugins.ErrConfig, ""},
	"MissingParameter":                 {plugins.ErrConfig, ""},
	"UnknownVolumeType":                {plugins.ErrConfig, ""},
	"InvalidZone.NotFound":             {plugins.ErrConfig, zoneRemedy},
	"IdempotentParameterMismatch":      {plugins.ErrConfig, "use another token for another request"},
	"ConflictException":                {plugins.ErrConfig, "use another token for another request"},
	"ValidationException":              {plugins.ErrConfig, ""},
	"InvalidKmsKeyId":                  {plugins.ErrConfig, keyRemedy},
	"KMSKeyNotAccessibleFault":         {plugins.ErrConfig, keyRemedy},
	"UnauthorizedOperation":            {plugins.ErrAccess, grantRemedy},
	"AccessDeniedException":            {plugins.ErrAccess, grantRemedy},
	"AuthFailure":                      {plugins.ErrAccess, "check which access key is used, and that it is active and of the right account"},
	"VolumeLimitExceeded":              {plugins.ErrVolumeQuota, quotaRemedy},
	"MaxIOPSLimitExceeded":             {plugins.ErrVolumeQuota, quotaRemedy},
	"ResourceLimitExceeded":            {plugins.ErrVolumeQuota, quotaRemedy},
	"SnapshotLimitExceeded":            {plugins.ErrVolumeQuota, quotaRemedy},
	"PendingSnapshotLimitExceeded":     {plugins.ErrVolumeQuota, "wait until other snapshots are completed, or ask AWS for a higher quota"},
	"ConcurrentSnapshotLimitExceeded":  {plugins.ErrVolumeQuota, "wait until other snapshots are completed, or ask AWS for a higher quota"},
	"ServiceQuotaExceededException":    {plugins.ErrVolumeQuota, quotaRemedy},
	"TagLimitExceeded":                 {plugins.ErrVolumeQuota, "use fewer tags: a resource takes 50"},
	"VolumeInUse":                      {nil, "detach it from its instance first"},
	"InvalidSnapshot.InUse":            {nil, "deregister the image that is made of it first"},
	"IncorrectState":                   {nil, "wait until it is available"},
	"InsufficientVolumeCapacity":       {nil, "try again later, in another zone, or with another volume type"},
	rateExceeded:                       {nil, "wait: a volume takes one snapshot in 15 seconds"},
	"RequestLimitExceeded":             {nil, "try again later, or with less concurrency"},
	"RequestThrottledException":        {nil, "try again later, or with less concurrency"},
	"ConcurrentLimitExceededException": {nil, "try again later, or with less concurrency"},
}

// failed is an error about a snapshot that will never be usable.
func failed(s plugins.Snapshot, remedy string) error {
	return awsconf.WithRemedy(awsconf.AsClass(plugins.ErrVolumeGone, fmt.Errorf("snapshot %s failed: %s", s.ID, cmp.Or(s.Message, "AWS does not say why"))), remedy)
}

// words are an error of the SDK in fewer words.
func (p *Provider) words(err error) error {
	return awsconf.Diagnose(err, p.where(), p.opts.Now()).As(err)
}

// configured is an error about what the caller gave.
func configured(remedy, format string, args ...any) error {
	return awsconf.WithRemedy(awsconf.AsClass(plugins.ErrConfig, fmt.Errorf(format, args...)), remedy)
}

// fail makes err the error of an operation on a volume or snapshot, unless it is one already.
func (p *Provider) fail(ctx context.Context, op, object string, err error) error {
	var known *plugins.VolumeError
	if err == nil || errors.As(err, &known) {
		return err
	}
	if ctx.Err() != nil {
		e := &plugins.VolumeError{Op: op, Provider: Name, Object: object, Err: context.Cause(ctx)}
		if !errors.Is(e.Err, ctx.Err()) {
			e.Err = fmt.Errorf("%w: %w", ctx.Err(), e.Err)
		}
		return e
	}
	return p.classify(op, object, err)
}

// classify is fail where nobody can have cancelled.
func (p *Provider) classify(op, object string, err error) error {
	e := &plugins.VolumeError{Op: op, Provider: Name, Object: object, Err: err}
	var own *awsconf.Hint
	switch {
	case errors.As(err, &own):
		e.Remedy = own.Remedy
	case plugins.Permanent(err) || errors.Is(err, plugins.ErrVolumeQuota):
	default:
		p.diagnose(e, err)
	}
	return e
}

// diagnose explains what AWS, the network or the credentials' source said.
func (p *Provider) diagnose(e *plugins.VolumeError, err error) {
	d := awsconf.Diagnose(err, p.where(), p.opts.Now())
	sentinel := map[awsconf.Kind]error{awsconf.Access: plugins.ErrAccess, awsconf.Config: plugins.ErrConfig}[d.Kind]
	e.Remedy = d.Remedy
	if _, ok := errors.AsType[*awsconf.CredentialsError](err); !ok {
		if m, ok := meanings[code(err)]; ok && !strings.HasPrefix(d.Remedy, "set the clock") {
			sentinel, e.Remedy = m.sentinel, m.remedy
		}
		if operation, ok := errors.AsType[*smithy.OperationError](err); ok && e.Remedy == grantRemedy {
			e.Remedy = fmt.Sprintf("allow %s:%s to the identity in its IAM policy", map[string]string{"EC2": "ec2", "EBS": "ebs"}[operation.ServiceID], operation.OperationName)
		}
	}
	e.Err = d.As(err)
	if sentinel != nil {
		e.Err = awsconf.AsClass(sentinel, e.Err)
	}
}

// code is the error code of a service's refusal, or "".
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}
