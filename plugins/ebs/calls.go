package ebs

import (
	"context"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
)

// call is one operation of EC2.
type call[In, Out any] func(context.Context, *In, ...func(*awsec2.Options)) (*Out, error)

// calls are the operations of EC2 that the provider uses, held as functions and not as the client that they are methods of. Where a
// program looks methods up by name (text/template does, so the whole of Kedge), the linker keeps every method of each type that can be
// reached from an interface; EC2's client has more than 700, which with all that they need were a quarter of the binary and of the
// memory of a process that has just started.
type calls struct {
	CopySnapshot      call[awsec2.CopySnapshotInput, awsec2.CopySnapshotOutput]
	CreateSnapshot    call[awsec2.CreateSnapshotInput, awsec2.CreateSnapshotOutput]
	CreateSnapshots   call[awsec2.CreateSnapshotsInput, awsec2.CreateSnapshotsOutput]
	CreateTags        call[awsec2.CreateTagsInput, awsec2.CreateTagsOutput]
	CreateVolume      call[awsec2.CreateVolumeInput, awsec2.CreateVolumeOutput]
	DeleteSnapshot    call[awsec2.DeleteSnapshotInput, awsec2.DeleteSnapshotOutput]
	DeleteVolume      call[awsec2.DeleteVolumeInput, awsec2.DeleteVolumeOutput]
	DescribeInstances call[awsec2.DescribeInstancesInput, awsec2.DescribeInstancesOutput]
	DescribeSnapshots describeSnapshots
	DescribeVolumes   describeVolumes

	ModifySnapshotAttribute call[awsec2.ModifySnapshotAttributeInput, awsec2.ModifySnapshotAttributeOutput]
}

func callsOf(client *awsec2.Client) calls {
	return calls{
		CopySnapshot: client.CopySnapshot, ModifySnapshotAttribute: client.ModifySnapshotAttribute,
		CreateSnapshot: client.CreateSnapshot, CreateSnapshots: client.CreateSnapshots, CreateTags: client.CreateTags,
		CreateVolume: client.CreateVolume, DeleteSnapshot: client.DeleteSnapshot, DeleteVolume: client.DeleteVolume,
		DescribeInstances: client.DescribeInstances, DescribeSnapshots: client.DescribeSnapshots, DescribeVolumes: client.DescribeVolumes,
	}
}

// describeVolumes is the call of that name in the form that the SDK's pages are read from.
type describeVolumes call[awsec2.DescribeVolumesInput, awsec2.DescribeVolumesOutput]

func (f describeVolumes) DescribeVolumes(ctx context.Context, in *awsec2.DescribeVolumesInput, opts ...func(*awsec2.Options)) (*awsec2.DescribeVolumesOutput, error) {
	return f(ctx, in, opts...)
}

// describeSnapshots is the call of that name in the form that the SDK's pages are read from.
type describeSnapshots call[awsec2.DescribeSnapshotsInput, awsec2.DescribeSnapshotsOutput]

func (f describeSnapshots) DescribeSnapshots(ctx context.Context, in *awsec2.DescribeSnapshotsInput, opts ...func(*awsec2.Options)) (*awsec2.DescribeSnapshotsOutput, error) {
	return f(ctx, in, opts...)
}
