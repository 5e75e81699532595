package aws

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const gib = 1 << 30

// volume is an EBS volume; its bytes are the sparse file at path.
type volume struct {
	id, region, zone, kind, snapshotID, keyID, state, path string
	account                                                string
	gib                                                    int64
	iops, throughput                                       int64
	encrypted, multi                                       bool
	created                                                time.Time
	attachments                                            []attachment
	tags                                                   map[string]string
	lineage                                                string // snapshots can be compared within it
	polls, unseen                                          int
}

type attachment struct {
	instance, device string
	at               time.Time
}

// snapshot is an EBS snapshot; its bytes are in the store of blocks.
type snapshot struct {
	id, region, account, volumeID, description, keyID, state, message string
	gib                                                               int64
	encrypted                                                         bool
	started                                                           time.Time
	tags                                                              map[string]string
	lineage                                                           string
	blocks                                                            map[int32]digest
	shared                                                            map[string]bool // accounts that may make volumes of it
	polls, unseen, blocksUnseen                                       int
	copied                                                            bool // CopySnapshot made it

	// of those that StartSnapshot made:
	direct, sealed bool
	parent         string
	written        map[int32]bool
	timeout        time.Duration
	lastWrite      time.Time
}

// instance is a machine that volumes can be attached to.
type instance struct {
	id, region, zone, rootDevice string
}

// key is a KMS key.
type key struct {
	arn, region, account string
	users                map[string]bool // other accounts that its policy lets use it
}

// VolumeSpec is what CreateVolume makes.
type VolumeSpec struct {
	ID         string // empty for one that is made up
	GiB        int64  // zero means 1
	Zone       string // empty means the first of the region
	Type       string // empty means gp3
	IOPS       int64
	Throughput int64
	KMSKeyID   string // encrypts it
	Multi      bool   // can be attached to several instances
	Instance   string // attaches it
	Tags       map[string]string
}

// CreateVolume makes a volume that is available, or attached, at once, without a call of the API. It panics where the file cannot be made.
func (c *Cloud) CreateVolume(spec VolumeSpec) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &volume{
		id: cmp.Or(spec.ID, c.id("vol")), region: c.opts.Region, zone: cmp.Or(spec.Zone, c.opts.Region+c.opts.Zones[0]), kind: cmp.Or(spec.Type, "gp3"),
		gib: cmp.Or(spec.GiB, 1), iops: spec.IOPS, throughput: spec.Throughput, keyID: spec.KMSKeyID, encrypted: spec.KMSKeyID != "", multi: spec.Multi,
		account: HomeAccount, created: c.opts.Now(), tags: maps.Clone(spec.Tags), state: "available",
	}
	if v.kind == "gp3" {
		v.iops, v.throughput = cmp.Or(v.iops, 3000), cmp.Or(v.throughput, 125)
	}
	v.lineage = v.id
	if err := c.addVolume(v, nil); err != nil {
		panic(err)
	}
	if in := c.instances[spec.Instance]; in != nil {
		v.zone = in.zone
		c.attach(v, in.id, "")
	}
	return v.id
}

// addVolume makes the volume's file, with the blocks of a snapshot, and registers it.
func (c *Cloud) addVolume(v *volume, blocks map[int32]digest) error {
	v.path = filepath.Join(c.opts.Dir, "volumes", v.id)
	if v.tags == nil {
		v.tags = map[string]string{}
	}
	if err := c.blocks.restore(v.path, v.gib*gib, blocks); err != nil {
		return err
	}
	c.volumes[v.id] = v
	return nil
}

// removeVolume forgets a volume and its file.
func (c *Cloud) removeVolume(v *volume) {
	delete(c.volumes, v.id)
	_ = os.Remove(v.path) // the folder is the test's, and goes with it
}

// attach uses the next free device name where none is given.
func (c *Cloud) attach(v *volume, instance, device string) {
	if device == "" {
		device = "/dev/xvd" + string(rune('b'+len(c.attachedTo(instance))))
	}
	v.attachments = append(v.attachments, attachment{instance, device, c.opts.Now()})
	v.state = "in-use"
}

// attachedTo are the volumes of an instance, by id.
func (c *Cloud) attachedTo(instance string) (found []*volume) {
	for _, v := range sorted(c.volumes) {
		if slices.ContainsFunc(v.attachments, func(a attachment) bool { return a.instance == instance }) {
			found = append(found, v)
		}
	}
	return found
}

// CreateInstance makes an instance with a root volume of 1 GiB in a zone (empty means the region's first) and gives both ids.
func (c *Cloud) CreateInstance(zone string) (instanceID, rootVolumeID string) {
	c.mu.Lock()
	in := &instance{id: c.id("i"), region: c.opts.Region, zone: cmp.Or(zone, c.opts.Region+c.opts.Zones[0]), rootDevice: "/dev/xvda"}
	c.instances[in.id] = in
	c.mu.Unlock()
	root := c.CreateVolume(VolumeSpec{Zone: in.zone})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attach(c.volumes[root], in.id, in.rootDevice)
	return in.id, root
}

// CreateKey makes a KMS key in the region and account of tests and gives its ARN.
func (c *Cloud) CreateKey() string { return c.CreateKeyIn(c.opts.Region, HomeAccount) }

// CreateKeyIn makes a KMS key in a region of an account, which other accounts may use too.
func (c *Cloud) CreateKeyIn(region, account string, users ...string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	k := &key{region: region, account: account, users: map[string]bool{}, arn: fmt.Sprintf("arn:aws:kms:%s:%s:key/00000000-0000-4000-8000-%012x", region, account, c.nextID)}
	for _, user := range users {
		k.users[user] = true
	}
	c.keys[k.arn] = k
	return k.arn
}

// defaultKey is what encrypts where no key is named: aws/ebs.
func defaultKey(region, account string) string {
	return fmt.Sprintf("arn:aws:kms:%s:%s:key/aws-ebs", region, account)
}

// findKey gives the ARN of a key by ARN, or by id in the account's own; ok is false where there is none in the region that the account may use.
func (c *Cloud) findKey(region, account, id string) (arn string, ok bool) {
	if id == "" || id == "alias/aws/ebs" || id == defaultKey(region, account) {
		return defaultKey(region, account), true
	}
	for arn, k := range c.keys {
		own := k.account == account
		if k.region == region && (arn == id && (own || k.users[account]) || own && strings.HasSuffix(arn, "key/"+id)) {
			return arn, true
		}
	}
	return id, false
}

// VolumeFile is the sparse file that a volume's bytes are in. It panics where there is no such volume.
func (c *Cloud) VolumeFile(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.volumes[id]; v != nil {
		return v.path
	}
	panic("no volume " + id)
}

// Volumes are the ids of all volumes of all regions, root volumes included.
func (c *Cloud) Volumes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.volumes))
}

// Snapshots are the ids of all snapshots of all regions, whatever their state.
func (c *Cloud) Snapshots() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.snapshots))
}

// Tags are those of a volume or snapshot; nil where there is none.
func (c *Cloud) Tags(id string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.volumes[id]; v != nil {
		return maps.Clone(v.tags)
	}
	if s := c.snapshots[id]; s != nil {
		return maps.Clone(s.tags)
	}
	return nil
}

// SnapshotBlocks is how many blocks a snapshot has in itself and its parents.
func (c *Cloud) SnapshotBlocks(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.snapshots[id]; s != nil {
		return len(s.blocks)
	}
	return 0
}

// sorted are the values of a map in the order of its keys.
func sorted[T any](m map[string]T) []T {
	values := make([]T, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[name])
	}
	return values
}

// poll moves a snapshot on as time goes by and as it is looked at.
func (c *Cloud) poll(s *snapshot, now time.Time) {
	switch {
	case s.state != "pending":
	case s.direct && !s.sealed:
		if now.Sub(s.lastWrite) > s.timeout {
			s.state, s.message = "error", "The snapshot was not completed in time."
		}
	case s.polls > 0:
		s.polls--
	case now.Sub(s.started) >= c.opts.SnapshotTime:
		s.state = "completed"
	}
}

// progress is percent done.
func (c *Cloud) progress(s *snapshot) int {
	if s.state == "completed" {
		return 100
	}
	if s.direct && !s.sealed || c.opts.SnapshotPolls == 0 {
		return 0
	}
	return 99 * (c.opts.SnapshotPolls - s.polls) / c.opts.SnapshotPolls
}
