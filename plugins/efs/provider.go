// Package efs is the volume provider of Amazon Elastic File System: the file systems, and the access points by which folders of them are mounted.
// Their files are copied and restored by movers, not by this package.
//
// It calls elasticfilesystem:DescribeAccessPoints, and to restore CreateAccessPoint, which needs TagResource.
package efs

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsefs "github.com/aws/aws-sdk-go-v2/service/efs"
	"github.com/aws/aws-sdk-go-v2/service/efs/types"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/internal/clock"
	"kedge.dev/kedge/plugins"
)

// Name is what records and reports call the provider.
const Name = "efs"

// TokenTag holds the token of the request that made an access point. The policy that Kedge prints allows no access point without it.
const TokenTag = "kedge.dev/token" //nolint:gosec // the name of a tag, no secret

// The attributes of a plugins.Volume: what an access point needs to be made again ("CreateAccessPoint" of the EFS API Reference). Ids and modes
// are written as the API does: 1000, "1000,1001", "0755".
const (
	attributePath        = "path"
	attributeUser        = "posixUid"
	attributeGroup       = "posixGid"
	attributeGroups      = "posixSecondaryGids"
	attributeOwner       = "ownerUid"
	attributeOwnerGroup  = "ownerGid"
	attributePermissions = "permissions"
)

// pageSize is how many access points one answer has (1 to 1000, "DescribeAccessPoints" of the EFS API Reference).
const pageSize = 100

// The pauses between looks at an access point that is being made, which takes seconds.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	mostLooks  = 30 // two minutes
)

// Options are what the SDK's configuration does not say. The zero value is good.
type Options struct {
	// MaxAttempts is how often one request is sent at the most. Zero means 10.
	MaxAttempts int
	// Sleep waits for d or until ctx ends; nil is a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is the clock of messages; nil means time.Now.
	Now func() time.Time
}

// Provider is EFS in one region with one identity. It implements plugins.FolderProvider.
type Provider struct {
	client *awsefs.Client
	region string
	opts   Options
}

var _ plugins.FolderProvider = (*Provider)(nil)

// New makes the provider of the configuration's region; the network is not asked. Endpoints other than Amazon's come with the configuration
// (AWS_ENDPOINT_URL_EFS). The error wraps plugins.ErrConfig.
func New(cfg aws.Config, opts Options) (*Provider, error) {
	if opts.Sleep == nil {
		opts.Sleep = clock.Sleep
	}
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the default of a field
	}
	p := &Provider{region: cfg.Region, opts: opts}
	if cfg.Region == "" {
		return nil, &plugins.VolumeError{
			Op: "open", Provider: Name, Err: configured("no region is set"), Remedy: "set the region in AWS_REGION or in the profile",
		}
	}
	retryer := awsconf.NewRetryer(opts.MaxAttempts, "InternalServerError", "ServiceUnavailable", "ThrottlingException")
	p.client = awsefs.NewFromConfig(cfg, func(o *awsefs.Options) { o.Retryer = retryer })
	return p, nil
}

// Name is "efs".
func (p *Provider) Name() string { return Name }

// Handle gives the driver's handle of an EFS volume.
func (p *Provider) Handle(pv *corev1.PersistentVolume) (handle string, ok bool) { return HandleOf(pv) }

// FileSystem is the id of a handle's file system.
func (p *Provider) FileSystem(handle string) string {
	h, _ := ParseHandle(handle) // none of what is no handle
	return h.FileSystem
}

// Rebind makes pv one of another handle, in place.
func (p *Provider) Rebind(pv *corev1.PersistentVolume, v plugins.Volume) error {
	if _, ok := HandleOf(pv); !ok {
		return &plugins.VolumeError{Op: "rebind", Provider: Name, Object: pv.Name, Err: configured("it is no volume of driver %s", Driver)}
	}
	if _, err := ParseHandle(v.Handle); err != nil {
		return &plugins.VolumeError{Op: "rebind", Provider: Name, Object: pv.Name, Err: configured("%w", err)}
	}
	pv.Spec.CSI.VolumeHandle = v.Handle
	return nil
}

// Describe tells of each handle's access point what it needs to be made again. Handles whose file system or access point does not exist are left out.
func (p *Provider) Describe(ctx context.Context, handles []string) (map[string]plugins.Volume, error) {
	parsed := map[string]Handle{}
	var systems []string
	for _, text := range handles {
		h, err := ParseHandle(text)
		if err != nil {
			return nil, p.fail(ctx, "describe", text, configured("%w", err))
		}
		parsed[text] = h
		systems = append(systems, h.FileSystem)
	}
	slices.Sort(systems)
	points := map[string]map[string]types.AccessPointDescription{} // by file system
	for _, id := range slices.Compact(systems) {
		found, err := p.accessPoints(ctx, id)
		switch {
		case gone(err):
			continue
		case err != nil:
			return nil, p.fail(ctx, "describe", id, err)
		}
		points[id] = found
	}
	out := map[string]plugins.Volume{}
	for text, h := range parsed {
		of, ok := points[h.FileSystem]
		if !ok {
			continue
		}
		v := plugins.Volume{Handle: text, Region: p.region}
		if h.AccessPoint != "" {
			point, ok := of[h.AccessPoint]
			if !ok {
				continue
			}
			v.Attributes, v.Tags = attributes(&point), tagMap(point.Tags)
		}
		out[text] = v
	}
	return out, nil
}

// Within gives those of the other handles whose folder is that of handle or lies below it.
func (p *Provider) Within(ctx context.Context, handle string, others []string) ([]string, error) {
	h, err := ParseHandle(handle)
	if err != nil {
		return nil, p.fail(ctx, "compare", handle, configured("%w", err))
	}
	points, err := p.accessPoints(ctx, h.FileSystem)
	if err != nil && !gone(err) {
		return nil, p.fail(ctx, "compare", handle, err)
	}
	folder := func(h Handle) string {
		point := points[h.AccessPoint] // one that is gone reaches nothing: its folder is taken for its own, below none
		if h.AccessPoint != "" && point.AccessPointId == nil {
			return "/" + h.AccessPoint + path.Clean("/"+h.Folder)
		}
		root := "/"
		if point.RootDirectory != nil {
			root = aws.ToString(point.RootDirectory.Path)
		}
		return path.Clean("/" + root + "/" + h.Folder)
	}
	ours := strings.TrimSuffix(folder(h), "/") + "/"
	var within []string
	for _, text := range others {
		if other, err := ParseHandle(text); err == nil && other.FileSystem == h.FileSystem && strings.HasPrefix(folder(other)+"/", ours) {
			within = append(within, text)
		}
	}
	return within, nil
}

// accessPoints lists those of a file system, by id.
func (p *Provider) accessPoints(ctx context.Context, fileSystem string) (map[string]types.AccessPointDescription, error) {
	out := map[string]types.AccessPointDescription{}
	pages := awsefs.NewDescribeAccessPointsPaginator(p.client, &awsefs.DescribeAccessPointsInput{FileSystemId: &fileSystem, MaxResults: aws.Int32(pageSize)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, point := range page.AccessPoints {
			if usable(point.LifeCycleState) {
				out[aws.ToString(point.AccessPointId)] = point
			}
		}
	}
	return out, nil
}

// usable says whether an access point is there or will be.
func usable(s types.LifeCycleState) bool {
	return s == types.LifeCycleStateAvailable || s == types.LifeCycleStateCreating || s == types.LifeCycleStateUpdating
}

func attributes(point *types.AccessPointDescription) map[string]string {
	out := map[string]string{}
	number := func(key string, n *int64) {
		if n != nil {
			out[key] = strconv.FormatInt(*n, 10)
		}
	}
	if root := point.RootDirectory; root != nil {
		out[attributePath] = aws.ToString(root.Path)
		if made := root.CreationInfo; made != nil {
			number(attributeOwner, made.OwnerUid)
			number(attributeOwnerGroup, made.OwnerGid)
			out[attributePermissions] = aws.ToString(made.Permissions)
		}
	}
	if user := point.PosixUser; user != nil {
		number(attributeUser, user.Uid)
		number(attributeGroup, user.Gid)
		var groups []string
		for _, g := range user.SecondaryGids {
			groups = append(groups, strconv.FormatInt(g, 10))
		}
		if len(groups) > 0 {
			out[attributeGroups] = strings.Join(groups, ",")
		}
	}
	return out
}

func tagMap(tags []types.Tag) map[string]string {
	if len(tags) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, t := range tags {
		out[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}

func tagList(tags map[string]string) []types.Tag {
	var out []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return out
}

// gone says whether a service's refusal means that the thing does not exist.
func gone(err error) bool {
	_, fs := errors.AsType[*types.FileSystemNotFound](err)
	_, ap := errors.AsType[*types.AccessPointNotFound](err)
	return fs || ap
}
