package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/deploy/iam"
)

func (a *app) awsPolicyCommand() *cobra.Command {
	var l iam.Location
	var volumes string
	cmd := &cobra.Command{
		Use:   "policy --bucket BUCKET",
		Short: "Print the least IAM policy for a location",
		Long: `Print the least IAM policy for a location (JSON): what Kedge calls, on this bucket below this prefix, and nothing else. docs/locations.md
says which call needs which right.

With --volumes the policy is also for the data of volumes, as snapshots or as copies: what Kedge may change and delete of snapshots and volumes is
what has its tags (docs/volumes.md). --snapshot-copies and --snapshot-copy-role are for backups whose snapshots are copied elsewhere.`,
		Example: `  kedge aws policy --bucket acme-backups --prefix clusters/blue --kms-key arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
  kedge aws policy --bucket acme-backups --volumes copy
  aws iam create-policy --policy-name kedge --policy-document "$(kedge aws policy --bucket acme-backups)"`,
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			var known bool
			if l.Volumes, known = iam.ParseVolumes(volumes); !known {
				return usageError(fmt.Errorf("aws policy: --volumes: %q is none of none, snapshot, copy", volumes), "")
			}
			policy, err := iam.ForLocation(l)
			if err != nil {
				return usageError(fmt.Errorf("aws policy: --%w", err), "")
			}
			data, err := policy.JSON()
			if err != nil {
				return err
			}
			return a.write(data)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&l.Bucket, "bucket", "", "`name` of the bucket")
	flags.StringVar(&l.Prefix, "prefix", "", "`folder` in the bucket, as in the location")
	flags.StringVar(&l.LocationKey, "kms-key", "", "`ARN` of the KMS key that wraps the location's key (kmsKeyID)")
	flags.StringVar(&l.BucketKey, "bucket-kms-key", "", "`ARN` of the KMS key that the bucket's objects are encrypted with (SSE-KMS)")
	flags.BoolVar(&l.ReadOnly, "read-only", false, "for a location that is only restored from")
	flags.BoolVar(&l.ObjectLock, "object-lock", false, "for a location with objectLock")
	flags.BoolVar(&l.Unversioned, "no-versions", false, "for a bucket that has no versions")
	flags.StringVar(&volumes, "volumes", "none", "`what` backups take of volumes: none, snapshot, copy (which covers both)")
	flags.StringVar(&l.VolumeKey, "volume-kms-key", "", "`ARN` of the KMS key that the volumes are encrypted with")
	flags.BoolVar(&l.SnapshotCopies, "snapshot-copies", false, "snapshots are copied to other regions of the account")
	flags.StringArrayVar(&l.CopyKeys, "snapshot-copy-kms-key", nil, "`ARN` of a KMS key of such copies (repeatable)")
	flags.StringArrayVar(&l.CopyRoles, "snapshot-copy-role", nil, "`ARN` of a role of another account that snapshots are copied to (repeatable)")
	flags.StringVar(&l.Partition, "partition", "aws", "`partition` of the ARNs: aws, aws-cn, aws-us-gov")
	_ = cmd.MarkFlagRequired("bucket") // it fails only for a flag that is not there
	return cmd
}

func (a *app) awsCopyPolicyCommand() *cobra.Command {
	var keys []string
	var partition string
	cmd := &cobra.Command{
		Use:   "copy-policy",
		Short: "Print the least IAM policy for an account that copies of snapshots go to",
		Long: `Print the least IAM policy (JSON) for a role of another account that copies of snapshots go to (--snapshot-copy region=…,role=…): it makes the copies,
sees them, and deletes those that have Kedge's tag. docs/volumes.md says what the role's trust policy and the keys' policies need.`,
		Example: `  kedge aws copy-policy --kms-key arn:aws:kms:eu-west-1:111122223333:key/VOLUMES --kms-key arn:aws:kms:eu-central-1:444455556666:key/COPIES`,
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			policy, err := iam.ForCopies(partition, keys)
			if err != nil {
				return usageError(fmt.Errorf("aws copy-policy: --%w", err), "")
			}
			data, err := policy.JSON()
			if err != nil {
				return err
			}
			return a.write(data)
		},
	}
	cmd.Flags().StringArrayVar(&keys, "kms-key", nil, "`ARN` of a KMS key that the volumes, or the copies, are encrypted with (repeatable)")
	cmd.Flags().StringVar(&partition, "partition", "aws", "`partition` of the ARNs: aws, aws-cn, aws-us-gov")
	return cmd
}
