package ebs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

var _ plugins.SnapshotCopier = (*Provider)(nil)

// tooManyCopies is what CopySnapshot answers where as many copies to the region are under way as the account may make.
const tooManyCopies = "ResourceLimitExceeded"

const (
	// patience is how often in a row a copy is asked for that the limit of copies under way does not let begin: a day, with the pauses between. The
	// copies before it may be of volumes of terabytes.
	patience = int(24 * time.Hour / lastPause)
	// mostBlind is how many looks in a row at a copy may fail, beyond the retries of each.
	mostBlind = 20
	// unshareTime bounds what is done to end the sharing of a snapshot when nobody waits for it any more.
	unshareTime = 20 * time.Second
)

// copying is a SnapshotCopyRequest under way.
type copying struct {
	plugins.SnapshotCopyRequest

	from, there *Provider
	tags        map[string]string
	of          string // the tag that says of what the token's copy is
	made        *plugins.Snapshot
	unsure      bool // a call may have been performed though its answer was lost
	// again shares the source once more; nil where it is not shared.
	again func(context.Context) error
}

// CopySnapshot copies a snapshot to a place (CopySnapshot, called there) and waits until the copy is completed. CopySnapshot has no client token, so
// the token is a tag that goes with the call, as in Snapshot. For another account the snapshot is shared with it meanwhile (ModifySnapshotAttribute).
func (p *Provider) CopySnapshot(ctx context.Context, req plugins.SnapshotCopyRequest) (plugins.Snapshot, error) {
	object := req.SnapshotID + " to " + req.To.String()
	c, err := p.newCopying(req)
	if err != nil {
		return plugins.Snapshot{}, p.fail(ctx, "copy snapshot", object, err)
	}
	before, release, err := p.tokens.take(ctx, req.Token)
	if err != nil {
		return plugins.Snapshot{}, p.fail(ctx, "copy snapshot", object, err)
	}
	defer release()
	if err = c.find(ctx); err == nil && before {
		err = c.settle(ctx)
	}
	if err == nil && c.made == nil {
		if err = c.begin(ctx); err != nil && c.made == nil && !before && !c.unsure && code(err) != "" {
			p.tokens.forget(req.Token) // it was refused: the next call has nothing to wait for
		}
	}
	if err == nil {
		err = c.wait(ctx)
	}
	if err != nil {
		return plugins.Snapshot{}, c.there.fail(ctx, "copy snapshot", object, err)
	}
	return *c.made, nil
}

// newCopying checks a request.
func (p *Provider) newCopying(req plugins.SnapshotCopyRequest) (*copying, error) {
	if req.SnapshotID == "" {
		return nil, configured("", "no snapshot is named")
	}
	if req.To.RoleARN == "" && (req.To.Region == p.region || req.To.Region == "") {
		return nil, configured("name another region, or a role of another account", "the snapshot is in %s already", p.region)
	}
	there, err := p.at(req.To)
	if err != nil {
		return nil, err
	}
	tags, err := withToken(req.Token, req.Tags)
	if err != nil {
		return nil, err
	}
	c := &copying{SnapshotCopyRequest: req, from: p, there: there, tags: tags, of: "copy of " + req.SnapshotID}
	tags[VolumesTag] = c.of
	return c, nil
}

// find looks for the token's copy. One that failed goes, as do others beside the oldest, should a call have been performed twice.
func (c *copying) find(ctx context.Context) error {
	described, err := c.there.snapshots(ctx, filter("tag:"+TokenTag, literal(c.Token)))
	if err != nil {
		return err
	}
	var all []plugins.Snapshot
	for _, one := range described {
		s := snapshot(one)
		switch {
		case s.Tags[TokenTag] != c.Token:
		case s.Tags[VolumesTag] != c.of:
			return configured("use another token", "token %s was used for snapshot %s, which is no copy of %s", c.Token, s.ID, c.SnapshotID)
		default:
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b plugins.Snapshot) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	c.made = nil
	for i := range all {
		if c.made == nil && all[i].State != plugins.SnapshotFailed {
			c.made = &all[i]
		} else if err := c.there.discard(ctx, all[i].ID); err != nil {
			return err
		}
	}
	return nil
}

// settle looks for the token's copy until it is there, or EC2 is sure to have shown it.
func (c *copying) settle(ctx context.Context) error {
	for look := 0; look < settleLooks && c.made == nil; look++ {
		if err := c.there.pause(ctx, look); err != nil {
			return err
		}
		if err := c.find(ctx); err != nil {
			return err
		}
	}
	return nil
}

// begin has the copy made, from a snapshot that is shared with the place's account until it is.
func (c *copying) begin(ctx context.Context) error {
	found, err := c.from.DescribeSnapshots(ctx, []string{c.SnapshotID})
	if err != nil {
		return err
	}
	source, ok := found[c.SnapshotID]
	switch {
	case !ok:
		return fmt.Errorf("%w: snapshot %s is not in %s", plugins.ErrVolumeGone, c.SnapshotID, c.from.region)
	case source.State == plugins.SnapshotFailed:
		return failed(source, "")
	case source.State != plugins.SnapshotCompleted:
		return configured("wait until it is completed", "snapshot %s is %s", c.SnapshotID, source.State)
	}
	unshare, err := c.share(ctx, &source)
	if err != nil {
		return err
	}
	// Whether a copy goes on that has begun when its source is shared no more is not documented: it ends with the copy.
	if err := c.ask(ctx); err != nil {
		unshare()
		return err
	}
	err = c.wait(ctx)
	unshare()
	return err
}

// share lets the place's account use the snapshot. The function that comes back ends that, unless another copy to the account needs it still; should it
// fail, the account has a copy of it anyway.
func (c *copying) share(ctx context.Context, source *plugins.Snapshot) (unshare func(), err error) {
	to := account(c.To.RoleARN)
	if to == "" || to == source.Account {
		return func() {}, nil
	}
	p := c.from
	change := func(ctx context.Context, operation types.OperationType) error {
		_, err := p.ec2.ModifySnapshotAttribute(ctx, &awsec2.ModifySnapshotAttributeInput{
			SnapshotId: &c.SnapshotID, Attribute: types.SnapshotAttributeNameCreateVolumePermission, OperationType: operation, UserIds: []string{to},
		})
		return err
	}
	add := func(ctx context.Context) error { return change(ctx, types.OperationTypeAdd) }
	remove := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unshareTime)
		defer cancel()
		_ = change(ctx, types.OperationTypeRemove) // see above
	}
	s := p.shares.begin(c.SnapshotID, to)
	err = s.do(func() error { return add(ctx) })
	if code(err) == "OperationNotPermitted" {
		err = awsconf.WithRemedy(awsconf.AsClass(plugins.ErrConfig, p.words(err)), "encrypt the volume with a KMS key of your own that account "+to+" may use: what aws/ebs encrypts cannot be shared")
	}
	if err != nil {
		p.shares.end(s, remove) // another copy may have left that to this one
		return nil, p.fail(ctx, "share snapshot", c.SnapshotID+" with account "+to, err)
	}
	c.again = func(ctx context.Context) error { return s.do(func() error { return add(ctx) }) }
	return func() { p.shares.end(s, remove) }, nil
}

// ask calls CopySnapshot until it is performed, and never again once it may have been without a look.
func (c *copying) ask(ctx context.Context) error {
	in := &awsec2.CopySnapshotInput{
		SourceRegion: &c.from.region, SourceSnapshotId: &c.SnapshotID, Description: description(c.Token), TagSpecifications: tagSpec(types.ResourceTypeSnapshot, c.tags),
	}
	if c.KMSKeyID != "" {
		in.Encrypted, in.KmsKeyId = aws.Bool(true), &c.KMSKeyID
	}
	p := c.there
	lost, unseen, full := 0, 0, 0
	for {
		out, err := p.ec2.CopySnapshot(ctx, in, p.onlyOnce)
		in.PresignedUrl = nil // it is signed for some minutes
		look := 0
		switch {
		case err == nil:
			c.made = &plugins.Snapshot{ID: aws.ToString(out.SnapshotId), State: plugins.SnapshotPending}
			return nil
		case uncertain(ctx, err) && lost < rounds:
			lost++
			c.unsure = true
			if settleErr := c.settle(ctx); settleErr != nil {
				return fmt.Errorf("%w; look whether it was performed: %w", err, settleErr)
			}
			if c.made != nil {
				return nil
			}
			continue
		case code(err) == snapshotGone && unseen < settleLooks: // that it is there, or shared, may not be known everywhere
			look = unseen
			unseen++
			if c.again != nil { // another process may have ended the sharing
				if err := c.again(ctx); err != nil {
					return err
				}
			}
		case code(err) == tooManyCopies && strings.Contains(err.Error(), "in progress") && full < patience:
			look = full
			full++
		default:
			return err
		}
		if err := p.pause(ctx, look); err != nil {
			return err
		}
	}
}

// wait follows the copy until it is completed. One that fails is removed.
func (c *copying) wait(ctx context.Context) error {
	unseen, blind := 0, 0
	for look := 0; c.made.State != plugins.SnapshotCompleted; look++ {
		if err := c.there.pause(ctx, look); err != nil {
			return err
		}
		found, err := c.there.DescribeSnapshots(ctx, []string{c.made.ID})
		s, ok := found[c.made.ID]
		switch {
		case err != nil && (plugins.Permanent(err) || blind == mostBlind || ctx.Err() != nil):
			return err
		case err != nil:
			blind++
			continue
		case !ok && unseen == settleLooks:
			return fmt.Errorf("%w: the copy %s was made, but is not there (any more)", plugins.ErrVolumeGone, c.made.ID)
		case !ok:
			unseen++
			continue
		case s.State == plugins.SnapshotFailed:
			err := failed(s, keyRemedy+"; the key of the snapshot too must be one that this identity may use")
			return errors.Join(err, c.there.discard(ctx, s.ID))
		}
		c.made, blind = &s, 0
		if c.Progress != nil && s.Progress >= 0 {
			c.Progress(s.Progress)
		}
	}
	if !c.unsure {
		return nil
	}
	// A call that was taken for lost may have been performed late: of two copies the older stays, as every caller with the token sees it.
	made := c.made
	c.unsure = false
	if err := c.find(ctx); err != nil {
		return err
	}
	if c.made == nil {
		c.made = made // EC2 does not show it by its tags yet
	}
	return c.wait(ctx)
}
