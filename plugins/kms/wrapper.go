// Package kms wraps small secrets with a key of AWS KMS.
package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// The encryption context of every call. KMS refuses to decrypt under another one, writes it to CloudTrail, and policies can ask for it
// (kms:EncryptionContext:kedge.dev/purpose).
const (
	contextKey   = "kedge.dev/purpose"
	contextValue = "location-key"
)

// largestPlaintext is what Encrypt takes with a symmetric key.
const largestPlaintext = 4096

// Options say which key, and how to reach it.
type Options struct {
	// KeyID is the key's ARN, its alias ("alias/backups"), the alias's ARN, or its id.
	KeyID string
	// Region is the key's; empty means the one in an ARN, else the SDK's default chain.
	Region string
	// Endpoint is the URL of another service than Amazon's, or of a VPC endpoint.
	Endpoint string
	// The credentials are found as for a bucket; see v1alpha1.S3Location.
	Profile, CredentialsFile, RoleARN, ExternalID string
	// CABundle holds certificates in PEM that are trusted beside the system's.
	CABundle string
	// MaxAttempts is how often one request is sent at the most. Zero means 5.
	MaxAttempts int
	// Now is the clock that messages quote; nil means time.Now.
	Now func() time.Time
}

// Wrapper is one key. It implements plugins.KeyWrapper.
type Wrapper struct {
	client   *awskms.Client
	keyID    string
	region   string
	endpoint string
	now      func() time.Time
}

var _ plugins.KeyWrapper = (*Wrapper)(nil)

// New prepares for the use of a key; the network is asked at the most for a region. The error wraps plugins.ErrConfig where an option
// cannot be.
func New(ctx context.Context, opts Options) (*Wrapper, error) {
	w := &Wrapper{keyID: opts.KeyID, endpoint: opts.Endpoint, now: opts.Now}
	if w.now == nil {
		w.now = time.Now //nolint:forbidigo // the default of a field
	}
	if err := w.configure(ctx, opts); err != nil {
		return nil, w.fail(ctx, "open", err)
	}
	return w, nil
}

func (w *Wrapper) configure(ctx context.Context, opts Options) error {
	region, err := regionOf(opts.KeyID)
	if err != nil {
		return err
	}
	if opts.Region != "" && region != "" && opts.Region != region {
		return &awsconf.ConfigError{
			Field: "region", Detail: fmt.Sprintf("the key is in %s, but the region is set to %s", region, opts.Region), Remedy: "set the region to the key's, or leave it out",
		}
	}
	if opts.Region != "" {
		region = opts.Region
	}
	if opts.Endpoint != "" {
		if err := awsconf.CheckEndpoint(opts.Endpoint); err != nil {
			return err
		}
	}
	attempts := opts.MaxAttempts
	if attempts == 0 {
		attempts = 5
	}
	cfg, err := awsconf.Load(ctx, awsconf.Options{
		Region: region, AskInstance: opts.Endpoint == "", Profile: opts.Profile, CredentialsFile: opts.CredentialsFile,
		RoleARN: opts.RoleARN, ExternalID: opts.ExternalID, CABundle: opts.CABundle, MaxAttempts: attempts,
	})
	if err != nil {
		return err
	}
	if cfg.Region == "" {
		return &awsconf.ConfigError{Field: "region", Detail: "no region is set", Remedy: "name the key by its ARN, or set its region"}
	}
	w.region = cfg.Region
	w.client = awskms.NewFromConfig(cfg, func(o *awskms.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
		o.Retryer = awsconf.NewRetryer(attempts, "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException")
	})
	return nil
}

// regionOf is the region in an ARN, or "" for an id or an alias alone.
func regionOf(keyID string) (string, error) {
	bad := func(detail string) error {
		return &awsconf.ConfigError{Field: "keyID", Detail: detail, Remedy: "name the key by its ARN, its id, or its alias as alias/<name>"}
	}
	if keyID == "" {
		return "", bad("the key's id is empty")
	}
	if len(keyID) > 2048 || strings.ContainsFunc(keyID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", bad(fmt.Sprintf("%.100q is no id of a key", keyID))
	}
	if !strings.HasPrefix(keyID, "arn:") {
		return "", nil
	}
	parts := strings.SplitN(keyID, ":", 6) // arn:aws:kms:eu-west-1:111122223333:key/…
	if len(parts) != 6 || parts[2] != "kms" || parts[3] == "" || !strings.HasPrefix(parts[5], "key/") && !strings.HasPrefix(parts[5], "alias/") {
		return "", bad(fmt.Sprintf("%q is no ARN of a KMS key", keyID))
	}
	return parts[3], nil
}

// KeyID is the key as it was named.
func (w *Wrapper) KeyID() string { return w.keyID }

// Wrap encrypts plaintext with the key; KMS keeps track of which version of the key's material it was.
func (w *Wrapper) Wrap(ctx context.Context, plaintext []byte) ([]byte, error) {
	if len(plaintext) > largestPlaintext {
		return nil, w.fail(ctx, "wrap", fmt.Errorf("%d bytes are more than the %d that KMS encrypts", len(plaintext), largestPlaintext))
	}
	out, err := w.client.Encrypt(ctx, &awskms.EncryptInput{KeyId: &w.keyID, Plaintext: plaintext, EncryptionContext: encryptionContext()})
	if err != nil {
		return nil, w.fail(ctx, "wrap", err)
	}
	return out.CiphertextBlob, nil
}

// Unwrap decrypts what Wrap returned. The key is named in the request, so that a ciphertext of another key is refused though the
// caller may use that key too.
func (w *Wrapper) Unwrap(ctx context.Context, ciphertext []byte) ([]byte, error) {
	out, err := w.client.Decrypt(ctx, &awskms.DecryptInput{KeyId: &w.keyID, CiphertextBlob: ciphertext, EncryptionContext: encryptionContext()})
	if err != nil {
		return nil, w.fail(ctx, "unwrap", err)
	}
	return out.Plaintext, nil
}

func encryptionContext() map[string]string { return map[string]string{contextKey: contextValue} }

// meaning is what an error code means here.
type meaning struct {
	sentinel error
	remedy   string
}

// meanings are KMS's own error codes ("Errors" of Encrypt and Decrypt in the AWS KMS API reference).
var meanings = map[string]meaning{
	"NotFoundException":               {plugins.ErrConfig, "correct the key's id and region; a key of another account is named by its ARN"},
	"DisabledException":               {plugins.ErrConfig, "enable the key"},
	"KMSInvalidStateException":        {plugins.ErrConfig, "cancel the key's deletion, or import its material again"},
	"InvalidKeyUsageException":        {plugins.ErrConfig, "use a symmetric key for encryption and decryption (SYMMETRIC_DEFAULT)"},
	"InvalidArnException":             {plugins.ErrConfig, "correct the key's ARN"},
	"IncorrectKeyException":           {plugins.ErrConfig, "name the key that wrapped the secret"},
	"InvalidCiphertextException":      {plugins.ErrConfig, "name the key that wrapped the secret; if it is the right one, the wrapped secret was changed or is another purpose's"},
	"KeyUnavailableException":         {nil, "try again"},
	"DependencyTimeoutException":      {nil, "try again"},
	"KMSInternalException":            {nil, "try again"},
	"AccessDeniedException":           {plugins.ErrAccess, "allow it to the identity in the key's policy and in its IAM policy, for the encryption context " + contextKey + "=" + contextValue},
	"ValidationException":             {plugins.ErrConfig, "check the key's id"},
	"XksProxyUriUnreachableException": {nil, "check the external key store that holds the key"},
}

// fail makes err the error of an operation: with a sentinel of package plugins and a remedy where they are known.
func (w *Wrapper) fail(ctx context.Context, op string, err error) error {
	e := &plugins.KeyError{Op: op, KeyID: w.keyID, Err: err}
	if ctx.Err() != nil {
		e.Err = context.Cause(ctx)
		if !errors.Is(e.Err, ctx.Err()) {
			e.Err = fmt.Errorf("%w: %w", ctx.Err(), e.Err)
		}
		return e
	}
	where := w.endpoint
	if where == "" {
		where = "KMS in " + w.region
	}
	d := awsconf.Diagnose(err, where, w.now())
	sentinel := map[awsconf.Kind]error{awsconf.Access: plugins.ErrAccess, awsconf.Config: plugins.ErrConfig}[d.Kind]
	e.Remedy = d.Remedy
	var api smithy.APIError
	var creds *awsconf.CredentialsError
	if errors.As(err, &api) && !errors.As(err, &creds) {
		if m, ok := meanings[api.ErrorCode()]; ok {
			sentinel, e.Remedy = m.sentinel, m.remedy
		}
	}
	e.Err = d.As(err)
	if sentinel != nil {
		e.Err = fmt.Errorf("%w: %w", sentinel, e.Err)
	}
	return e
}
