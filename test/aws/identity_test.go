package aws_test

import (
	"bytes"
	"slices"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/efs"
	efstypes "github.com/aws/aws-sdk-go-v2/service/efs/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"kedge.dev/kedge/test/aws"
)

func TestAccessPoints(t *testing.T) {
	c := aws.New(t, aws.Options{VolumePolls: 1, MaxAccessPoints: 3, PageSize: 2})
	client := efs.NewFromConfig(c.Config(c.Region()))
	fs := c.CreateFileSystem(map[string]string{"Name": "shared"})
	in := &efs.CreateAccessPointInput{
		ClientToken: sdk.String("t"), FileSystemId: &fs, PosixUser: &efstypes.PosixUser{Uid: sdk.Int64(1000), Gid: sdk.Int64(1001), SecondaryGids: []int64{7}},
		RootDirectory: &efstypes.RootDirectory{Path: sdk.String("/a/b"), CreationInfo: &efstypes.CreationInfo{OwnerUid: sdk.Int64(1), OwnerGid: sdk.Int64(2), Permissions: sdk.String("0750")}},
		Tags:          []efstypes.Tag{{Key: sdk.String("k"), Value: sdk.String("v")}},
	}
	made := must[*efs.CreateAccessPointOutput](t)(client.CreateAccessPoint(t.Context(), in))
	again := must[*efs.CreateAccessPointOutput](t)(client.CreateAccessPoint(t.Context(), in))
	if *made.AccessPointId != *again.AccessPointId || made.LifeCycleState != "creating" {
		t.Errorf("%+v, %+v", made, again)
	}
	in.PosixUser.Uid = sdk.Int64(5)
	_, err := client.CreateAccessPoint(t.Context(), in)
	wantCode(t, err, "AccessPointAlreadyExists")
	for _, token := range []string{"u", "v"} {
		must[*efs.CreateAccessPointOutput](t)(client.CreateAccessPoint(t.Context(), &efs.CreateAccessPointInput{ClientToken: &token, FileSystemId: &fs}))
	}
	_, err = client.CreateAccessPoint(t.Context(), &efs.CreateAccessPointInput{ClientToken: sdk.String("w"), FileSystemId: &fs})
	wantCode(t, err, "AccessPointLimitExceeded")
	_, err = client.CreateAccessPoint(t.Context(), &efs.CreateAccessPointInput{ClientToken: sdk.String("w"), FileSystemId: sdk.String("fs-0")})
	wantCode(t, err, "FileSystemNotFound")

	var states []efstypes.LifeCycleState
	for range 2 {
		out := must[*efs.DescribeAccessPointsOutput](t)(client.DescribeAccessPoints(t.Context(), &efs.DescribeAccessPointsInput{AccessPointId: made.AccessPointId}))
		ap := out.AccessPoints[0]
		states = append(states, ap.LifeCycleState)
		if *ap.PosixUser.Uid != 1000 || *ap.RootDirectory.Path != "/a/b" || *ap.RootDirectory.CreationInfo.Permissions != "0750" || len(ap.Tags) != 1 {
			t.Errorf("%+v", ap)
		}
	}
	if !slices.Equal(states, []efstypes.LifeCycleState{"creating", "available"}) {
		t.Errorf("states %v", states)
	}
	pages := efs.NewDescribeAccessPointsPaginator(client, &efs.DescribeAccessPointsInput{FileSystemId: &fs})
	found := 0
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found += len(out.AccessPoints)
	}
	if found != 3 || len(c.AccessPoints()) != 3 {
		t.Errorf("%d access points", found)
	}
	must[*efs.DeleteAccessPointOutput](t)(client.DeleteAccessPoint(t.Context(), &efs.DeleteAccessPointInput{AccessPointId: made.AccessPointId}))
	_, err = client.DeleteAccessPoint(t.Context(), &efs.DeleteAccessPointInput{AccessPointId: made.AccessPointId})
	wantCode(t, err, "AccessPointNotFound")

	systems := must[*efs.DescribeFileSystemsOutput](t)(client.DescribeFileSystems(t.Context(), &efs.DescribeFileSystemsInput{FileSystemId: &fs}))
	if *systems.FileSystems[0].Name != "shared" || systems.FileSystems[0].NumberOfMountTargets != 3 {
		t.Errorf("%+v", systems.FileSystems[0])
	}
	targets := must[*efs.DescribeMountTargetsOutput](t)(client.DescribeMountTargets(t.Context(), &efs.DescribeMountTargetsInput{FileSystemId: &fs}))
	if len(targets.MountTargets) != 3 || *targets.MountTargets[1].AvailabilityZoneName != c.Region()+"b" {
		t.Errorf("%+v", targets.MountTargets)
	}
}

func TestIdentity(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := sts.NewFromConfig(c.Config(c.Region()))
	me := must[*sts.GetCallerIdentityOutput](t)(client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}))
	if *me.Account != aws.HomeAccount {
		t.Errorf("%+v", me)
	}
	role := c.CreateRole("backup", "secret")
	in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: sdk.String("kedge")}
	_, err := client.AssumeRole(t.Context(), in)
	wantCode(t, err, "AccessDenied")
	in.ExternalId = sdk.String("secret")
	out := must[*sts.AssumeRoleOutput](t)(client.AssumeRole(t.Context(), in))
	if out.Credentials.Expiration == nil || *out.Credentials.AccessKeyId == "" || *out.AssumedRoleUser.Arn == "" {
		t.Errorf("%+v", out)
	}
}

func TestKeys(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := kms.NewFromConfig(c.Config(c.Region()))
	key, other := c.CreateKey(), c.CreateKey()
	info := must[*kms.DescribeKeyOutput](t)(client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &key}))
	if *info.KeyMetadata.Arn != key || !info.KeyMetadata.Enabled {
		t.Errorf("%+v", info.KeyMetadata)
	}
	context := map[string]string{"purpose": "test"}
	sealed := must[*kms.EncryptOutput](t)(client.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &key, Plaintext: []byte("secret"), EncryptionContext: context}))
	opened := must[*kms.DecryptOutput](t)(client.Decrypt(t.Context(), &kms.DecryptInput{KeyId: &key, CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context}))
	if !bytes.Equal(opened.Plaintext, []byte("secret")) || bytes.Contains(sealed.CiphertextBlob, []byte("secret")) {
		t.Errorf("%q", opened.Plaintext)
	}
	_, err := client.Decrypt(t.Context(), &kms.DecryptInput{KeyId: &key, CiphertextBlob: sealed.CiphertextBlob})
	wantCode(t, err, "InvalidCiphertextException")
	_, err = client.Decrypt(t.Context(), &kms.DecryptInput{KeyId: &other, CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context})
	wantCode(t, err, "IncorrectKeyException")
	_, err = client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: sdk.String(key + "0")})
	wantCode(t, err, "NotFoundException")
}
