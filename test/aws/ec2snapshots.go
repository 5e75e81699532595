package aws

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mostExcluded is how many data volumes CreateSnapshots can leave out ("InstanceSpecification" of the EC2 API Reference).
const mostExcluded = 40

type xmlSnapshot struct {
	SnapshotID  string   `xml:"snapshotId"`
	VolumeID    string   `xml:"volumeId"`
	Status      string   `xml:"status,omitempty"`
	State       string   `xml:"state,omitempty"` // what CreateSnapshots calls it
	Message     string   `xml:"statusMessage,omitempty"`
	StartTime   string   `xml:"startTime"`
	Progress    string   `xml:"progress"`
	OwnerID     string   `xml:"ownerId"`
	VolumeSize  int64    `xml:"volumeSize"`
	Description string   `xml:"description"`
	Tags        []xmlTag `xml:"tagSet>item"`
	Encrypted   bool     `xml:"encrypted"`
	KMSKeyID    string   `xml:"kmsKeyId,omitempty"`
	StorageTier string   `xml:"storageTier"`
}

func (c *Cloud) showSnapshot(s *snapshot) xmlSnapshot {
	return xmlSnapshot{
		SnapshotID: s.id, VolumeID: s.volumeID, Status: s.state, Message: s.message, StartTime: stamp(s.started), Progress: strconv.Itoa(c.progress(s)) + "%",
		OwnerID: s.account, VolumeSize: s.gib, Description: s.description, Tags: xmlTags(s.tags), Encrypted: s.encrypted, KMSKeyID: s.keyID, StorageTier: "standard",
	}
}

// snapshot finds one that the caller may use, by id.
func (c *Cloud) snapshot(in *call, id string) (*snapshot, *apiError) {
	if !wellFormed.MatchString(id) || !strings.HasPrefix(id, "snap-") {
		return nil, refuse("InvalidSnapshotID.Malformed", "The snapshot ID '%s' is malformed", id)
	}
	s := c.snapshots[id]
	if s == nil || s.region != in.region || s.account != in.account && !s.shared[in.account] {
		return nil, refuse("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
	}
	return s, nil
}

// mine is snapshot for what only its owner may do.
func (c *Cloud) mine(in *call, id string) (*snapshot, *apiError) {
	s, refused := c.snapshot(in, id)
	if refused == nil && s.account != in.account {
		return nil, &apiError{403, "UnauthorizedOperation", "", "You are not authorized to perform this operation."}
	}
	return s, refused
}

// snapshotQuota refuses so many more snapshots.
func (c *Cloud) snapshotQuota(in *call, more int) *apiError {
	all, pending := more, more
	for _, s := range c.snapshots {
		if s.region == in.region && s.account == in.account {
			all++
			if s.state == "pending" {
				pending++
			}
		}
	}
	switch {
	case c.opts.MaxSnapshots > 0 && all > c.opts.MaxSnapshots:
		return refuse("SnapshotLimitExceeded", "The maximum number of snapshots (%d) has been reached.", c.opts.MaxSnapshots)
	case c.opts.MaxPendingSnapshots > 0 && pending > c.opts.MaxPendingSnapshots:
		return refuse("ConcurrentSnapshotLimitExceeded", "Maximum allowed in-progress snapshots (%d) exceeded.", c.opts.MaxPendingSnapshots)
	}
	return nil
}

// take makes the snapshot of a volume at this moment.
func (c *Cloud) take(in *call, v *volume, tags map[string]string) (*snapshot, *apiError) {
	start := time.Now()
	blocks, err := c.blocks.capture(v.path)
	c.traffic.taking += time.Since(start)
	if err != nil {
		return nil, &apiError{500, "InternalError", "", err.Error()}
	}
	s := &snapshot{
		id: c.id("snap"), region: v.region, account: v.account, volumeID: v.id, description: in.text("Description"), gib: v.gib, encrypted: v.encrypted, keyID: v.keyID,
		started: in.now, state: "pending", tags: maps.Clone(tags), lineage: v.lineage, blocks: blocks, polls: c.opts.SnapshotPolls, unseen: c.opts.DescribeLag, blocksUnseen: c.opts.BlocksLag,
	}
	c.snapshots[s.id] = s
	return s, nil
}

func (c *Cloud) createSnapshot(in *call) (any, *apiError) {
	v, refused := c.volume(in, in.text("VolumeId"))
	if refused != nil {
		return nil, refused
	}
	tags, refused := in.newTags("snapshot")
	if refused != nil {
		return nil, refused
	}
	if v.state != "available" && v.state != "in-use" {
		return nil, refuse("IncorrectState", "Volume '%s' is in the '%s' state.", v.id, v.state)
	}
	if refused := c.snapshotQuota(in, 1); refused != nil {
		return nil, refused
	}
	s, refused := c.take(in, v, tags)
	if refused != nil {
		return nil, refused
	}
	return c.showSnapshot(s), nil
}

func (c *Cloud) createSnapshots(in *call) (any, *apiError) {
	volumes, refused := c.chosen(in)
	if refused != nil {
		return nil, refused
	}
	tags, refused := in.newTags("snapshot")
	if refused != nil {
		return nil, refused
	}
	if refused := c.snapshotQuota(in, len(volumes)); refused != nil {
		return nil, refused
	}
	var out struct {
		Snapshots []xmlSnapshot `xml:"snapshotSet>item"`
	}
	for _, v := range volumes {
		own := maps.Clone(tags)
		if in.text("CopyTagsFromSource") == "volume" {
			maps.Copy(own, v.tags)
		}
		s, refused := c.take(in, v, own)
		if refused != nil {
			return nil, refused
		}
		shown := c.showSnapshot(s)
		shown.State, shown.Status = shown.Status, ""
		out.Snapshots = append(out.Snapshots, shown)
	}
	return out, nil
}

// chosen are the volumes of an instance that CreateSnapshots is to take.
func (c *Cloud) chosen(in *call) ([]*volume, *apiError) {
	machine := c.instances[in.text("InstanceSpecification.InstanceId")]
	if machine == nil || machine.region != in.region {
		return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", in.text("InstanceSpecification.InstanceId"))
	}
	excluded := in.list("InstanceSpecification.ExcludeDataVolumeId")
	if len(excluded) > mostExcluded {
		return nil, refuse("InvalidParameterValue", "No more than %d volumes can be excluded.", mostExcluded)
	}
	attached := c.attachedTo(machine.id)
	isRoot := func(v *volume) bool {
		return slices.ContainsFunc(v.attachments, func(a attachment) bool { return a.instance == machine.id && a.device == machine.rootDevice })
	}
	for _, id := range excluded {
		i := slices.IndexFunc(attached, func(v *volume) bool { return v.id == id })
		switch {
		case i < 0:
			return nil, refuse("InvalidParameterValue", "The volume '%s' is not attached to instance '%s'.", id, machine.id)
		case isRoot(attached[i]):
			return nil, refuse("InvalidParameterValue", "The root volume '%s' cannot be excluded by its id.", id)
		}
	}
	attached = slices.DeleteFunc(attached, func(v *volume) bool {
		return slices.Contains(excluded, v.id) || isRoot(v) && in.flag("InstanceSpecification.ExcludeBootVolume")
	})
	if len(attached) == 0 {
		return nil, refuse("InvalidParameterValue", "No volumes are left to be snapshotted.")
	}
	return attached, nil
}

func (c *Cloud) describeSnapshots(in *call) (any, *apiError) {
	ids := in.list("SnapshotId")
	if _, paged := in.number("MaxResults"); paged && len(ids) > 0 {
		return nil, refuse("InvalidParameterCombination", "The parameter snapshotSet cannot be used with the parameter maxResults")
	}
	for _, id := range ids {
		s, refused := c.snapshot(in, id)
		if refused != nil {
			return nil, refused
		}
		if s.unseen > 0 {
			s.unseen--
			return nil, refuse("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
		}
	}
	var found []*snapshot
	for _, s := range sorted(c.snapshots) {
		if len(ids) > 0 && !slices.Contains(ids, s.id) || s.region != in.region || !owns(in, s) {
			continue
		}
		ok, refused := in.filter(s.tags, c.snapshotAttributes(s))
		if refused != nil {
			return nil, refused
		}
		if !ok {
			continue
		}
		if s.unseen > 0 {
			s.unseen--
			continue
		}
		found = append(found, s)
	}
	items, next, refused := page(c, in, found, func(s *snapshot) string { return s.id })
	if refused != nil {
		return nil, refused
	}
	var out struct {
		Snapshots []xmlSnapshot `xml:"snapshotSet>item"`
		NextToken string        `xml:"nextToken,omitempty"`
	}
	out.NextToken = next
	for _, s := range items {
		c.poll(s, in.now)
		out.Snapshots = append(out.Snapshots, c.showSnapshot(s))
	}
	return out, nil
}

// owns says whether the caller sees a snapshot, and its owner is one of those asked for.
func owns(in *call, s *snapshot) bool {
	if s.account != in.account && !s.shared[in.account] {
		return false
	}
	owners := in.list("Owner")
	return restorable(in, s) && (len(owners) == 0 || slices.Contains(owners, s.account) || slices.Contains(owners, "self") && s.account == in.account)
}

// restorable says whether one of the accounts that are asked for may make volumes of a snapshot.
func restorable(in *call, s *snapshot) bool {
	users := in.list("RestorableBy")
	return len(users) == 0 || slices.ContainsFunc(users, func(user string) bool {
		if user == "self" {
			user = in.account
		}
		return s.account == user || s.shared[user]
	})
}

func (c *Cloud) snapshotAttributes(s *snapshot) func(string) ([]string, bool) {
	return attributes{
		"snapshot-id": {s.id}, "volume-id": {s.volumeID}, "status": {s.state}, "owner-id": {s.account}, "description": {s.description}, "encrypted": {strconv.FormatBool(s.encrypted)},
		"progress": {strconv.Itoa(c.progress(s)) + "%"}, "volume-size": {strconv.FormatInt(s.gib, 10)}, "storage-tier": {"standard"},
	}.of
}

func (c *Cloud) deleteSnapshot(in *call) (any, *apiError) {
	s, refused := c.mine(in, in.text("SnapshotId"))
	if refused != nil {
		return nil, refused
	}
	delete(c.snapshots, s.id)
	return done{true}, nil
}

// tagged are the tags of the resources named, to be changed.
func (c *Cloud) tagged(in *call) (all []map[string]string, refused *apiError) {
	for _, id := range in.list("ResourceId") {
		kind, _, _ := strings.Cut(id, "-")
		switch kind {
		case "vol":
			v, refused := c.volume(in, id)
			if refused != nil {
				return nil, refused
			}
			all = append(all, v.tags)
		case "snap":
			s, refused := c.mine(in, id)
			if refused != nil {
				return nil, refused
			}
			all = append(all, s.tags)
		default:
			return nil, refuse("InvalidID", "The ID '%s' is not valid", id)
		}
	}
	return all, nil
}

func (c *Cloud) createTags(in *call) (any, *apiError) {
	tags, refused := in.tagsAt("Tag")
	if refused != nil {
		return nil, refused
	}
	all, refused := c.tagged(in)
	if refused != nil {
		return nil, refused
	}
	for _, have := range all {
		together := maps.Clone(have)
		maps.Copy(together, tags)
		if refused := checkTags(together); refused != nil {
			return nil, refused
		}
	}
	for _, have := range all {
		maps.Copy(have, tags)
	}
	return done{true}, nil
}

func (c *Cloud) deleteTags(in *call) (any, *apiError) {
	all, refused := c.tagged(in)
	if refused != nil {
		return nil, refused
	}
	for n := 1; in.form.Has(fmt.Sprintf("Tag.%d.Key", n)); n++ {
		at := fmt.Sprintf("Tag.%d.", n)
		for _, have := range all {
			if value, ok := have[in.text(at+"Key")]; ok && (!in.form.Has(at+"Value") || value == in.text(at+"Value")) {
				delete(have, in.text(at+"Key"))
			}
		}
	}
	return done{true}, nil
}

func (c *Cloud) describeZones(in *call) (any, *apiError) {
	type zone struct {
		Name   string `xml:"zoneName"`
		ID     string `xml:"zoneId"`
		Region string `xml:"regionName"`
		State  string `xml:"zoneState"`
		Type   string `xml:"zoneType"`
		OptIn  string `xml:"optInStatus"`
	}
	var out struct {
		Zones []zone `xml:"availabilityZoneInfo>item"`
	}
	wanted := in.list("ZoneName")
	for _, name := range wanted {
		if !c.hasZone(in.region, name) {
			return nil, refuse("InvalidParameterValue", "Invalid availability zone: [%s]", name)
		}
	}
	for i, letter := range c.opts.Zones {
		name := in.region + letter
		matches, refused := in.filter(nil, attributes{"zone-name": {name}, "region-name": {in.region}, "state": {"available"}, "zone-type": {"availability-zone"}}.of)
		if refused != nil {
			return nil, refused
		}
		if matches && (len(wanted) == 0 || slices.Contains(wanted, name)) {
			out.Zones = append(out.Zones, zone{name, fmt.Sprintf("%s-az%d", in.region, i+1), in.region, "available", "availability-zone", "opt-in-not-required"})
		}
	}
	return out, nil
}

type xmlMapping struct {
	Device   string `xml:"deviceName"`
	VolumeID string `xml:"ebs>volumeId"`
	Status   string `xml:"ebs>status"`
}

type xmlInstance struct {
	ID         string       `xml:"instanceId"`
	State      string       `xml:"instanceState>name"`
	Zone       string       `xml:"placement>availabilityZone"`
	RootDevice string       `xml:"rootDeviceName"`
	Mappings   []xmlMapping `xml:"blockDeviceMapping>item"`
}

func (c *Cloud) describeInstances(in *call) (any, *apiError) {
	type reservation struct {
		Instances []xmlInstance `xml:"instancesSet>item"`
	}
	var out struct {
		Reservations []reservation `xml:"reservationSet>item"`
	}
	ids := in.list("InstanceId")
	for _, id := range ids {
		if machine := c.instances[id]; machine == nil || machine.region != in.region {
			return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
		}
	}
	for _, machine := range sorted(c.instances) {
		matches, refused := in.filter(nil, attributes{"instance-id": {machine.id}, "availability-zone": {machine.zone}, "instance-state-name": {"running"}}.of)
		if refused != nil {
			return nil, refused
		}
		if !matches || machine.region != in.region || len(ids) > 0 && !slices.Contains(ids, machine.id) {
			continue
		}
		x := xmlInstance{ID: machine.id, State: "running", Zone: machine.zone, RootDevice: machine.rootDevice}
		for _, v := range c.attachedTo(machine.id) {
			for _, a := range v.attachments {
				if a.instance == machine.id {
					x.Mappings = append(x.Mappings, xmlMapping{a.device, v.id, "attached"})
				}
			}
		}
		slices.SortFunc(x.Mappings, func(a, b xmlMapping) int { return cmp.Compare(a.Device, b.Device) })
		out.Reservations = append(out.Reservations, reservation{[]xmlInstance{x}})
	}
	return out, nil
}
