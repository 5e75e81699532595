// Package s3 is the object store that is a bucket of Amazon S3, or of anything that speaks its API.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
)

// The defaults of Options, and the limits of S3 ("Amazon S3 multipart upload limits" of its user guide).
const (
	defaultPartSize    = 8 << 20
	defaultWholeSize   = 32 << 20
	defaultConcurrency = 3
	defaultStall       = time.Minute
	smallestPart       = 5 << 20
	largestPart        = 5 << 30
	mostParts          = 10_000
	longestKey         = 1024
)

// retried are the S3 error codes beyond the SDK's own that another attempt may not meet.
var retried = []string{"ConditionalRequestConflict", "OperationAborted", "InternalError", "ServiceUnavailable"}

// Options are what a bucket's location does not say.
type Options struct {
	// Retention is the mode of PutOptions.RetainUntil: types.ObjectLockModeCompliance where empty, or Governance.
	Retention types.ObjectLockMode
	// PartSize in bytes is what a Put holds at least and sends at once; objects larger than it go in parts. Zero means 8 MiB. S3 takes 10,000
	// parts, so it bounds the largest object.
	PartSize int64
	// WholeSize bounds the objects that go in one request though they are larger than a part, because their bytes are in memory already. Zero
	// means 32 MiB, below zero none.
	WholeSize int64
	// Concurrency is how many parts of one Put are under way. Zero means 3. A Put holds Concurrency+1 parts in memory.
	Concurrency int
	// MaxAttempts is how often one request is sent at the most. Zero means 10.
	MaxAttempts int
	// Stall is how long a read may wait for bytes before its connection is given up and the read resumed. Zero means a minute.
	Stall time.Duration
	// Gate is passed by each request that changes something: every part of an upload, every attempt. Nil is always open.
	Gate *gate.Gate
	// Now is the clock that retention and messages are held against; nil means time.Now. Requests are signed by the SDK's own.
	Now func() time.Time
}

// Store is a bucket, or a prefix of one. It implements plugins.ObjectStore and plugins.Checker.
//
// In a bucket that has versions, an object is the oldest version of its key: what somebody puts on top of it, a delete marker among
// them, hides nothing and shows nothing. Delete removes all versions by their ids; replacing puts a version and removes the older ones.
type Store struct {
	client    *awss3.Client
	bucket    string
	prefix    string // "" or ending in a slash
	region    string
	endpoint  string // for messages
	opts      Options
	sse       types.ServerSideEncryption
	sseKey    *string
	checksums bool
	versioned bool
	buffers   sync.Pool // of *[]byte with opts.PartSize of capacity
	oldest    versionCache
	locks     atomic.Bool // the bucket is known to have object lock
}

var (
	_ plugins.ObjectStore = (*Store)(nil)
	_ plugins.Checker     = (*Store)(nil)
)

// New opens the bucket of loc. It asks the bucket whether it has versions, and so finds out at once what is wrong with name, region,
// endpoint or credentials; the error then wraps plugins.ErrConfig or plugins.ErrAccess and has a remedy.
func New(ctx context.Context, loc v1alpha1.S3Location, opts Options) (*Store, error) {
	s := &Store{bucket: loc.Bucket, prefix: loc.Prefix, opts: withDefaults(opts), endpoint: loc.Endpoint}
	if err := s.configure(ctx, loc); err != nil {
		return nil, s.fail(ctx, "open", "", err)
	}
	if s.prefix != "" {
		s.prefix += "/"
	}
	state, err := s.probeVersioning(ctx)
	if err != nil {
		return nil, s.fail(ctx, "open", "", err)
	}
	s.versioned = state != versioningOff
	return s, nil
}

func withDefaults(opts Options) Options {
	opts.Retention = cmp.Or(opts.Retention, types.ObjectLockModeCompliance)
	opts.PartSize = cmp.Or(opts.PartSize, defaultPartSize)
	opts.WholeSize = cmp.Or(opts.WholeSize, defaultWholeSize)
	opts.Concurrency = cmp.Or(opts.Concurrency, defaultConcurrency)
	opts.Stall = cmp.Or(opts.Stall, defaultStall)
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the default of a field
	}
	return opts
}

// configure checks every field and makes the client; it asks the network at the most for a region.
func (s *Store) configure(ctx context.Context, loc v1alpha1.S3Location) error {
	if err := errors.Join(checkOptions(s.opts), checkLocation(loc)); err != nil {
		return err
	}
	cfg, err := awsconf.Load(ctx, awsconf.Options{
		Region: loc.Region, AskInstance: loc.Endpoint == "", Profile: loc.Profile, CredentialsFile: loc.CredentialsFile,
		RoleARN: loc.RoleARN, ExternalID: loc.ExternalID, CABundle: loc.CABundle, MaxAttempts: s.opts.MaxAttempts,
	})
	if err != nil {
		return err
	}
	if cfg.Region == "" {
		if loc.Endpoint == "" && cfg.BaseEndpoint == nil {
			return &awsconf.ConfigError{Field: "region", Detail: "no region is set", Remedy: "set the bucket's region in the location, in AWS_REGION or in the profile"}
		}
		cfg.Region = "us-east-1" // what other services than Amazon's call themselves unless told
	}
	s.region = cfg.Region
	// Checksums are computed here and sent as headers, which every service takes or ignores; the SDK's own way, trailers of a chunked body, is
	// one that older services refuse. Who set AWS_REQUEST_CHECKSUM_CALCULATION=when_required wants none where none is asked for.
	s.checksums = cfg.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired
	s.sse = types.ServerSideEncryption(loc.ServerSideEncryption)
	if loc.SSEKMSKeyID != "" {
		s.sseKey = aws.String(loc.SSEKMSKeyID)
	}
	s.client = awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		if loc.Endpoint != "" {
			o.BaseEndpoint = aws.String(loc.Endpoint)
		}
		o.UsePathStyle = loc.PathStyle
		o.HTTPClient = awsconf.Gated(o.HTTPClient, s.opts.Gate)
		o.Retryer = awsconf.NewRetryer(s.opts.MaxAttempts, retried...)
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		// Ranges have no checksum to be held against; who reads archives checks their SHA-256.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.APIOptions = append(o.APIOptions, refuseStrangers)
	})
	return nil
}

func checkOptions(opts Options) error {
	switch {
	case opts.PartSize < smallestPart || opts.PartSize > largestPart:
		return fmt.Errorf("part size of %d bytes: S3 takes %d to %d", opts.PartSize, smallestPart, largestPart)
	case opts.Concurrency < 1:
		return fmt.Errorf("concurrency of %d", opts.Concurrency)
	case opts.Retention != types.ObjectLockModeCompliance && opts.Retention != types.ObjectLockModeGovernance:
		return fmt.Errorf("retention mode %q is neither COMPLIANCE nor GOVERNANCE", opts.Retention)
	}
	return nil
}

// bucketName is what S3 allows, upper case and underscores included for old buckets and other services.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$`)

// checkLocation refuses what cannot be before anything is asked. The names of fields are those of the API.
func checkLocation(loc v1alpha1.S3Location) error {
	bad := func(field, detail, remedy string) error {
		return &awsconf.ConfigError{Field: field, Detail: detail, Remedy: remedy}
	}
	switch {
	case loc.Bucket == "":
		return bad("bucket", "the bucket's name is empty", "name a bucket")
	case strings.HasPrefix(loc.Bucket, "s3://"):
		return bad("bucket", fmt.Sprintf("bucket %q is a URL", loc.Bucket), "give the name alone, and what follows it as prefix")
	case !bucketName.MatchString(loc.Bucket) && !strings.HasPrefix(loc.Bucket, "arn:"):
		return bad("bucket", fmt.Sprintf("bucket %q is no name of a bucket", loc.Bucket), "give a name of 3 to 63 lower-case letters, digits, dots and hyphens")
	case loc.ServerSideEncryption != "" && loc.ServerSideEncryption != "AES256" && loc.ServerSideEncryption != "aws:kms" && loc.ServerSideEncryption != "aws:kms:dsse":
		return bad("serverSideEncryption", fmt.Sprintf("serverSideEncryption %q is not known", loc.ServerSideEncryption), `use "AES256" or "aws:kms", or leave it to the bucket`)
	case loc.SSEKMSKeyID != "" && !strings.HasPrefix(loc.ServerSideEncryption, "aws:kms"):
		return bad("sseKMSKeyID", "sseKMSKeyID is set without serverSideEncryption aws:kms", `set serverSideEncryption to "aws:kms"`)
	}
	if loc.Prefix != "" {
		if err := plugins.CheckKey(loc.Prefix); err != nil {
			return bad("prefix", fmt.Sprintf("prefix %q cannot begin keys: %v", loc.Prefix, err), "give a folder such as clusters/blue, without slashes at its ends")
		}
		if len(loc.Prefix)+1+plugins.MaxKeyBytes > longestKey {
			return bad("prefix", fmt.Sprintf("a prefix of %d bytes is longer than %d", len(loc.Prefix), longestKey-plugins.MaxKeyBytes-1), "give a shorter one")
		}
	}
	if loc.Endpoint != "" {
		return awsconf.CheckEndpoint(loc.Endpoint)
	}
	return nil
}

// String names the store: "s3://bucket/prefix".
func (s *Store) String() string {
	return "s3://" + strings.TrimSuffix(s.bucket+"/"+s.prefix, "/")
}

// where names the service for messages about connections.
func (s *Store) where() string {
	return cmp.Or(s.endpoint, "S3 in "+cmp.Or(s.region, "its region"))
}

func (s *Store) fullKey(key string) *string { return aws.String(s.prefix + key) }

func (s *Store) check(ctx context.Context, key string) error {
	if err := plugins.CheckKey(key); err != nil {
		return err
	}
	return context.Cause(ctx)
}
