package ebs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"kedge.dev/kedge/plugins"
)

var errChanging = errors.New("the volumes of the instance changed again and again")

// copiedFrom is what snapshots usually name as their volume that CopySnapshot or StartSnapshot made; what they name means nothing (CopySnapshot of the
// EC2 API Reference).
const copiedFrom = "vol-ffffffff"

// rounds is how often what is missing is asked for: again only where volumes were attached or detached meanwhile, or replies were lost.
const rounds = 4

// request is a SnapshotRequest under way.
type request struct {
	plugins.SnapshotRequest

	tags    map[string]string // of every snapshot
	volumes string            // the hash of the handles
	taken   map[string]taken  // by handle

	refused error // why CreateSnapshots was not performed, if that is all that is known
	unsure  bool  // a call may have been performed though its answer was lost
}

// taken is a snapshot of the request's token.
type taken struct {
	plugins.Snapshot

	started time.Time
}

// Snapshot takes one snapshot of each volume: of the attached ones of an instance together (CreateSnapshots), of others one by one
// (CreateSnapshot). Neither has a client token, so the token is a tag that goes with the call, and is looked for before anything is asked and
// whenever no answer came.
func (p *Provider) Snapshot(ctx context.Context, req plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	object := strings.Join(req.Handles, ", ")
	r, err := newRequest(req)
	if err != nil {
		return nil, p.fail(ctx, "snapshot", object, err)
	}
	again, release, err := p.tokens.take(ctx, req.Token)
	if err != nil {
		return nil, p.fail(ctx, "snapshot", object, err)
	}
	defer release()
	r.Retry = again || req.Retry
	if err = p.find(ctx, r); err == nil && r.Retry {
		err = p.settle(ctx, r, req.Handles)
	}
	if err != nil {
		return nil, p.fail(ctx, "find the snapshots of token "+req.Token+" of", object, err)
	}
	for round := 0; len(r.missing()) > 0; round++ {
		if round == rounds {
			return nil, p.fail(ctx, "snapshot", strings.Join(r.missing(), ", "), cmp.Or(r.refused, errChanging))
		}
		if err := p.ask(ctx, r); err != nil {
			if len(r.taken) == 0 && !r.Retry && !r.unsure && code(err) != "" {
				p.tokens.forget(req.Token) // it was refused: there is nothing that the next call would have to wait for
			}
			return nil, p.fail(ctx, "snapshot", strings.Join(r.missing(), ", "), err)
		}
	}
	return p.finish(ctx, r)
}

// newRequest checks a request.
func newRequest(req plugins.SnapshotRequest) (*request, error) {
	seen := map[string]bool{}
	for _, handle := range req.Handles {
		if !volumeID.MatchString(handle) {
			return nil, configured("give ids such as vol-0123456789abcdef0", "%q is no id of an EBS volume", handle)
		}
		if seen[handle] {
			return nil, configured("name each volume once", "volume %s is named twice", handle)
		}
		seen[handle] = true
		if _, err := withToken(req.Token, req.Tags, req.ByHandle[handle]); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(req.Handles)), " ")))
	r := &request{SnapshotRequest: req, volumes: hex.EncodeToString(sum[:8]), taken: map[string]taken{}}
	var err error
	r.tags, err = r.tagsWith(nil)
	return r, err
}

// tagsWith are the tags of a snapshot that has some of its own.
func (r *request) tagsWith(own map[string]string) (map[string]string, error) {
	tags, err := withToken(r.Token, r.Tags, own)
	if err == nil {
		tags[VolumesTag] = r.volumes
	}
	return tags, err
}

func (r *request) missing() (handles []string) {
	for _, handle := range r.Handles {
		if _, ok := r.taken[handle]; !ok {
			handles = append(handles, handle)
		}
	}
	return handles
}

// add notes a snapshot of the token. Should there ever be two of one volume, all callers agree on the older one.
func (r *request) add(s taken) {
	if before, ok := r.taken[s.Handle]; !ok || s.started.Before(before.started) || s.started.Equal(before.started) && s.ID < before.ID {
		r.taken[s.Handle] = s
	}
}

// find looks for the token's snapshots. Those that are this request's, but of volumes that were not asked for, were attached in the wrong moment, and
// go; those of another request with the token stay, and this one is refused.
func (p *Provider) find(ctx context.Context, r *request) error {
	described, err := p.snapshots(ctx, filter("tag:"+TokenTag, literal(r.Token)))
	if err != nil {
		return err
	}
	for _, s := range described {
		out := snapshot(s)
		switch {
		case out.Tags[TokenTag] != r.Token:
		case out.Tags[VolumesTag] != r.volumes:
			return configured("use another token", "token %s was used for the snapshot %s of other volumes", r.Token, out.ID)
		case !slices.Contains(r.Handles, out.Handle) && (out.Handle == copiedFrom || aws.ToString(s.Description) != *description(r.Token)):
			// Somebody's copy of one of them, tags and all.
		default:
			if err := p.keep(ctx, r, taken{out, aws.ToTime(s.StartTime)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep notes a snapshot, or deletes it if its volume is none of the request's.
func (p *Provider) keep(ctx context.Context, r *request, s taken) error {
	if slices.Contains(r.Handles, s.Handle) {
		r.add(s)
		return nil
	}
	return p.discard(ctx, s.ID)
}

// discard deletes a snapshot that is known to exist, though EC2 may not know it yet everywhere.
func (p *Provider) discard(ctx context.Context, id string) error {
	for look := 0; ; look++ {
		_, err := p.ec2.DeleteSnapshot(ctx, &awsec2.DeleteSnapshotInput{SnapshotId: &id})
		if code(err) != snapshotGone {
			return p.fail(ctx, "delete snapshot", id, err)
		}
		if look == settleLooks {
			return nil
		}
		if err := p.pause(ctx, look); err != nil {
			return p.fail(ctx, "delete snapshot", id, err)
		}
	}
}

// settle looks for the token's snapshots until all of the handles have one, or EC2 is sure to have shown what there is.
func (p *Provider) settle(ctx context.Context, r *request, handles []string) error {
	for look := range settleLooks {
		if !slices.ContainsFunc(handles, func(handle string) bool { _, ok := r.taken[handle]; return !ok }) {
			return nil
		}
		if err := p.pause(ctx, look); err != nil {
			return err
		}
		if err := p.find(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// ask has one snapshot taken of each volume that has none yet.
func (p *Provider) ask(ctx context.Context, r *request) error {
	missing := r.missing()
	volumes, err := p.volumes(ctx, missing)
	if err != nil {
		return err
	}
	byInstance := map[string][]string{}
	var single []string
	for _, handle := range missing {
		v, ok := volumes[handle]
		switch {
		case !ok:
			return p.fail(ctx, "snapshot", handle, fmt.Errorf("%w: volume %s is not in %s", plugins.ErrVolumeGone, handle, p.region))
		case len(v.Attachments) == 1:
			id := aws.ToString(v.Attachments[0].InstanceId)
			byInstance[id] = append(byInstance[id], handle)
		default:
			single = append(single, handle)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byInstance)) {
		alone, err := p.askInstance(ctx, r, id, byInstance[id])
		if err != nil {
			return err
		}
		single = append(single, alone...)
	}
	for _, handle := range single {
		if err := p.askVolume(ctx, r, handle); err != nil {
			return err
		}
	}
	return nil
}

// askInstance takes snapshots of volumes of one instance at one moment. It gives back those that have to be taken one by one: where it is only
// one, and where the instance or the rules of CreateSnapshots do not let the others be left out.
func (p *Provider) askInstance(ctx context.Context, r *request, id string, handles []string) (alone []string, err error) {
	if len(handles) < 2 {
		return handles, nil
	}
	spec, err := p.instanceSpec(ctx, id, handles)
	if err != nil || spec == nil {
		return handles, err
	}
	in := &awsec2.CreateSnapshotsInput{InstanceSpecification: spec, Description: description(r.Token), TagSpecifications: tagSpec(types.ResourceTypeSnapshot, r.tags)}
	err = p.certain(ctx, r, handles, func() error {
		out, err := p.ec2.CreateSnapshots(ctx, in, p.onlyOnce)
		if err != nil {
			return err
		}
		for _, s := range out.Snapshots {
			made := taken{snapshotOfInfo(s), aws.ToTime(s.StartTime)}
			if err := p.keep(ctx, r, made); err != nil {
				return err
			}
		}
		return nil
	})
	switch code(err) {
	case "UnsupportedOperation", "OperationNotPermitted", "InvalidInstanceID.NotFound":
		return handles, nil // an instance that others manage, or that is gone
	case "InvalidParameterValue", "InvalidParameter":
		r.refused = err
		return nil, nil // a volume came or went meanwhile; the next round sees
	}
	return nil, err
}

// instanceSpec says which volumes of an instance are not to be taken; nil where CreateSnapshots cannot leave them out (it takes 40 ids of data
// volumes, "InstanceSpecification" of the EC2 API Reference).
func (p *Provider) instanceSpec(ctx context.Context, id string, handles []string) (*types.InstanceSpecification, error) {
	out, err := p.ec2.DescribeInstances(ctx, &awsec2.DescribeInstancesInput{
		Filters: []types.Filter{filter("instance-id", id)}, IncludeManagedResources: aws.Bool(true),
	})
	if err != nil {
		return nil, err
	}
	for _, reservation := range out.Reservations {
		for _, instance := range reservation.Instances {
			if aws.ToString(instance.InstanceId) == id {
				return without(instance, handles), nil
			}
		}
	}
	return nil, nil
}

func without(instance types.Instance, handles []string) *types.InstanceSpecification {
	const mostExcluded = 40
	spec := &types.InstanceSpecification{InstanceId: instance.InstanceId}
	for _, mapping := range instance.BlockDeviceMappings {
		if mapping.Ebs == nil || slices.Contains(handles, aws.ToString(mapping.Ebs.VolumeId)) {
			continue
		}
		if aws.ToString(mapping.DeviceName) == aws.ToString(instance.RootDeviceName) {
			spec.ExcludeBootVolume = aws.Bool(true)
		} else {
			spec.ExcludeDataVolumeIds = append(spec.ExcludeDataVolumeIds, aws.ToString(mapping.Ebs.VolumeId))
		}
	}
	if len(spec.ExcludeDataVolumeIds) > mostExcluded {
		return nil
	}
	return spec
}

func (p *Provider) askVolume(ctx context.Context, r *request, handle string) error {
	tags, err := r.tagsWith(r.ByHandle[handle])
	if err != nil {
		return err
	}
	err = p.certain(ctx, r, []string{handle}, func() error {
		out, err := p.ec2.CreateSnapshot(ctx, &awsec2.CreateSnapshotInput{
			VolumeId: &handle, Description: description(r.Token), TagSpecifications: tagSpec(types.ResourceTypeSnapshot, tags),
		}, p.onlyOnce)
		if err != nil {
			return err
		}
		r.add(taken{plugins.Snapshot{
			ID: aws.ToString(out.SnapshotId), Handle: aws.ToString(out.VolumeId), SizeBytes: int64(aws.ToInt32(out.VolumeSize)) * gib,
			State: state(out.State), Progress: progress(out.Progress), Message: aws.ToString(out.StateMessage), Tags: tagMap(out.Tags),
			Started: aws.ToTime(out.StartTime),
		}, aws.ToTime(out.StartTime)})
		return nil
	})
	return p.fail(ctx, "snapshot", handle, err)
}

// certain calls what must not be performed twice. Where no answer came it is called again only when the snapshots cannot be found.
func (p *Provider) certain(ctx context.Context, r *request, handles []string, call func() error) error {
	for attempt := 1; ; attempt++ {
		err := call()
		if !uncertain(ctx, err) {
			return err
		}
		r.unsure = true
		if settleErr := p.settle(ctx, r, handles); settleErr != nil {
			return fmt.Errorf("%w; look whether it was performed: %w", err, settleErr)
		}
		if _, ok := r.taken[handles[0]]; ok {
			return nil // all at once or none: the rest is in missing where volumes went
		}
		if attempt == rounds {
			return err
		}
	}
}

func (p *Provider) onlyOnce(o *awsec2.Options) { o.Retryer = p.once }

// description is what people see in the console.
func description(token string) *string { return aws.String("Kedge, token " + token) }

// snapshotOfInfo is a snapshot as CreateSnapshots describes it.
func snapshotOfInfo(s types.SnapshotInfo) plugins.Snapshot {
	return plugins.Snapshot{
		ID: aws.ToString(s.SnapshotId), Handle: aws.ToString(s.VolumeId), SizeBytes: int64(aws.ToInt32(s.VolumeSize)) * gib,
		State: state(s.State), Progress: progress(s.Progress), Tags: tagMap(s.Tags), Started: aws.ToTime(s.StartTime),
	}
}

// finish sets the tags that differ between the volumes, where they are not set, and gives the snapshots in the order of the handles.
func (p *Provider) finish(ctx context.Context, r *request) ([]plugins.Snapshot, error) {
	var all []plugins.Snapshot
	for _, handle := range r.Handles {
		s := r.taken[handle].Snapshot
		if own := r.ByHandle[handle]; !hasAll(s.Tags, own) {
			if err := p.tag(ctx, s.ID, own); err != nil {
				return nil, p.fail(ctx, "tag snapshot", s.ID, err)
			}
			s.Tags = maps.Clone(s.Tags)
			maps.Copy(s.Tags, own)
		}
		all = append(all, s)
	}
	return all, nil
}

// tag sets tags of a snapshot (CreateTags), which EC2 may not know yet everywhere though it has named it.
func (p *Provider) tag(ctx context.Context, id string, tags map[string]string) error {
	for look := 0; ; look++ {
		_, err := p.ec2.CreateTags(ctx, &awsec2.CreateTagsInput{Resources: []string{id}, Tags: tagList(tags)})
		if code(err) != snapshotGone || look == settleLooks {
			return err
		}
		if err := p.pause(ctx, look); err != nil {
			return err
		}
	}
}

// DeleteSnapshot removes a snapshot (DeleteSnapshot).
func (p *Provider) DeleteSnapshot(ctx context.Context, id string) error {
	_, err := p.ec2.DeleteSnapshot(ctx, &awsec2.DeleteSnapshotInput{SnapshotId: &id})
	if code(err) == snapshotGone {
		return nil
	}
	return p.fail(ctx, "delete snapshot", id, err)
}
