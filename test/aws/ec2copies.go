package aws

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// mostCopies is how many copies of snapshots an account makes at once in one region ("Amazon EBS quotas": concurrent snapshot copies per account to a
// single destination region).
const mostCopies = 20

// copySnapshot is called in the destination's region.
func (c *Cloud) copySnapshot(in *call) (any, *apiError) {
	from := *in
	from.region = in.text("SourceRegion")
	source, refused := c.snapshot(&from, in.text("SourceSnapshotId"))
	if refused != nil {
		return nil, refused
	}
	tags, refused := in.newTags("snapshot")
	if refused != nil {
		return nil, refused
	}
	switch {
	case source.state != "completed":
		return nil, refuse("IncorrectState", "Snapshot '%s' is not 'completed'.", source.id)
	case source.encrypted && !presignedFor(in.text("PresignedUrl"), from.region):
		return nil, refuse("InvalidParameterCombination", "A presigned URL of the source's region is needed to copy an encrypted snapshot.")
	case in.text("KmsKeyId") != "" && !in.flag("Encrypted"):
		return nil, refuse("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	case in.form.Has("Encrypted") && !in.flag("Encrypted"):
		return nil, refuse("InvalidParameterValue", "A copy cannot be made unencrypted.")
	}
	if refused := cmp.Or(c.copyQuota(in), c.snapshotQuota(in, 1)); refused != nil {
		return nil, refused
	}
	s := &snapshot{
		id: c.id("snap"), region: in.region, account: in.account, volumeID: "vol-ffffffff", description: in.text("Description"), gib: source.gib, started: in.now, state: "pending",
		encrypted: source.encrypted || in.flag("Encrypted"), tags: tags, blocks: source.blocks, polls: c.opts.SnapshotPolls, unseen: c.opts.DescribeLag, blocksUnseen: c.opts.BlocksLag,
		copied: true,
	}
	s.lineage = s.id
	if s.encrypted {
		arn, ok := c.findKey(in.region, in.account, in.text("KmsKeyId"))
		s.keyID = arn
		if source.encrypted && ok && source.keyID != defaultKey(source.region, source.account) {
			arn, ok = c.findKey(source.region, in.account, source.keyID) // whoever copies reads with the source's key
		}
		if !ok {
			s.state, s.message = "error", "Given key ID is not accessible: "+arn
		}
	}
	c.snapshots[s.id] = s
	return struct {
		SnapshotID string   `xml:"snapshotId"`
		Tags       []xmlTag `xml:"tagSet>item"`
	}{s.id, xmlTags(tags)}, nil
}

// presignedFor says whether a URL is signed for a call of CopySnapshot in the region ("PresignedUrl" of CopySnapshot).
func presignedFor(text, region string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Query().Get("Action") != "CopySnapshot" {
		return false
	}
	return strings.HasSuffix(u.Query().Get("X-Amz-Credential"), "/"+region+"/ec2/aws4_request")
}

// copyQuota refuses one more copy in the region.
func (c *Cloud) copyQuota(in *call) *apiError {
	under, most := 0, cmp.Or(c.opts.MaxPendingCopies, mostCopies)
	for _, s := range c.snapshots {
		if s.copied && s.region == in.region && s.account == in.account && s.state == "pending" {
			under++
		}
	}
	if under >= most {
		return refuse("ResourceLimitExceeded", "Too many snapshot copies in progress. The limit is %d for this destination region.", most)
	}
	return nil
}

var accountID = regexp.MustCompile(`^\d{12}$`)

// modifySnapshotAttribute shares a snapshot with other accounts, or no more.
func (c *Cloud) modifySnapshotAttribute(in *call) (any, *apiError) {
	s, refused := c.mine(in, in.text("SnapshotId"))
	if refused != nil {
		return nil, refused
	}
	users := func(change string) (ids []string) {
		for n := 1; in.form.Has(fmt.Sprintf("CreateVolumePermission.%s.%d.UserId", change, n)); n++ {
			ids = append(ids, in.text(fmt.Sprintf("CreateVolumePermission.%s.%d.UserId", change, n)))
		}
		if strings.EqualFold(in.text("OperationType"), change) {
			ids = append(ids, in.list("UserId")...)
		}
		return ids
	}
	added, removed := users("Add"), users("Remove")
	switch {
	case len(added) > 0 && len(removed) > 0:
		return nil, refuse("InvalidParameterCombination", "Accounts cannot be added and removed in a single operation.")
	case len(added) > 0 && s.encrypted && s.keyID == defaultKey(s.region, s.account):
		return nil, refuse("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
	}
	for _, user := range append(added, removed...) {
		if !accountID.MatchString(user) {
			return nil, refuse("InvalidUserID.Malformed", "Invalid user id: \"%s\"", user)
		}
	}
	if s.shared == nil {
		s.shared = map[string]bool{}
	}
	for _, user := range added {
		s.shared[user] = true
	}
	for _, user := range removed {
		delete(s.shared, user)
	}
	return done{true}, nil
}

// Shared says whether an account that does not own a snapshot may use it.
func (c *Cloud) Shared(id, account string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.snapshots[id]
	return s != nil && s.shared[account]
}

// SnapshotPlace is where a snapshot is, and which key it is encrypted with; empty where there is no such snapshot.
func (c *Cloud) SnapshotPlace(id string) (region, account, keyID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.snapshots[id]; s != nil {
		return s.region, s.account, s.keyID
	}
	return "", "", ""
}

// VolumePlace is SnapshotPlace of a volume.
func (c *Cloud) VolumePlace(id string) (region, account, keyID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.volumes[id]; v != nil {
		return v.region, v.account, v.keyID
	}
	return "", "", ""
}
