package aws

import (
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// New starts an AWS that ends with the test. Without Options.Dir its files are in the test's own folder.
func New(tb testing.TB, opts Options) *Cloud {
	tb.Helper()
	if opts.Dir == "" {
		opts.Dir = tb.TempDir()
	}
	c, err := Start(opts)
	if err != nil {
		tb.Fatalf("start the double of AWS: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("stop the double of AWS: %v", err)
		}
	})
	return c
}

// Config is the SDK's configuration for one region, with the home account's credentials.
func (c *Cloud) Config(region string) sdk.Config { return c.ConfigOf(HomeAccount, region) }

// ConfigOf is the SDK's configuration for one region, with an account's credentials.
func (c *Cloud) ConfigOf(account, region string) sdk.Config {
	creds := c.Account(account)
	return sdk.Config{
		Region: region, BaseEndpoint: sdk.String(c.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(creds.AccessKeyID, creds.SecretAccessKey, ""),
	}
}
