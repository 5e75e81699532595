package efs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsefs "github.com/aws/aws-sdk-go-v2/service/efs"
	"github.com/aws/aws-sdk-go-v2/service/efs/types"

	"kedge.dev/kedge/plugins"
)

// mapRemedy is of a file system that is not there.
const mapRemedy = "restore into another one: spec.transforms.fileSystems, --file-system-mappings OLD:NEW"

// Ensure gives a way to the folder that req.Source led to: the source itself where it is there still; else by a new access point like the one that is
// gone; or the same folder of another file system. The same token makes one access point.
func (p *Provider) Ensure(ctx context.Context, req plugins.FolderRequest) (plugins.Volume, error) {
	v, err := p.ensure(ctx, req)
	if err != nil {
		return plugins.Volume{}, p.fail(ctx, "find or make the access point of", req.Source.Handle, err)
	}
	return v, nil
}

func (p *Provider) ensure(ctx context.Context, req plugins.FolderRequest) (plugins.Volume, error) {
	h, err := ParseHandle(req.Source.Handle)
	if err != nil {
		return plugins.Volume{}, configured("%w", err)
	}
	here := req.Source
	here.Region = p.region
	wanted := h
	if req.FileSystem != "" {
		wanted.FileSystem = req.FileSystem
	}
	points, err := p.accessPoints(ctx, wanted.FileSystem)
	switch {
	case gone(err):
		return plugins.Volume{}, missing(mapRemedy, "file system %s is not in this account and region (%s)", wanted.FileSystem, p.region)
	case err != nil:
		return plugins.Volume{}, err
	}
	if h.AccessPoint == "" {
		here.Handle = wanted.String()
		return here, nil
	}
	if _, ok := points[h.AccessPoint]; ok {
		return here, nil
	}
	if id := like(points, req.Source.Attributes); id != "" {
		wanted.AccessPoint = id
		here.Handle = wanted.String()
		return here, nil
	}
	if req.Source.Attributes[attributePath] == "" {
		return plugins.Volume{}, missing("make one by hand, and give its id to the volume by a resource modifier",
			"access point %s is gone, and the backup does not say what it was like", h.AccessPoint)
	}
	if wanted.AccessPoint, err = p.create(ctx, wanted.FileSystem, req); err != nil {
		return plugins.Volume{}, err
	}
	here.Handle = wanted.String()
	return here, nil
}

// like finds an access point that an earlier restore made, and that is as the one that is gone: the first by its id.
func like(points map[string]types.AccessPointDescription, wanted map[string]string) string {
	for _, id := range slices.Sorted(maps.Keys(points)) {
		point := points[id]
		if point.LifeCycleState == types.LifeCycleStateAvailable && tagMap(point.Tags)[TokenTag] != "" && maps.Equal(attributes(&point), wanted) {
			return id
		}
	}
	return ""
}

// create makes an access point like the source's on a file system, or finds the one that the token has made, and waits until it can be used.
func (p *Provider) create(ctx context.Context, fileSystem string, req plugins.FolderRequest) (string, error) {
	in, err := input(fileSystem, req)
	if err != nil {
		return "", err
	}
	id, err := p.ask(ctx, in)
	if err != nil {
		return "", err
	}
	pause := firstPause
	for range mostLooks {
		out, err := p.client.DescribeAccessPoints(ctx, &awsefs.DescribeAccessPointsInput{AccessPointId: &id})
		if err != nil && !gone(err) { // it may not be shown yet
			return "", err
		}
		if err == nil && len(out.AccessPoints) == 1 {
			point := &out.AccessPoints[0]
			switch {
			case aws.ToString(point.FileSystemId) != fileSystem || attributes(point)[attributePath] != *in.RootDirectory.Path:
				return "", configured("the token of this request has made access point %s of %s", id, aws.ToString(point.FileSystemId))
			case point.LifeCycleState == types.LifeCycleStateAvailable:
				return id, nil
			case point.LifeCycleState == types.LifeCycleStateError || point.LifeCycleState == types.LifeCycleStateDeleting || point.LifeCycleState == types.LifeCycleStateDeleted:
				return "", missing("restore again, under another name", "the new access point %s is %s", id, point.LifeCycleState)
			}
		}
		if err := p.opts.Sleep(ctx, pause); err != nil {
			return "", err
		}
		pause = min(2*pause, lastPause)
	}
	return "", fmt.Errorf("the new access point %s cannot be used after two minutes", id)
}

// ask sends the request. A token that was used answers with the access point that it made.
func (p *Provider) ask(ctx context.Context, in *awsefs.CreateAccessPointInput) (string, error) {
	out, err := p.client.CreateAccessPoint(ctx, in)
	if already, ok := errors.AsType[*types.AccessPointAlreadyExists](err); ok && aws.ToString(already.AccessPointId) != "" {
		return *already.AccessPointId, nil
	}
	if err != nil {
		return "", err
	}
	return aws.ToString(out.AccessPointId), nil
}

// input makes the request of the attributes, which come from a backup and are checked.
func input(fileSystem string, req plugins.FolderRequest) (*awsefs.CreateAccessPointInput, error) {
	a := req.Source.Attributes
	sum := sha256.Sum256([]byte(req.Token + "/" + fileSystem))
	in := &awsefs.CreateAccessPointInput{
		ClientToken: aws.String(hex.EncodeToString(sum[:])), FileSystemId: &fileSystem, RootDirectory: &types.RootDirectory{Path: aws.String(a[attributePath])},
	}
	r := reader{attributes: a}
	if a[attributeUser] != "" || a[attributeGroup] != "" {
		in.PosixUser = &types.PosixUser{Uid: r.number(attributeUser), Gid: r.number(attributeGroup), SecondaryGids: r.numbers(attributeGroups)}
	}
	if a[attributeOwner] != "" || a[attributePermissions] != "" {
		in.RootDirectory.CreationInfo = &types.CreationInfo{
			OwnerUid: r.number(attributeOwner), OwnerGid: r.number(attributeOwnerGroup), Permissions: aws.String(a[attributePermissions]),
		}
	}
	tags := map[string]string{}
	for k, v := range req.Source.Tags {
		if !strings.HasPrefix(k, "aws:") && !strings.HasPrefix(k, "kedge.dev/") {
			tags[k] = v
		}
	}
	maps.Copy(tags, req.Tags)
	tags[TokenTag] = *in.ClientToken
	in.Tags = tagList(tags)
	return in, r.err
}

// reader reads ids that were written as text.
type reader struct {
	attributes map[string]string
	err        error
}

func (r *reader) parse(key, text string) int64 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil && r.err == nil {
		r.err = configured("the backup says of the access point that its %s is %q", key, text)
	}
	return int64(n)
}

func (r *reader) number(key string) *int64 {
	n := r.parse(key, r.attributes[key])
	return &n
}

func (r *reader) numbers(key string) []int64 {
	var out []int64
	if list := r.attributes[key]; list != "" {
		for text := range strings.SplitSeq(list, ",") {
			out = append(out, r.parse(key, text))
		}
	}
	return out
}
