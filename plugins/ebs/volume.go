package ebs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// CreateVolume makes a volume (CreateVolume, with a client token) and waits until it is available. Attributes are type (gp2 if none is named, as EC2
// has it), iops and throughput in MiB/s where the type takes them, encrypted, kmsKeyId, multiAttachEnabled, and volumeInitializationRate in
// MiB/s for volumes of snapshots; unknown ones are refused.
func (p *Provider) CreateVolume(ctx context.Context, req plugins.VolumeRequest) (plugins.Volume, error) {
	object := "in " + req.Zone
	if req.SnapshotID != "" {
		object = "of " + req.SnapshotID + " " + object
	}
	req.Attributes = p.here(req.Attributes)
	in, err := createInput(req)
	if err != nil {
		return plugins.Volume{}, p.fail(ctx, "create volume", object, err)
	}
	out, err := p.ec2.CreateVolume(ctx, in)
	if err != nil {
		return plugins.Volume{}, p.fail(ctx, "create volume", object, err)
	}
	v, err := p.available(ctx, aws.ToString(out.VolumeId))
	return v, p.fail(ctx, "wait for volume", aws.ToString(out.VolumeId), err)
}

// here gives the attributes as this region can have them: a KMS key serves one region ("Multi-Region keys" of the KMS Developer Guide: each replica has
// an ARN of its own), so where another region's is named, the default key of this one encrypts.
func (p *Provider) here(attributes map[string]string) map[string]string {
	key, err := arn.Parse(attributes[attrKey])
	if err != nil || key.Region == p.region {
		return attributes
	}
	out := maps.Clone(attributes)
	delete(out, attrKey)
	out[attrEncrypted] = "true"
	return out
}

func createInput(req plugins.VolumeRequest) (*awsec2.CreateVolumeInput, error) {
	tags, err := withToken(req.Token, req.Tags)
	if err != nil {
		return nil, err
	}
	in := &awsec2.CreateVolumeInput{ClientToken: clientToken(req.Token), AvailabilityZone: &req.Zone, TagSpecifications: tagSpec(types.ResourceTypeVolume, tags)}
	switch size := gibibytes(req.SizeBytes); {
	case req.Zone == "":
		return nil, configured(zoneRemedy, "no zone is set")
	case req.SizeBytes < 0 || size > math.MaxInt32:
		return nil, configured("", "a volume cannot have %d bytes", req.SizeBytes)
	case size > 0:
		in.Size = aws.Int32(int32(size))
	case req.SnapshotID == "":
		return nil, configured("", "an empty volume needs a size")
	}
	if req.SnapshotID != "" {
		in.SnapshotId = &req.SnapshotID
	}
	return in, applyAttributes(in, req.Attributes)
}

// applyAttributes sets what CreateVolume takes; what the volume's type does not take is left out.
func applyAttributes(in *awsec2.CreateVolumeInput, attributes map[string]string) error {
	kind := attributes[attrType]
	for name, value := range attributes {
		var err error
		switch name {
		case attrType:
			in.VolumeType = types.VolumeType(value)
		case attrIOPS:
			if takesIOPS(kind) {
				in.Iops, err = number(value)
			}
		case attrThroughput:
			if kind == "gp3" {
				in.Throughput, err = number(value)
			}
		case attrRate:
			if in.SnapshotId != nil {
				in.VolumeInitializationRate, err = number(value)
			}
		case attrKey:
			in.KmsKeyId, in.Encrypted = aws.String(value), aws.Bool(true) // the one needs the other
		case attrEncrypted:
			err = setFlag(&in.Encrypted, value)
		case attrMulti:
			err = setFlag(&in.MultiAttachEnabled, value)
		default:
			err = errors.New("it is not known")
		}
		if err != nil {
			return configured("", "attribute %s=%q: %w", name, value, err)
		}
	}
	return nil
}

func number(text string) (*int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return nil, errors.New("it is no positive number")
	}
	return aws.Int32(int32(n)), nil
}

// setFlag asks for what is true and is silent about what is not: encryption by default stays in force, and Encrypted=false is refused for
// encrypted snapshots.
func setFlag(field **bool, text string) error {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return errors.New("it is neither true nor false")
	}
	if on {
		*field = aws.Bool(true)
	}
	return nil
}

// available waits until a volume can be attached.
func (p *Provider) available(ctx context.Context, id string) (plugins.Volume, error) {
	unseen := 0
	for look := 0; ; look++ {
		volumes, err := p.volumes(ctx, []string{id})
		if err != nil {
			return plugins.Volume{}, err
		}
		v, ok := volumes[id]
		switch {
		case !ok && unseen == settleLooks:
			return plugins.Volume{}, awsconf.WithRemedy(
				fmt.Errorf("%w: volume %s was made, but is not there (any more)", plugins.ErrVolumeGone, id),
				"use another token if it was deleted; else "+keyRemedy,
			)
		case !ok:
			unseen++
		case v.State == types.VolumeStateAvailable || v.State == types.VolumeStateInUse:
			return p.volume(v), nil
		case v.State == types.VolumeStateCreating:
		default:
			return plugins.Volume{}, configured(keyRemedy, "volume %s is in state %s", id, v.State)
		}
		if err := p.pause(ctx, look); err != nil {
			return plugins.Volume{}, err
		}
	}
}

// DeleteVolume removes a volume that CreateVolume made (DeleteVolume); one without the tag of a token was made by somebody else, and is refused.
func (p *Provider) DeleteVolume(ctx context.Context, handle string) error {
	volumes, err := p.volumes(ctx, []string{handle})
	if err != nil {
		return p.fail(ctx, "delete volume", handle, err)
	}
	if v, ok := volumes[handle]; ok && tagMap(v.Tags)[TokenTag] == "" {
		return p.fail(ctx, "delete volume", handle, configured("delete it by hand, if it is to go", "it has no tag %s: Kedge did not make it", TokenTag))
	} else if !ok {
		return nil
	}
	_, err = p.ec2.DeleteVolume(ctx, &awsec2.DeleteVolumeInput{VolumeId: &handle})
	if code(err) == volumeGone {
		return nil
	}
	return p.fail(ctx, "delete volume", handle, err)
}
