package ebs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"kedge.dev/kedge/plugins"
)

const (
	// mostValues is how many values a filter takes ("Filter" of the EC2 API Reference).
	mostValues = 200
	pageSize   = 500
)

// The names of Volume.Attributes.
const (
	attrType       = "type"
	attrIOPS       = "iops"
	attrThroughput = "throughput" // MiB/s
	attrKey        = plugins.AttributeKey
	attrEncrypted  = plugins.AttributeEncrypted
	attrMulti      = "multiAttachEnabled"
	attrRate       = "volumeInitializationRate" // MiB/s; only asked for, never described
)

// Describe tells what EC2 says of volumes (DescribeVolumes).
func (p *Provider) Describe(ctx context.Context, handles []string) (map[string]plugins.Volume, error) {
	found := map[string]plugins.Volume{}
	volumes, err := p.volumes(ctx, handles)
	for id, v := range volumes {
		found[id] = p.volume(v)
	}
	return found, p.fail(ctx, "describe volumes", strings.Join(handles, ", "), err)
}

// volumes asks by a filter, which leaves out what is not there; by ids, one that is missing would fail the call.
func (p *Provider) volumes(ctx context.Context, ids []string) (map[string]types.Volume, error) {
	found := map[string]types.Volume{}
	for chunk := range slices.Chunk(ids, mostValues) {
		volumes, err := p.filterVolumes(ctx, filter("volume-id", chunk...))
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			found[aws.ToString(v.VolumeId)] = v
		}
	}
	return found, nil
}

func (p *Provider) filterVolumes(ctx context.Context, filters ...types.Filter) (found []types.Volume, err error) {
	pages := awsec2.NewDescribeVolumesPaginator(p.ec2.DescribeVolumes, &awsec2.DescribeVolumesInput{
		Filters: filters, MaxResults: aws.Int32(pageSize),
		IncludeManagedResources: aws.Bool(true), // EKS Auto Mode's may be hidden
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Volumes...)
	}
	return found, nil
}

// FindVolumes gives the volumes of the account that have all of the tags (DescribeVolumes), in the order of their ids.
func (p *Provider) FindVolumes(ctx context.Context, tags map[string]string) ([]plugins.Volume, error) {
	filters, err := tagFilters(tags)
	if err != nil {
		return nil, p.fail(ctx, "find volumes", "", err)
	}
	described, err := p.filterVolumes(ctx, filters...)
	if err != nil {
		return nil, p.fail(ctx, "find volumes", fmt.Sprint(tags), err)
	}
	var found []plugins.Volume
	for _, v := range described {
		if out := p.volume(v); hasAll(out.Tags, tags) {
			found = append(found, out)
		}
	}
	slices.SortFunc(found, func(a, b plugins.Volume) int { return strings.Compare(a.Handle, b.Handle) })
	return found, nil
}

// tagFilters choose what has all of the tags. What they match is not to be trusted with somebody's data: who asks looks again.
func tagFilters(tags map[string]string) (filters []types.Filter, err error) {
	if len(tags) == 0 {
		return nil, configured("name at least one tag", "no tags are given")
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		filters = append(filters, filter("tag:"+name, literal(tags[name])))
	}
	return filters, nil
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: &name, Values: values}
}

// volume is a volume in the contract's words.
func (p *Provider) volume(v types.Volume) plugins.Volume {
	out := plugins.Volume{
		Handle: aws.ToString(v.VolumeId), SizeBytes: int64(aws.ToInt32(v.Size)) * gib, Region: p.region, Zone: aws.ToString(v.AvailabilityZone),
		Created:    aws.ToTime(v.CreateTime),
		Attributes: map[string]string{attrType: string(v.VolumeType)}, Tags: tagMap(v.Tags),
	}
	if len(v.Attachments) == 1 {
		out.AttachedTo = aws.ToString(v.Attachments[0].InstanceId)
	}
	// What a type has by its size is described too, but a new volume cannot be asked to have it.
	if v.Iops != nil && takesIOPS(string(v.VolumeType)) {
		out.Attributes[attrIOPS] = strconv.Itoa(int(*v.Iops))
	}
	if v.Throughput != nil && v.VolumeType == types.VolumeTypeGp3 {
		out.Attributes[attrThroughput] = strconv.Itoa(int(*v.Throughput))
	}
	if aws.ToBool(v.Encrypted) {
		out.Attributes[attrEncrypted] = "true"
	}
	if v.KmsKeyId != nil {
		out.Attributes[attrKey] = *v.KmsKeyId
	}
	if aws.ToBool(v.MultiAttachEnabled) {
		out.Attributes[attrMulti] = "true"
	}
	return out
}

func takesIOPS(kind string) bool { return kind == "gp3" || kind == "io1" || kind == "io2" }

func tagMap(tags []types.Tag) map[string]string {
	found := map[string]string{}
	for _, tag := range tags {
		found[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return found
}

// tagList is in the order of the keys, so that equal requests are equal in every byte.
func tagList(tags map[string]string) []types.Tag {
	list := make([]types.Tag, 0, len(tags))
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(name), Value: aws.String(tags[name])})
	}
	return list
}

func tagSpec(kind types.ResourceType, tags map[string]string) []types.TagSpecification {
	return []types.TagSpecification{{ResourceType: kind, Tags: tagList(tags)}}
}

// withToken checks tags against the rules of EC2 ("Tag restrictions" of the EC2 User Guide) and adds the one of the token.
func withToken(token string, sets ...map[string]string) (map[string]string, error) {
	if token == "" || len(token) > 255 {
		return nil, configured("", "a token has 1 to 255 characters, %q has %d", token, len(token))
	}
	all := map[string]string{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	for name, value := range all {
		switch {
		case name == "" || len([]rune(name)) > 127 || strings.HasPrefix(name, "aws:") || name == TokenTag || name == VolumesTag:
			return nil, configured("", "a tag cannot be named %q", name)
		case len([]rune(value)) > 255:
			return nil, configured("", "the value of tag %q is longer than 255 characters", name)
		}
	}
	const most = 50 - 2 // ours
	if len(all) > most {
		return nil, configured("use fewer tags", "%d tags are more than the %d that there is room for", len(all), most)
	}
	all[TokenTag] = token
	return all, nil
}

// FindSnapshots gives the snapshots of the account that have all of the tags (DescribeSnapshots), in the order of their ids.
func (p *Provider) FindSnapshots(ctx context.Context, tags map[string]string) ([]plugins.Snapshot, error) {
	filters, err := tagFilters(tags)
	if err != nil {
		return nil, p.fail(ctx, "find snapshots", "", err)
	}
	described, err := p.snapshots(ctx, filters...)
	if err != nil {
		return nil, p.fail(ctx, "find snapshots", fmt.Sprint(tags), err)
	}
	var found []plugins.Snapshot
	for _, s := range described {
		if out := snapshot(s); hasAll(out.Tags, tags) {
			found = append(found, out)
		}
	}
	slices.SortFunc(found, func(a, b plugins.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

func hasAll(have, want map[string]string) bool {
	for name, value := range want {
		if got, ok := have[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// literal keeps a filter from reading a value as a pattern ("List and filter your resources": wildcards).
func literal(value string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value)
}

// DescribeSnapshots tells the state of snapshots by id (DescribeSnapshots).
func (p *Provider) DescribeSnapshots(ctx context.Context, ids []string) (map[string]plugins.Snapshot, error) {
	found := map[string]plugins.Snapshot{}
	for chunk := range slices.Chunk(ids, mostValues) {
		described, err := p.snapshots(ctx, filter("snapshot-id", chunk...))
		if err != nil {
			return nil, p.fail(ctx, "describe snapshots", strings.Join(ids, ", "), err)
		}
		for _, s := range described {
			found[aws.ToString(s.SnapshotId)] = snapshot(s)
		}
	}
	return found, nil
}

// snapshots asks by filters. Snapshots that other accounts share are among those with an id, but not with a tag: tags are each account's own.
func (p *Provider) snapshots(ctx context.Context, filters ...types.Filter) ([]types.Snapshot, error) {
	in := &awsec2.DescribeSnapshotsInput{Filters: filters, MaxResults: aws.Int32(pageSize)}
	if !strings.HasPrefix(*filters[0].Name, "snapshot-id") {
		in.OwnerIds = []string{"self"}
	}
	var found []types.Snapshot
	pages := awsec2.NewDescribeSnapshotsPaginator(p.ec2.DescribeSnapshots, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Snapshots...)
	}
	return found, nil
}

// snapshot is a snapshot in the contract's words.
func snapshot(s types.Snapshot) plugins.Snapshot {
	return plugins.Snapshot{
		ID: aws.ToString(s.SnapshotId), Handle: aws.ToString(s.VolumeId), SizeBytes: int64(aws.ToInt32(s.VolumeSize)) * gib,
		State: state(s.State), Progress: progress(s.Progress), Message: aws.ToString(s.StateMessage), Tags: tagMap(s.Tags),
		Started: aws.ToTime(s.StartTime), Account: aws.ToString(s.OwnerId), KMSKeyID: aws.ToString(s.KmsKeyId),
	}
}

func state(s types.SnapshotState) plugins.SnapshotState {
	switch s {
	case types.SnapshotStateCompleted:
		return plugins.SnapshotCompleted
	case types.SnapshotStatePending:
		return plugins.SnapshotPending
	case types.SnapshotStateError, types.SnapshotStateRecoverable, types.SnapshotStateRecovering: // the last two are in the recycle bin
	}
	return plugins.SnapshotFailed
}

// progress reads "80%".
func progress(text *string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(aws.ToString(text), "%"))
	if err != nil || n < 0 || n > 100 {
		return -1
	}
	return n
}
