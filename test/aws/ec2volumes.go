package aws

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ec2Operations are what the double answers of EC2, each with the parameters that it knows.
var ec2Operations = map[string]ec2Operation{
	"DescribeVolumes":           {(*Cloud).describeVolumes, "VolumeId Filter MaxResults NextToken IncludeManagedResources"},
	"CreateVolume":              {(*Cloud).createVolume, "AvailabilityZone ClientToken Encrypted Iops KmsKeyId MultiAttachEnabled Size SnapshotId TagSpecification Throughput VolumeInitializationRate VolumeType"},
	"DeleteVolume":              {(*Cloud).deleteVolume, "VolumeId"},
	"AttachVolume":              {(*Cloud).attachVolume, "Device InstanceId VolumeId"},
	"DetachVolume":              {(*Cloud).detachVolume, "Device Force InstanceId VolumeId"},
	"CreateSnapshot":            {(*Cloud).createSnapshot, "Description TagSpecification VolumeId"},
	"CreateSnapshots":           {(*Cloud).createSnapshots, "CopyTagsFromSource Description InstanceSpecification TagSpecification"},
	"CopySnapshot":              {(*Cloud).copySnapshot, "Description DestinationRegion Encrypted KmsKeyId PresignedUrl SourceRegion SourceSnapshotId TagSpecification"},
	"DescribeSnapshots":         {(*Cloud).describeSnapshots, "Filter MaxResults NextToken Owner RestorableBy SnapshotId"},
	"DeleteSnapshot":            {(*Cloud).deleteSnapshot, "SnapshotId"},
	"ModifySnapshotAttribute":   {(*Cloud).modifySnapshotAttribute, "Attribute CreateVolumePermission OperationType SnapshotId UserId"},
	"CreateTags":                {(*Cloud).createTags, "ResourceId Tag"},
	"DeleteTags":                {(*Cloud).deleteTags, "ResourceId Tag"},
	"DescribeAvailabilityZones": {(*Cloud).describeZones, "Filter ZoneName AllAvailabilityZones"},
	"DescribeInstances":         {(*Cloud).describeInstances, "Filter InstanceId IncludeManagedResources"},
}

type xmlAttachment struct {
	VolumeID   string `xml:"volumeId"`
	InstanceID string `xml:"instanceId"`
	Device     string `xml:"device"`
	Status     string `xml:"status"`
	AttachTime string `xml:"attachTime"`
}

type xmlVolume struct {
	VolumeID           string          `xml:"volumeId"`
	Size               int64           `xml:"size"`
	SnapshotID         string          `xml:"snapshotId"`
	AvailabilityZone   string          `xml:"availabilityZone"`
	Status             string          `xml:"status"`
	CreateTime         string          `xml:"createTime"`
	Attachments        []xmlAttachment `xml:"attachmentSet>item"`
	Tags               []xmlTag        `xml:"tagSet>item"`
	VolumeType         string          `xml:"volumeType"`
	IOPS               int64           `xml:"iops,omitempty"`
	Throughput         int64           `xml:"throughput,omitempty"`
	Encrypted          bool            `xml:"encrypted"`
	KMSKeyID           string          `xml:"kmsKeyId,omitempty"`
	MultiAttachEnabled bool            `xml:"multiAttachEnabled"`
}

func showVolume(v *volume) xmlVolume {
	x := xmlVolume{
		VolumeID: v.id, Size: v.gib, SnapshotID: v.snapshotID, AvailabilityZone: v.zone, Status: v.state, CreateTime: stamp(v.created), Tags: xmlTags(v.tags),
		VolumeType: v.kind, IOPS: v.iops, Throughput: v.throughput, Encrypted: v.encrypted, KMSKeyID: v.keyID, MultiAttachEnabled: v.multi,
	}
	for _, a := range v.attachments {
		x.Attachments = append(x.Attachments, showAttachment(v, a, "attached"))
	}
	return x
}

func showAttachment(v *volume, a attachment, status string) xmlAttachment {
	return xmlAttachment{v.id, a.instance, a.device, status, stamp(a.at)}
}

var wellFormed = regexp.MustCompile(`^(vol|snap|i)-([0-9a-f]{8}|[0-9a-f]{17})$`)

// volume finds one of the caller's volumes by id.
func (c *Cloud) volume(in *call, id string) (*volume, *apiError) {
	if !wellFormed.MatchString(id) || !strings.HasPrefix(id, "vol-") {
		return nil, refuse("InvalidVolumeID.Malformed", "The volume ID '%s' is malformed", id)
	}
	v := c.volumes[id]
	if v == nil || v.region != in.region || v.account != in.account {
		return nil, refuse("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	}
	return v, nil
}

func (c *Cloud) describeVolumes(in *call) (any, *apiError) {
	ids := in.list("VolumeId")
	if _, paged := in.number("MaxResults"); paged && len(ids) > 0 {
		return nil, refuse("InvalidParameterCombination", "The parameter volumeSet cannot be used with the parameter maxResults")
	}
	if len(ids) == 0 {
		for _, v := range sorted(c.volumes) {
			if v.region == in.region && v.account == in.account {
				ids = append(ids, v.id)
			}
		}
	} else if err := c.allVolumes(in, ids); err != nil {
		return nil, err
	}
	var found []*volume
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		v := c.volumes[id]
		if v.unseen > 0 {
			v.unseen--
			continue
		}
		ok, refused := in.filter(v.tags, volumeAttributes(v))
		if refused != nil {
			return nil, refused
		}
		if ok {
			found = append(found, v)
		}
	}
	items, next, refused := page(c, in, found, func(v *volume) string { return v.id })
	if refused != nil {
		return nil, refused
	}
	var out struct {
		Volumes   []xmlVolume `xml:"volumeSet>item"`
		NextToken string      `xml:"nextToken,omitempty"`
	}
	out.NextToken = next
	for _, v := range items {
		if v.state == "creating" {
			if v.polls > 0 {
				v.polls--
			} else if _, ok := c.findKey(v.region, v.account, v.keyID); v.encrypted && !ok {
				v.state = "error" // the key is looked for when the call has long been answered
			} else {
				v.state = "available"
			}
		}
		out.Volumes = append(out.Volumes, showVolume(v))
	}
	return out, nil
}

// allVolumes refuses a list of ids in which one is not there, or not seen yet.
func (c *Cloud) allVolumes(in *call, ids []string) *apiError {
	for _, id := range ids {
		v, refused := c.volume(in, id)
		if refused != nil {
			return refused
		}
		if v.unseen > 0 {
			v.unseen--
			return refuse("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
		}
	}
	return nil
}

func volumeAttributes(v *volume) func(string) ([]string, bool) {
	var instances, devices []string
	for _, a := range v.attachments {
		instances, devices = append(instances, a.instance), append(devices, a.device)
	}
	return attributes{
		"volume-id": {v.id}, "status": {v.state}, "availability-zone": {v.zone}, "volume-type": {v.kind}, "size": {strconv.FormatInt(v.gib, 10)}, "snapshot-id": {v.snapshotID},
		"encrypted": {strconv.FormatBool(v.encrypted)}, "attachment.instance-id": instances, "attachment.device": devices,
	}.of
}

// fingerprint is what two requests of one client token must have in common.
func (in *call) fingerprint() string { return fmt.Sprint(in.op, in.account, in.form) }

func (c *Cloud) createVolume(in *call) (any, *apiError) {
	token := in.text("ClientToken")
	if len(token) > 64 {
		return nil, refuse("InvalidParameterValue", "The client token must be at most 64 characters.")
	}
	tokenKey := in.account + "/" + in.region + "/" + token
	if before := c.created[tokenKey]; token != "" && before != nil {
		if before.fingerprint != in.fingerprint() {
			return nil, refuse("IdempotentParameterMismatch", "The client token '%s' was used before with other parameters", token)
		}
		if v := c.volumes[before.id]; v != nil {
			return showVolume(v), nil
		}
		return nil, refuse("InvalidVolume.NotFound", "The volume '%s' does not exist.", before.id)
	}
	v, source, refused := c.newVolume(in)
	if refused != nil {
		return nil, refused
	}
	var blocks map[int32]digest
	if source != nil {
		blocks = source.blocks
	}
	if err := c.addVolume(v, blocks); err != nil {
		return nil, &apiError{500, "InternalError", "", err.Error()}
	}
	if token != "" {
		c.created[tokenKey] = &creation{in.fingerprint(), v.id}
	}
	return showVolume(v), nil
}

// newVolume checks a request and says what it asks for.
func (c *Cloud) newVolume(in *call) (*volume, *snapshot, *apiError) {
	tags, refused := in.newTags("volume")
	if refused != nil {
		return nil, nil, refused
	}
	v := &volume{
		region: in.region, account: in.account, zone: in.text("AvailabilityZone"), kind: cmp.Or(in.text("VolumeType"), "gp2"), snapshotID: in.text("SnapshotId"),
		multi: in.flag("MultiAttachEnabled"), encrypted: in.flag("Encrypted"), created: in.now, tags: tags, state: "creating", polls: c.opts.VolumePolls, unseen: c.opts.DescribeLag,
	}
	if !c.hasZone(in.region, v.zone) {
		return nil, nil, refuse("InvalidZone.NotFound", "The zone '%s' does not exist.", v.zone)
	}
	source, refused := c.sizeAndSource(in, v)
	if refused == nil {
		refused = c.checkPerformance(in, v)
	}
	if refused == nil {
		refused = c.encryption(in, v, source)
	}
	if refused != nil {
		return nil, nil, refused
	}
	volumes := 0
	for _, other := range c.volumes {
		if other.region == in.region && other.account == in.account {
			volumes++
		}
	}
	if c.opts.MaxVolumes > 0 && volumes >= c.opts.MaxVolumes {
		return nil, nil, refuse("VolumeLimitExceeded", "You have exceeded your maximum %s storage limit of %d volumes in this region.", v.kind, c.opts.MaxVolumes)
	}
	v.id = c.id("vol")
	v.lineage = v.id
	if source != nil {
		v.lineage = source.lineage
	}
	return v, source, nil
}

func (c *Cloud) sizeAndSource(in *call, v *volume) (*snapshot, *apiError) {
	size, sized := in.number("Size")
	v.gib = size
	if v.snapshotID == "" {
		if !sized {
			return nil, refuse("MissingParameter", "The request must contain the parameter size/snapshot")
		}
		return nil, nil
	}
	source, refused := c.snapshot(in, v.snapshotID)
	if refused != nil {
		return nil, refused
	}
	if !sized {
		v.gib = source.gib
	}
	if v.gib < source.gib {
		return nil, refuse("InvalidParameterValue", "Volume of %dGiB is smaller than snapshot '%s', expecting size >= %dGiB", v.gib, source.id, source.gib)
	}
	if source.state != "completed" {
		return nil, refuse("IncorrectState", "Snapshot is in invalid state - %s", source.state)
	}
	if rate, ok := in.number("VolumeInitializationRate"); ok && (rate < 100 || rate > 300) {
		return nil, refuse("InvalidParameterValue", "The volume initialization rate must be between 100 and 300 MiB/s.")
	}
	return source, nil
}

func (c *Cloud) encryption(in *call, v *volume, source *snapshot) *apiError {
	keyID := in.text("KmsKeyId")
	if keyID != "" && !v.encrypted {
		return refuse("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if source != nil && source.encrypted {
		asked := v.encrypted
		v.encrypted = true
		switch _, usable := c.findKey(source.region, v.account, source.keyID); {
		case source.account == v.account && asked: // encryption that is asked for without a key is by the account's default key
		case source.account == v.account:
			keyID = source.keyID
		case !usable:
			keyID = source.keyID // of a shared snapshot the key is needed too ("Share a KMS key", EBS User Guide), else one's own encrypts
		}
	}
	if v.encrypted {
		v.keyID, _ = c.findKey(v.region, v.account, keyID) // a wrong one shows later
	}
	return nil
}

func (c *Cloud) deleteVolume(in *call) (any, *apiError) {
	v, refused := c.volume(in, in.text("VolumeId"))
	if refused != nil {
		return nil, refused
	}
	if len(v.attachments) > 0 {
		return nil, refuse("VolumeInUse", "Volume %s is currently attached to %s", v.id, v.attachments[0].instance)
	}
	c.removeVolume(v)
	return done{true}, nil
}

func (c *Cloud) attachVolume(in *call) (any, *apiError) {
	v, refused := c.volume(in, in.text("VolumeId"))
	if refused != nil {
		return nil, refused
	}
	machine := c.instances[in.text("InstanceId")]
	device := in.text("Device")
	switch {
	case machine == nil || machine.region != in.region:
		return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", in.text("InstanceId"))
	case v.state == "creating":
		return nil, refuse("IncorrectState", "%s is not 'available'.", v.id)
	case len(v.attachments) > 0 && !v.multi:
		return nil, refuse("VolumeInUse", "%s is already attached to an instance", v.id)
	case v.zone != machine.zone:
		return nil, refuse("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.id, machine.id)
	case slices.ContainsFunc(c.attachedTo(machine.id), func(other *volume) bool {
		return slices.ContainsFunc(other.attachments, func(a attachment) bool { return a.instance == machine.id && a.device == device })
	}):
		return nil, refuse("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
	}
	c.attach(v, machine.id, device)
	return showAttachment(v, v.attachments[len(v.attachments)-1], "attaching"), nil
}

func (c *Cloud) detachVolume(in *call) (any, *apiError) {
	v, refused := c.volume(in, in.text("VolumeId"))
	if refused != nil {
		return nil, refused
	}
	i := slices.IndexFunc(v.attachments, func(a attachment) bool { return in.text("InstanceId") == "" || a.instance == in.text("InstanceId") })
	if i < 0 {
		return nil, refuse("IncorrectState", "Volume '%s' is in the 'available' state.", v.id)
	}
	a := v.attachments[i]
	if machine := c.instances[a.instance]; machine != nil && machine.rootDevice == a.device {
		return nil, refuse("OperationNotPermitted", "The volume '%s' is the root device of instance '%s'", v.id, a.instance)
	}
	v.attachments = slices.Delete(v.attachments, i, i+1)
	if len(v.attachments) == 0 {
		v.state = "available"
	}
	return showAttachment(v, a, "detaching"), nil
}
