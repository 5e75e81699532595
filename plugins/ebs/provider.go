// Package ebs is the volume provider of Amazon Elastic Block Store: snapshots and volumes through EC2, the snapshots' bytes through the EBS
// direct APIs.
//
// It calls ec2:DescribeVolumes, DescribeInstances and DescribeSnapshots; to take and keep snapshots CreateSnapshot, CreateSnapshots,
// DeleteSnapshot and CreateTags; to copy snapshots to other regions and accounts CopySnapshot, ModifySnapshotAttribute and sts:AssumeRole; to restore CreateVolume and DeleteVolume; to read blocks ebs:ListSnapshotBlocks, ListChangedBlocks and
// GetSnapshotBlock; to write them StartSnapshot, PutSnapshotBlock and CompleteSnapshot. With keys of KMS, kms:Decrypt, GenerateDataKeyWithoutPlaintext,
// ReEncrypt and CreateGrant go with these ("Required permissions" of Amazon EBS encryption, EBS User Guide).
package ebs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsebs "github.com/aws/aws-sdk-go-v2/service/ebs"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/internal/clock"
	"kedge.dev/kedge/plugins"
)

// Name is what records and reports call the provider.
const Name = "ebs"

// The tags by which requests are known again.
const (
	// TokenTag holds the token of the request that made a snapshot or a volume.
	TokenTag = "kedge.dev/token" //nolint:gosec // the name of a tag, no secret
	// VolumesTag holds a hash of the volumes that a snapshot's request was for, so that a token that is used for other volumes is noticed.
	VolumesTag = "kedge.dev/volumes"
)

const gib = 1 << 30

// The pauses between two looks at something that changes by itself.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
	// settleLooks is how often something is looked for that EC2 may not show yet: about 45 s with the pauses above. EC2 gives no bound
	// ("Eventual consistency" of the EC2 API Reference); seconds are usual.
	settleLooks = 7
)

// retried are the error codes beyond the SDK's own that another attempt may not meet ("Error codes" of the EC2 API Reference).
var retried = []string{"InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "InternalServerException", rateExceeded}

// rateExceeded is what a volume answers of which a snapshot was taken in the last 15 seconds.
const rateExceeded = "SnapshotCreationPerVolumeRateExceeded"

// Options are what the SDK's configuration does not say. The zero value is good.
type Options struct {
	// MaxAttempts is how often one request is sent at the most. Zero means 10.
	MaxAttempts int
	// Sleep waits for d or until ctx ends; nil is a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is the clock of messages; nil means time.Now.
	Now func() time.Time
}

// Provider is EBS in one region with one identity. It implements plugins.BlockSnapshots and plugins.SnapshotCopier.
type Provider struct {
	ec2    calls
	direct *awsebs.Client
	region string
	once   aws.Retryer // for calls that are not to be performed twice
	opts   Options

	tokens tokens
	shares shares
	places *places
}

var _ plugins.BlockSnapshots = (*Provider)(nil)

// New makes the provider of the configuration's region; the network is not asked. Endpoints other than Amazon's come with the configuration
// (AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_EBS and their like in the shared configuration). The error wraps plugins.ErrConfig.
func New(cfg aws.Config, opts Options) (*Provider, error) {
	if opts.Sleep == nil {
		opts.Sleep = clock.Sleep
	}
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the default of a field
	}
	p := &Provider{region: cfg.Region, opts: opts, places: &places{cfg: cfg, opened: map[plugins.Place]*Provider{}}}
	if cfg.Region == "" {
		return nil, p.classify("open", "", configured("set the region in AWS_REGION or in the profile", "no region is set"))
	}
	retryer := awsconf.NewRetryer(opts.MaxAttempts, retried...)
	p.once = once{retryer}
	p.ec2 = callsOf(awsec2.NewFromConfig(cfg, func(o *awsec2.Options) { o.Retryer = retryer }))
	p.direct = awsebs.NewFromConfig(cfg, func(o *awsebs.Options) { o.Retryer = retryer })
	return p, nil
}

// Name is "ebs".
func (p *Provider) Name() string { return Name }

// once retries only what was surely not performed: throttled calls and connections that were never made.
type once struct{ aws.Retryer }

func (r once) IsErrorRetryable(err error) bool {
	return unperformed(err) && r.Retryer.IsErrorRetryable(err)
}

// unperformed says whether err means that the call had no effect and may have one the next time.
func unperformed(err error) bool {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case rateExceeded, "RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled", "RequestThrottledException", "EC2ThrottledException":
			return true
		}
		return false
	}
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial"
}

// uncertain says whether the call that failed may have been performed all the same: no answer came, or one of a broken server.
func uncertain(ctx context.Context, err error) bool {
	var api smithy.APIError
	switch {
	case err == nil || ctx.Err() != nil || unperformed(err):
		return false
	case errors.As(err, &api):
		return awsconf.Status(err) >= http.StatusInternalServerError
	}
	// Without credentials, or with a server whose certificate is not trusted, nothing was sent.
	return awsconf.Diagnose(err, "", time.Time{}).Kind == awsconf.Other
}

// pause waits before look number n, counted from 0.
func (p *Provider) pause(ctx context.Context, n int) error {
	wait := lastPause
	if n < 10 && firstPause<<n < lastPause {
		wait = firstPause << n
	}
	return p.opts.Sleep(ctx, wait)
}

// clientToken makes of any token one that the services take: at most 64 ASCII characters ("Ensuring idempotency" of the EC2 API Reference).
func clientToken(token string) *string {
	sum := sha256.Sum256([]byte(token))
	return aws.String(hex.EncodeToString(sum[:]))
}

// gibibytes rounds up to what EBS counts in.
func gibibytes(bytes int64) int64 { return (bytes + gib - 1) / gib }

// where names the service for messages about connections.
func (p *Provider) where() string { return "AWS in " + p.region }
