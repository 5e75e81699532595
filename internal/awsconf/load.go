// Package awsconf makes the AWS SDK's configuration for one service that Kedge talks to, and says of the SDK's errors what a person
// can do about them.
package awsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// The patience with a connection. A server that takes longer is treated as one that is gone.
const (
	dialTimeout   = 10 * time.Second
	writeTimeout  = time.Minute     // for one write to make any progress
	headerTimeout = 2 * time.Minute // from the end of the request to the answer's headers; finishing an upload in parts takes a while
	// renewBefore is how long before their end credentials of an assumed role are renewed.
	renewBefore = 5 * time.Minute
)

// Options say where credentials and trust come from. The zero value is the SDK's default chain: environment, web identity (IRSA), shared
// configuration and credentials files, container credentials (EKS Pod Identity), the instance's role.
type Options struct {
	// Region is the service's; empty means the chain's: environment, shared configuration, the instance where AskInstance is set.
	Region string
	// AskInstance asks the EC2 instance metadata for the region where nothing else names one.
	AskInstance bool
	// Profile is one of the shared configuration.
	Profile string
	// CredentialsFile is a shared credentials file; its credentials come before those of the environment.
	CredentialsFile string
	// RoleARN is assumed with the credentials found; ExternalID goes with it.
	RoleARN, ExternalID string
	// CABundle holds certificates in PEM that are trusted beside the system's.
	CABundle string
	// MaxAttempts is how often one request is sent at the most. Zero means 10.
	MaxAttempts int
}

// ConfigError says that an option cannot be.
type ConfigError struct {
	Field  string // the field of Options
	Detail string
	Remedy string
	Err    error // may be nil
}

func (e *ConfigError) Error() string { return e.Detail }

// Unwrap gives the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// CredentialsError says that credentials could not be had.
type CredentialsError struct{ Err error }

func (e *CredentialsError) Error() string { return "get credentials: " + e.Err.Error() }

// Unwrap gives the SDK's error.
func (e *CredentialsError) Unwrap() error { return e.Err }

// Load makes the configuration. It reads files and the environment, and asks the network only for a region. The credentials of the result are
// fetched and renewed when they are needed; failures to do so are *CredentialsError.
func Load(ctx context.Context, opts Options) (aws.Config, error) {
	client, err := httpClient(opts.CABundle)
	if err != nil {
		return aws.Config{}, err
	}
	load, err := loadOptions(opts)
	if err != nil {
		return aws.Config{}, err
	}
	// What the SDK would log is in the errors, or of no use to the user.
	load = append(load, config.WithLogger(logging.Nop{}), config.WithHTTPClient(client), config.WithRetryer(func() aws.Retryer { return NewRetryer(opts.MaxAttempts) }))
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return aws.Config{}, loadError(opts, err)
	}
	// A bundle named by the environment has replaced the system's certificates by now; ours come on top of either.
	if cfg.HTTPClient, err = trust(cfg.HTTPClient, opts.CABundle); err != nil {
		return aws.Config{}, err
	}
	if opts.RoleARN != "" {
		return Assume(withCredentialsError(cfg), opts.RoleARN, opts.ExternalID), nil
	}
	return withCredentialsError(cfg), nil
}

// Assume gives a configuration whose credentials are those of a role, which is assumed with the credentials of cfg and, unless it is empty, the
// external ID. They are fetched and renewed when they are needed; failures to do so are *CredentialsError.
func Assume(cfg aws.Config, role, externalID string) aws.Config {
	assume := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "kedge"
		if externalID != "" {
			o.ExternalID = aws.String(externalID)
		}
	})
	cfg.Credentials = aws.NewCredentialsCache(assume, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = renewBefore })
	return withCredentialsError(cfg)
}

func withCredentialsError(cfg aws.Config) aws.Config {
	inner := cfg.Credentials
	cfg.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		creds, err := inner.Retrieve(ctx)
		if err != nil {
			return aws.Credentials{}, &CredentialsError{Err: err}
		}
		return creds, nil
	})
	return cfg
}

func loadOptions(opts Options) ([]func(*config.LoadOptions) error, error) {
	if opts.ExternalID != "" && opts.RoleARN == "" {
		return nil, &ConfigError{Field: "ExternalID", Detail: "an external ID is set, but no role to assume with it", Remedy: "set the role's ARN, or leave the external ID out"}
	}
	var load []func(*config.LoadOptions) error
	if opts.Region != "" {
		load = append(load, config.WithRegion(opts.Region))
	} else if opts.AskInstance {
		load = append(load, config.WithEC2IMDSRegion())
	}
	profile := opts.Profile
	if opts.CredentialsFile != "" {
		if err := readable(opts.CredentialsFile); err != nil {
			return nil, err
		}
		load = append(load, config.WithSharedCredentialsFiles([]string{opts.CredentialsFile}))
		if profile == "" {
			profile = "default" // named, so that the file comes before the environment
		}
	}
	if profile != "" {
		load = append(load, config.WithSharedConfigProfile(profile))
	}
	return load, nil
}

// readable finds out early what the SDK would pass over in silence.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return &ConfigError{
			Field: "CredentialsFile", Detail: fmt.Sprintf("read the credentials file: %v", err), Err: err,
			Remedy: "name a file in the format of ~/.aws/credentials that the user who runs kedge may read",
		}
	}
	return f.Close()
}

func loadError(opts Options, err error) error {
	if missing, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return &ConfigError{
			Field: "Profile", Detail: fmt.Sprintf("there is no profile %q in the shared configuration", missing.Profile), Err: err,
			Remedy: "name one of the profiles that `aws configure list-profiles` shows, or one of the credentials file",
		}
	}
	if opts.CredentialsFile != "" || opts.Profile != "" {
		return &ConfigError{Field: "Profile", Detail: fmt.Sprintf("load the AWS configuration: %v", err), Err: err, Remedy: "correct the shared configuration files"}
	}
	return &ConfigError{Detail: fmt.Sprintf("load the AWS configuration: %v", err), Err: err, Remedy: "correct the AWS_ variables of the environment and the shared configuration files"}
}

// CheckEndpoint says whether endpoint is the address of a service: an absolute http or https URL without credentials, query or fragment.
func CheckEndpoint(endpoint string) error {
	bad := func(detail, remedy string) error {
		return &ConfigError{Field: "Endpoint", Detail: detail, Remedy: remedy}
	}
	u, err := url.Parse(endpoint)
	switch {
	case err == nil && u.User != nil:
		return bad("the endpoint has credentials in it", "give them in a credentials file or in the environment, and remove them from the URL")
	case err != nil:
		// The parser's message would repeat what may be a password.
		return bad("the endpoint is no URL", "write it as https://host:port")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Hostname() == "":
		return bad(fmt.Sprintf("the endpoint %q is no http or https URL", endpoint), "write it as https://host:port")
	case u.RawQuery != "" || u.Fragment != "":
		return bad(fmt.Sprintf("the endpoint %q has a query or a fragment", endpoint), "write it as https://host:port")
	}
	return nil
}

// httpClient has room for many connections to one host, and gives up on those that do not move.
func httpClient(caBundle string) (*awshttp.BuildableClient, error) {
	if caBundle != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(caBundle)) {
		return nil, &ConfigError{Field: "CABundle", Detail: "the CA bundle holds no certificate in PEM", Remedy: "give the file that begins with -----BEGIN CERTIFICATE-----"}
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.MaxIdleConns = 256
		tr.MaxIdleConnsPerHost = 128
		tr.ResponseHeaderTimeout = headerTimeout
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return impatientConn{conn}, nil
		}
	}), nil
}

// impatientConn fails a write that nobody takes; a vanished peer would else hold it for as long as the kernel repeats itself.
type impatientConn struct{ net.Conn }

func (c impatientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil { //nolint:forbidigo // the kernel's clock is meant
		return 0, err
	}
	return c.Conn.Write(p)
}

// trust adds the bundle's certificates to those that the client trusts.
func trust(client aws.HTTPClient, caBundle string) (aws.HTTPClient, error) {
	buildable, ok := client.(*awshttp.BuildableClient)
	if caBundle == "" || !ok {
		return client, nil
	}
	var err error
	built := buildable.WithTransportOptions(func(tr *http.Transport) {
		if tr.TLSClientConfig == nil {
			tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		var pool *x509.CertPool
		if tr.TLSClientConfig.RootCAs != nil {
			pool = tr.TLSClientConfig.RootCAs.Clone()
		} else if pool, err = x509.SystemCertPool(); err != nil {
			return
		}
		pool.AppendCertsFromPEM([]byte(caBundle))
		tr.TLSClientConfig.RootCAs = pool
	})
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	return built, nil
}
