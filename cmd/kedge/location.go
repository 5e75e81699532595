package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

func (a *app) locationCommand() *cobra.Command {
	cmd := group("location", "Manage where backups are kept", `A location is a bucket or a folder that holds backups, with the key that they are encrypted to.

A server's locations are objects in its namespace. Those of --local are remembered in the configuration file of this machine; what is in
the bucket needs no such file: "kedge location add" registers it on another machine. Where neither flag, environment nor configuration
says which is meant, it is the server's where the cluster has one.`,
		a.locationCreateCommand(),
		a.locationAddCommand(),
		a.locationGetCommand(),
		a.locationDescribeCommand(),
		a.locationCheckCommand(),
		a.locationMaintainCommand(),
		a.locationDeleteCommand(),
	)
	cmd.Aliases = []string{"locations", "backup-location", "bsl"}
	return cmd
}

// locationFlags describe a location on the command line; they are bound to the API's spec where a field exists.
type locationFlags struct {
	spec         v1alpha1.BackupStorageLocationSpec
	s3           v1alpha1.S3Location
	file         v1alpha1.FileLocation
	caBundleFile string
	trustedFiles []string
}

func (l *locationFlags) bind(flags *pflag.FlagSet) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.StringVar(&l.s3.Bucket, "s3-bucket", "", "`name` of an S3 bucket")
	fs.StringVar(&l.s3.Prefix, "prefix", "", "`folder` within the bucket")
	fs.StringVar(&l.s3.Region, "region", "", "`region` of the bucket (default: the AWS SDK's chain)")
	fs.StringVar(&l.s3.Endpoint, "endpoint", "", "`URL` of an S3 service other than Amazon's")
	fs.BoolVar(&l.s3.PathStyle, "path-style", false, "address the bucket in the path, not in the host name")
	fs.StringVar(&l.caBundleFile, "ca-bundle-file", "", "PEM `file` with certificates to trust beside the system's")
	fs.StringVar(&l.s3.CredentialsFile, "credentials-file", "", "AWS shared credentials `file` (default: the AWS SDK's chain)")
	fs.StringVar(&l.s3.Profile, "profile", "", "`name` of a profile of the shared configuration")
	fs.StringVar(&l.s3.RoleARN, "role-arn", "", "`ARN` of a role to assume")
	fs.StringVar(&l.s3.ExternalID, "external-id", "", "external `id` that goes with --role-arn")
	fs.StringVar(&l.s3.ServerSideEncryption, "sse", "", "server-side encryption: `AES256` or aws:kms (default: the bucket's)")
	fs.StringVar(&l.s3.SSEKMSKeyID, "sse-kms-key-id", "", "KMS `key` of --sse aws:kms")
	fs.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{groupAnnotation: {groupS3}}
		flags.AddFlag(f)
	})
	flags.StringVar(&l.file.Path, "path", "", "`folder` that holds the backups, instead of a bucket")
	flags.BoolVar(&l.spec.ObjectLock, "object-lock", false, "have the bucket retain each backup until it expires (the bucket must have object lock)")
	flags.BoolVar(&l.spec.Default, "default", false, "make it the location of commands that name none (the first location is)")
	flags.StringVar(&l.spec.KMSKeyID, "kms-key-id", "", "AWS KMS `key` (ARN or alias) that wraps the location's private key")
	flags.StringArrayVar(&l.trustedFiles, "trusted-key-file", nil, "PEM `file` with an Ed25519 public key whose signatures on backups are trusted (repeatable)")
	annotate(flags, groupKeys, "kms-key-id", "trusted-key-file")
}

// object makes the location of what was given, and says what is missing.
func (l *locationFlags) object(command, name string) (*v1alpha1.BackupStorageLocation, error) {
	if err := checkName("location", name); err != nil {
		return nil, usageError(fmt.Errorf("%s: the name: %w", command, err), "")
	}
	switch {
	case l.s3.Bucket == "" && l.file.Path == "":
		return nil, usageError(fmt.Errorf("%s: neither --s3-bucket nor --path is given", command), "name a bucket with --s3-bucket, or a folder with --path")
	case l.s3.Bucket != "" && l.file.Path != "":
		return nil, usageError(fmt.Errorf("%s: --s3-bucket and --path exclude each other", command), "a location is a bucket or a folder")
	case l.file.Path != "":
		if l.s3 != (v1alpha1.S3Location{}) || l.caBundleFile != "" {
			return nil, usageError(fmt.Errorf("%s: flags of a bucket are given with --path", command), "a folder has no region, endpoint, credentials or encryption of its own")
		}
		if l.spec.ObjectLock {
			return nil, usageError(fmt.Errorf("%s: --object-lock is given with --path", command), "only a bucket can retain objects")
		}
		path, err := filepath.Abs(l.file.Path)
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: --path: %w", command, err), "")
		}
		l.spec.File = &v1alpha1.FileLocation{Path: path}
	default:
		if err := l.completeS3(command); err != nil {
			return nil, err
		}
		l.spec.S3 = &l.s3
	}
	for _, file := range l.trustedFiles {
		data, err := readSmallFile(file)
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: read the trusted key: %w", command, err), "")
		}
		if _, err := parseTrusted(file, data); err != nil {
			return nil, err
		}
		l.spec.TrustedKeys = append(l.spec.TrustedKeys, string(data))
	}
	return &v1alpha1.BackupStorageLocation{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BackupStorageLocation"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       l.spec,
	}, nil
}

// completeS3 checks what is given about a bucket and reads the files that it names.
func (l *locationFlags) completeS3(command string) error {
	s := &l.s3
	if s.ExternalID != "" && s.RoleARN == "" {
		return usageError(fmt.Errorf("%s: --external-id is given without --role-arn", command), "")
	}
	s.Prefix = strings.Trim(s.Prefix, "/")
	if s.CredentialsFile != "" {
		path, err := filepath.Abs(s.CredentialsFile)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return usageError(fmt.Errorf("%s: --credentials-file: %w", command, err), "")
		}
		s.CredentialsFile = path
	}
	if l.caBundleFile != "" {
		data, err := readSmallFile(l.caBundleFile)
		if err != nil {
			return usageError(fmt.Errorf("%s: --ca-bundle-file: %w", command, err), "")
		}
		s.CABundle = string(data)
	}
	return nil
}

// remember adds a location to the configuration and makes --local the default where nothing is said about it.
func (a *app) remember(object *v1alpha1.BackupStorageLocation, identityFiles ...string) error {
	madeLocal := false
	err := a.updateConfig(func(c *config) error {
		if _, err := c.location(object.Name); err == nil {
			return usageError(fmt.Errorf("remember location %s: there is one of that name already", object.Name), "")
		}
		if len(c.Locations) == 0 {
			object.Spec.Default = true
		}
		if object.Spec.Default {
			for i := range c.Locations {
				c.Locations[i].Spec.Default = false
			}
		}
		c.Locations = append(c.Locations, *object)
		for _, file := range identityFiles {
			c.rememberIdentity(file)
		}
		if c.Local == nil {
			on := true
			c.Local, madeLocal = &on, true
		}
		return nil
	})
	if err == nil && madeLocal {
		path, _ := a.configPath()
		a.ui.Note("Commands now run with --local unless told otherwise (\"local: true\" in %s).", path)
	}
	return err
}

func (c *config) rememberIdentity(file string) {
	if path, err := filepath.Abs(file); err == nil {
		file = path
	}
	if slices.Contains(c.AgeIdentityFiles, file) {
		return
	}
	c.AgeIdentityFiles = append(c.AgeIdentityFiles, file)
}
