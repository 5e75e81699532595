package efs

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/smithy-go"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

func configured(format string, args ...any) error {
	return awsconf.AsClass(plugins.ErrConfig, fmt.Errorf(format, args...))
}

func missing(remedy, format string, args ...any) error {
	return awsconf.WithRemedy(awsconf.AsClass(plugins.ErrVolumeGone, fmt.Errorf(format, args...)), remedy)
}

// sentinels are the service's own error codes ("Errors" of each action of the EFS API Reference).
var sentinels = map[string]error{
	"FileSystemNotFound":          plugins.ErrVolumeGone,
	"AccessPointNotFound":         plugins.ErrVolumeGone,
	"AccessPointLimitExceeded":    plugins.ErrVolumeQuota,
	"BadRequest":                  plugins.ErrConfig,
	"AccessDeniedException":       plugins.ErrAccess,
	"UnrecognizedClientException": plugins.ErrAccess,
}

// fail makes err the error of an operation.
func (p *Provider) fail(ctx context.Context, op, object string, err error) error {
	e := &plugins.VolumeError{Op: op, Provider: Name, Object: object, Err: err}
	var own *awsconf.Hint
	switch {
	case ctx.Err() != nil:
		e.Err = fmt.Errorf("%w: %w", ctx.Err(), context.Cause(ctx))
	case errors.As(err, &own):
		e.Remedy = own.Remedy
	case plugins.Permanent(err):
	default:
		p.diagnose(e, err)
	}
	return e
}

// diagnose explains what AWS, the network or the credentials' source said.
func (p *Provider) diagnose(e *plugins.VolumeError, err error) {
	d := awsconf.Diagnose(err, "AWS in "+p.region, p.opts.Now())
	e.Err, e.Remedy = d.As(err), d.Remedy
	sentinel := map[awsconf.Kind]error{awsconf.Access: plugins.ErrAccess, awsconf.Config: plugins.ErrConfig}[d.Kind]
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if s := sentinels[api.ErrorCode()]; s != nil {
			sentinel = s
		}
		if operation, ok := errors.AsType[*smithy.OperationError](err); ok && errors.Is(sentinel, plugins.ErrAccess) {
			e.Remedy = fmt.Sprintf("allow elasticfilesystem:%s to the identity in its IAM policy", operation.OperationName)
		}
		if errors.Is(sentinel, plugins.ErrVolumeQuota) {
			e.Remedy = "delete access points that are not needed, or ask AWS for a higher quota (Service Quotas, Amazon Elastic File System)"
		}
	}
	if sentinel != nil {
		e.Err = awsconf.AsClass(sentinel, e.Err)
	}
}
