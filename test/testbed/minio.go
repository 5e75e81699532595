//go:build unix

package testbed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Minio is an S3 server that encrypts, which versitygw does not. It speaks TLS. It is run as a program
// of its own; nothing of it is linked into ours.
type Minio struct {
	*S3
	// KMSKeyID is the id of the key that the server encrypts with.
	KMSKeyID string
}

// StartMinio starts a minio server. The caller stops it; it also ends with the process.
func StartMinio(ctx context.Context) (*Minio, error) {
	program, err := minio(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	m, err := retryPorts(func() (*Minio, error) { return startMinio(ctx, program) })
	if err != nil {
		return nil, fmt.Errorf("start minio: %w", err)
	}
	return m, nil
}

func startMinio(ctx context.Context, program string) (_ *Minio, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	m := &Minio{
		S3:       &S3{Endpoint: "https://" + address, Region: "us-east-1", AccessKey: "AK" + randomHex(8), SecretKey: randomHex(20)},
		KMSKeyID: "testbed-key",
	}
	if m.dir, err = workDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.Stop()
		}
	}()
	home := filepath.Join(m.dir, "minio")
	certs, data := filepath.Join(home, "certs"), filepath.Join(home, "data")
	if m.CA, err = minioCerts(certs); err != nil {
		return nil, err
	}
	// The settings are variables of the server alone: "env" sets them.
	args := append(minioSettings(m), program, "server", "--quiet", "--address", address, "--certs-dir", certs, data)
	if m.server, err = startProcess(m.dir, "minio", "/usr/bin/env", args...); err != nil {
		return nil, err
	}
	client := m.Client()
	return m, waitReady(ctx, "minio", func(ctx context.Context) error {
		_, err := client.ListBuckets(ctx, &s3.ListBucketsInput{})
		return err
	}, m.server)
}

func minioSettings(m *Minio) []string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return []string{
		"MINIO_ROOT_USER=" + m.AccessKey, "MINIO_ROOT_PASSWORD=" + m.SecretKey, "MINIO_REGION=" + m.Region,
		"MINIO_KMS_SECRET_KEY=" + m.KMSKeyID + ":" + base64.StdEncoding.EncodeToString(key),
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "HOME=" + m.dir,
	}
}

// minioCerts makes a serving certificate under the names that the server looks for.
func minioCerts(dir string) (ca []byte, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if ca, err = writeServingCert(dir); err != nil {
		return nil, err
	}
	for from, to := range map[string]string{"tls.crt": "public.crt", "tls.key": "private.key"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// NewMinio starts a minio server for one test and stops it when the test ends.
func NewMinio(tb testing.TB) *Minio {
	tb.Helper()
	m, err := StartMinio(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() && testing.Verbose() {
			tb.Logf("end of minio's log:\n%s", m.server.logTail(4096))
		}
		m.Stop()
	})
	return m
}
