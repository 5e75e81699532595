// Package aws is Kedge's own double of the AWS control plane: an HTTP server that speaks the wire protocols of the real SDK clients for EBS
// volumes and snapshots (EC2), for the snapshots' blocks (EBS direct APIs), and for what Kedge needs of EFS, STS and KMS. Volumes are sparse files, so a test
// can put a file system on one and compare every byte after a restore. What it keeps of AWS's rules, and what it assumes, is in README.md.
package aws

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// HomeAccount is whose credentials Cloud.Credentials are.
const HomeAccount = "111122223333"

// Options say what kind of AWS it is. The zero value is a quick and friendly one.
type Options struct {
	// Dir is where the volumes' files and the snapshots' blocks are. It must exist; the Cloud does not remove it.
	Dir string
	// Region is the one of resources that tests make; others exist too, each with its own resources. Empty means eu-west-1.
	Region string
	// Home are the home account's credentials, where others are in use already. Empty for made up ones.
	Home Credentials
	// Zones are the letters of each region's availability zones. Empty means a, b, c.
	Zones []string
	// Now is the clock of all times, delays, expiries and rates; nil means time.Now.
	Now func() time.Time

	// SnapshotPolls is how many times DescribeSnapshots shows a snapshot as pending before it is completed, and SnapshotTime how long
	// it is pending at least.
	SnapshotPolls int
	SnapshotTime  time.Duration
	// VolumePolls is how many times DescribeVolumes shows a volume as creating before it is available.
	VolumePolls int
	// DescribeLag is how many times a new snapshot or volume is left out of an answer before it is seen ("eventual consistency" of EC2).
	DescribeLag int
	// BlocksLag is how many calls of EBS direct do not know a snapshot yet after it was started, and again after it was completed.
	BlocksLag int
	// TokenTime is how long block tokens are valid. Zero means seven days.
	TokenTime time.Duration
	// PageSize bounds what one page of a list holds, whatever is asked for. Zero means the services' own limits.
	PageSize int

	// Quotas; zero means none.
	MaxVolumes          int // per region: VolumeLimitExceeded
	MaxSnapshots        int // per region: SnapshotLimitExceeded
	MaxPendingSnapshots int // per region: ConcurrentSnapshotLimitExceeded, and ServiceQuotaExceededException of StartSnapshot
	MaxPendingCopies    int // per region that copies go to: ResourceLimitExceeded; zero means AWS's own, 20
	MaxAccessPoints     int // per file system: AccessPointLimitExceeded
	// Rates are token buckets by operation ("GetSnapshotBlock"); an operation without one is not throttled.
	Rates map[string]Rate
}

// Rate is a token bucket: so many calls at once, refilled by so many a second.
type Rate struct {
	Burst     int
	PerSecond float64
}

// Cloud is one AWS with its accounts, regions and resources. Its methods may be called from many goroutines.
type Cloud struct {
	// Endpoint is the URL of every service of every region: the signature of a request says which are meant.
	Endpoint string

	opts   Options
	server *http.Server
	blocks *blockStore

	mu        sync.Mutex
	nextID    uint64
	accounts  map[string]string // account by access key id
	volumes   map[string]*volume
	snapshots map[string]*snapshot
	instances map[string]*instance
	keys      map[string]*key   // by ARN
	roles     map[string]string // external IDs by ARN
	created   map[string]*creation
	started   map[string]*creation
	traffic   traffic

	fileSystems  map[string]*fileSystem
	accessPoints map[string]*accessPoint
}

// creation is what a client token stands for.
type creation struct{ fingerprint, id string }

// Credentials are a static access key.
type Credentials struct{ AccessKeyID, SecretAccessKey string }

// Start begins to serve on a loopback address until Close.
func Start(opts Options) (*Cloud, error) {
	opts.Region = cmp.Or(opts.Region, "eu-west-1")
	opts.TokenTime = cmp.Or(opts.TokenTime, 7*24*time.Hour)
	if len(opts.Zones) == 0 {
		opts.Zones = []string{"a", "b", "c"}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Join(opts.Dir, "volumes"), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the volumes: %w", err)
	}
	blocks, err := openBlocks(filepath.Join(opts.Dir, "blocks"))
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	c := &Cloud{
		Endpoint: "http://" + listener.Addr().String(), opts: opts, blocks: blocks,
		accounts: map[string]string{}, volumes: map[string]*volume{}, snapshots: map[string]*snapshot{}, instances: map[string]*instance{},
		keys: map[string]*key{}, created: map[string]*creation{}, started: map[string]*creation{},
		roles: map[string]string{}, fileSystems: map[string]*fileSystem{}, accessPoints: map[string]*accessPoint{},
		traffic: traffic{calls: map[string]int64{}, buckets: map[string]*bucket{}},
	}
	c.Account(HomeAccount)
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	go func() { _ = c.server.Serve(listener) }() // ends with Close
	return c, nil
}

// Close stops the server and closes its files.
func (c *Cloud) Close() error {
	err := c.server.Close()
	if blocksErr := c.blocks.close(); err == nil {
		err = blocksErr
	}
	return err
}

// Region is where resources are that tests make.
func (c *Cloud) Region() string { return c.opts.Region }

// Credentials are those of the home account.
func (c *Cloud) Credentials() Credentials { return c.Account(HomeAccount) }

// Account gives credentials of an account, which exists from then on.
func (c *Cloud) Account(id string) Credentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	creds := Credentials{AccessKeyID: "AKIA" + id, SecretAccessKey: "secret-of-" + id}
	if id == HomeAccount && c.opts.Home != (Credentials{}) {
		creds = c.opts.Home
	}
	c.accounts[creds.AccessKeyID] = id
	return creds
}

// Environment is what a program needs in its environment to use this AWS instead of Amazon's.
func (c *Cloud) Environment() map[string]string { return c.EnvironmentOf(HomeAccount, c.opts.Region) }

// EnvironmentOf is what a program needs that works in a region with an account's credentials.
func (c *Cloud) EnvironmentOf(account, region string) map[string]string {
	creds := c.Account(account)
	return map[string]string{
		"AWS_ENDPOINT_URL": c.Endpoint, "AWS_REGION": region,
		"AWS_ACCESS_KEY_ID": creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY": creds.SecretAccessKey,
		"AWS_EC2_METADATA_DISABLED": "true",
	}
}

// id makes the next resource id of a kind: "vol-00000000000000001". The caller holds the lock.
func (c *Cloud) id(kind string) string {
	c.nextID++
	return fmt.Sprintf("%s-%017x", kind, c.nextID)
}

// hasZone says whether a zone exists in a region.
func (c *Cloud) hasZone(region, zone string) bool {
	for _, letter := range c.opts.Zones {
		if zone == region+letter {
			return true
		}
	}
	return false
}
