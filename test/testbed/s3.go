//go:build unix

package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// S3 is an S3 server (versitygw) that runs on loopback. It checks signatures and checksums, and knows multipart uploads, versions,
// object lock and conditional writes. It ignores server-side encryption headers, and keys "a" and "a/b" cannot both exist.
type S3 struct {
	Endpoint  string // "http://127.0.0.1:40001"
	Region    string
	AccessKey string
	SecretKey string
	// CA is the authority of the server's certificate, in PEM, if it serves TLS.
	CA []byte

	dir      string
	server   *process
	stopOnce sync.Once
}

// StartS3 starts an S3 server of its own, over TLS if asked. The caller stops it; it also ends with the process.
func StartS3(ctx context.Context, tls bool) (*S3, error) {
	program, err := versitygw(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := retryPorts(func() (*S3, error) { return startS3(ctx, program, tls) })
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	return s, nil
}

func startS3(ctx context.Context, program string, tls bool) (_ *S3, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	s := &S3{Endpoint: "http://" + address, Region: "us-east-1", AccessKey: "AK" + randomHex(8), SecretKey: randomHex(20)}
	if s.dir, err = workDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	home := filepath.Join(s.dir, "versitygw")
	for _, dir := range []string{"data", "versions"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			return nil, err
		}
	}
	args := []string{"--port", address, "--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--keep-alive", "--quiet"}
	if tls {
		s.Endpoint = "https://" + address
		if s.CA, err = writeServingCert(home); err != nil {
			return nil, err
		}
		args = append(args, "--cert", filepath.Join(home, "tls.crt"), "--key", filepath.Join(home, "tls.key"))
	}
	args = append(args, "posix", "--versioning-dir", filepath.Join(home, "versions"), filepath.Join(home, "data"))
	if s.server, err = startProcess(s.dir, "versitygw", program, args...); err != nil {
		return nil, err
	}
	client := s.Client()
	return s, waitReady(ctx, "the S3 server", func(ctx context.Context) error {
		_, err := client.ListBuckets(ctx, &s3.ListBucketsInput{})
		return err
	}, s.server)
}

// Stop ends the server and removes its data. It may be called more than once.
func (s *S3) Stop() {
	s.stopOnce.Do(func() {
		if s.server != nil {
			s.server.stop()
		}
		_ = os.RemoveAll(s.dir)
	})
}

// Client is an SDK client of the server.
func (s *S3) Client() *s3.Client {
	opts := s3.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: s.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	}
	if s.CA != nil {
		opts.HTTPClient = &http.Client{Transport: trusting(s.CA)}
	}
	return s3.New(opts)
}

// Env are the environment variables that make an AWS SDK or CLI use the server, as "NAME=value".
func (s *S3) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL_S3=" + s.Endpoint, "AWS_REGION=" + s.Region,
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Bucket is a bucket of a server that runs.
type Bucket struct {
	*S3
	Name string
}

type bucketOptions struct {
	versioned, locked bool
}

// BucketOption changes how a bucket is made.
type BucketOption func(*bucketOptions)

// Versioned keeps old versions of objects.
func Versioned() BucketOption { return func(o *bucketOptions) { o.versioned = true } }

// Locked enables object lock, and with it versions.
func Locked() BucketOption { return func(o *bucketOptions) { o.locked = true } }

// MakeBucket makes a new, empty bucket. An empty name chooses one.
func (s *S3) MakeBucket(ctx context.Context, name string, opts ...BucketOption) (*Bucket, error) {
	var o bucketOptions
	for _, opt := range opts {
		opt(&o)
	}
	if name == "" {
		name = "bucket-" + randomHex(6)
	}
	client := s.Client()
	in := &s3.CreateBucketInput{Bucket: &name}
	if o.locked {
		in.ObjectLockEnabledForBucket = aws.Bool(true)
	}
	if _, err := client.CreateBucket(ctx, in); err != nil {
		return nil, fmt.Errorf("make bucket %s: %w", name, err)
	}
	if o.versioned || o.locked {
		_, err := client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
			Bucket:                  &name,
			VersioningConfiguration: &s3types.VersioningConfiguration{Status: s3types.BucketVersioningStatusEnabled},
		})
		if err != nil {
			return nil, fmt.Errorf("enable versions in bucket %s: %w", name, err)
		}
	}
	return &Bucket{S3: s, Name: name}, nil
}

// Remove takes the bucket away with all that is in it, locked or not, behind the server's back.
func (b *Bucket) Remove() error {
	home := filepath.Join(b.dir, "versitygw")
	return errors.Join(removeAside(home, "data", b.Name), removeAside(home, "versions", b.Name))
}

// removeAside moves a folder of the server's out of its sight before it removes it: requests that a client has given up may still write.
func removeAside(home, kind, name string) error {
	aside := filepath.Join(home, "removed-"+kind+"-"+name)
	if err := os.Rename(filepath.Join(home, kind, name), aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(aside)
}
