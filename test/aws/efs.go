package aws

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Elastic File System: REST with JSON ("Amazon EFS API Reference").

// fileSystem is an EFS file system; a test may use its folder as what a mount shows.
type fileSystem struct {
	id, region, account, dir string
	created                  time.Time
	tags                     map[string]string
	targets                  []mountTarget
}

type mountTarget struct{ id, zone, address string }

type accessPoint struct {
	id, fileSystem, token, state string
	user                         *posixUser
	root                         rootDirectory
	tags                         map[string]string
	fingerprint                  string
	polls                        int
}

type posixUser struct {
	UID           int64   `json:"Uid"`
	GID           int64   `json:"Gid"`
	SecondaryGIDs []int64 `json:"SecondaryGids,omitempty"`
}

type rootDirectory struct {
	Path         string
	CreationInfo *struct {
		OwnerUID    int64 `json:"OwnerUid"`
		OwnerGID    int64 `json:"OwnerGid"`
		Permissions string
	} `json:",omitempty"`
}

// CreateFileSystem makes a file system with a mount target in every zone of the region of tests. It panics where its folder cannot be made.
func (c *Cloud) CreateFileSystem(tags map[string]string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	fs := &fileSystem{id: c.id("fs"), region: c.opts.Region, account: HomeAccount, created: c.opts.Now(), tags: maps.Clone(tags)}
	fs.dir = filepath.Join(c.opts.Dir, "efs", fs.id)
	if err := os.MkdirAll(fs.dir, 0o700); err != nil {
		panic(err)
	}
	for i, letter := range c.opts.Zones {
		fs.targets = append(fs.targets, mountTarget{c.id("fsmt"), fs.region + letter, fmt.Sprintf("10.0.%d.10", i)})
	}
	c.fileSystems[fs.id] = fs
	return fs.id
}

// FileSystemDir is the folder that a file system's files are in. It panics where there is no such file system.
func (c *Cloud) FileSystemDir(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fs := c.fileSystems[id]; fs != nil {
		return fs.dir
	}
	panic("no file system " + id)
}

// AccessPoints are the ids of all access points of all file systems.
func (c *Cloud) AccessPoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.accessPoints))
}

var fileOperations = []restOperation{
	{"CreateAccessPoint", http.MethodPost, regexp.MustCompile(`^/2015-02-01/access-points$`), (*Cloud).createAccessPoint},
	{"DescribeAccessPoints", http.MethodGet, regexp.MustCompile(`^/2015-02-01/access-points$`), (*Cloud).describeAccessPoints},
	{"DeleteAccessPoint", http.MethodDelete, regexp.MustCompile(`^/2015-02-01/access-points/([^/]+)$`), (*Cloud).deleteAccessPoint},
	{"DescribeFileSystems", http.MethodGet, regexp.MustCompile(`^/2015-02-01/file-systems$`), (*Cloud).describeFileSystems},
	{"DescribeMountTargets", http.MethodGet, regexp.MustCompile(`^/2015-02-01/mount-targets$`), (*Cloud).describeMountTargets},
}

// refuseFiles says the code in the body too.
func refuseFiles(_ *call, e *apiError) *answer {
	body := map[string]string{"ErrorCode": e.code, "Message": e.message}
	if e.code == "AccessPointAlreadyExists" {
		body["AccessPointId"] = e.reason
	}
	out := jsonAnswer(e.status, body)
	out.header.Set("X-Amzn-Errortype", e.code)
	return out
}

func noFile(code, id string) *apiError {
	return &apiError{http.StatusNotFound, code, "", fmt.Sprintf("'%s' does not exist.", id)}
}

// fileSystem finds one of the caller's file systems by id.
func (c *Cloud) fileSystem(in *call, id string) (*fileSystem, *apiError) {
	if fs := c.fileSystems[id]; fs != nil && fs.region == in.region && fs.account == in.account {
		return fs, nil
	}
	return nil, noFile("FileSystemNotFound", id)
}

func (c *Cloud) accessPoint(in *call, id string) (*accessPoint, *apiError) {
	if ap := c.accessPoints[id]; ap != nil {
		if _, refused := c.fileSystem(in, ap.fileSystem); refused == nil {
			return ap, nil
		}
	}
	return nil, noFile("AccessPointNotFound", id)
}

type accessPointRequest struct {
	ClientToken   string
	FileSystemID  string `json:"FileSystemId"`
	PosixUser     *posixUser
	RootDirectory *rootDirectory
	Tags          []xmlTag
}

var permissions = regexp.MustCompile(`^[0-7]{3,4}$`)

// check refuses what CreateAccessPoint refuses.
func (r *accessPointRequest) check() *apiError {
	bad := func(text string) *apiError { return refuse("BadRequest", "%s", text) }
	switch u, root := r.PosixUser, r.RootDirectory; {
	case r.ClientToken == "" || len(r.ClientToken) > 64:
		return bad("A client token has 1 to 64 characters.")
	case u != nil && (u.UID < 0 || u.UID > 1<<32-1 || u.GID < 0 || u.GID > 1<<32-1 || len(u.SecondaryGIDs) > 16):
		return bad("The POSIX user is invalid.")
	case root != nil && (!strings.HasPrefix(root.Path, "/") || len(root.Path) > 100 || strings.Count(strings.TrimRight(root.Path, "/"), "/") > 4):
		return bad("The path must begin with a slash and have at most 100 characters and four folders.")
	case root != nil && root.CreationInfo != nil && !permissions.MatchString(root.CreationInfo.Permissions):
		return bad("Permissions must be three or four octal digits.")
	}
	return nil
}

func (c *Cloud) createAccessPoint(in *call) (*answer, *apiError) {
	var req accessPointRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return nil, refuse("BadRequest", "The body is no JSON.")
	}
	if refused := req.check(); refused != nil {
		return nil, refused
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, refused := c.fileSystem(in, req.FileSystemID); refused != nil {
		return nil, refused
	}
	points := 0
	for _, ap := range c.accessPoints {
		if ap.fileSystem != req.FileSystemID {
			continue
		}
		points++
		if ap.token == req.ClientToken && ap.fingerprint == string(in.body) {
			return jsonAnswer(http.StatusOK, showAccessPoint(ap)), nil
		}
		if ap.token == req.ClientToken {
			return nil, &apiError{http.StatusConflict, "AccessPointAlreadyExists", ap.id, "An access point with this client token exists already."}
		}
	}
	if c.opts.MaxAccessPoints > 0 && points >= c.opts.MaxAccessPoints {
		return nil, &apiError{http.StatusForbidden, "AccessPointLimitExceeded", "", "The file system has as many access points as it can have."}
	}
	ap := &accessPoint{
		id: c.id("fsap"), fileSystem: req.FileSystemID, token: req.ClientToken, state: "creating", user: req.PosixUser, root: rootDirectory{Path: "/"},
		tags: map[string]string{}, fingerprint: string(in.body), polls: c.opts.VolumePolls,
	}
	if req.RootDirectory != nil {
		ap.root = *req.RootDirectory
	}
	for _, tag := range req.Tags {
		ap.tags[tag.Key] = tag.Value
	}
	if refused := checkTags(ap.tags); refused != nil {
		return nil, refuse("BadRequest", "%s", refused.message)
	}
	c.accessPoints[ap.id] = ap
	return jsonAnswer(http.StatusOK, showAccessPoint(ap)), nil
}

func showAccessPoint(ap *accessPoint) map[string]any {
	out := map[string]any{
		"AccessPointId": ap.id, "FileSystemId": ap.fileSystem, "ClientToken": ap.token, "LifeCycleState": ap.state, "RootDirectory": ap.root, "Tags": jsonTags(ap.tags), "OwnerId": HomeAccount,
		"AccessPointArn": "arn:aws:elasticfilesystem:::access-point/" + ap.id,
	}
	if ap.user != nil {
		out["PosixUser"] = ap.user
	}
	return out
}

func jsonTags(tags map[string]string) []map[string]string {
	list := []map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, map[string]string{"Key": name, "Value": tags[name]})
	}
	return list
}

func (c *Cloud) describeAccessPoints(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, fsID := in.URL.Query().Get("AccessPointId"), in.URL.Query().Get("FileSystemId")
	if id != "" && fsID != "" {
		return nil, refuse("BadRequest", "Only one of AccessPointId and FileSystemId can be given.")
	}
	if id != "" {
		if _, refused := c.accessPoint(in, id); refused != nil {
			return nil, refused
		}
	}
	if fsID != "" {
		if _, refused := c.fileSystem(in, fsID); refused != nil {
			return nil, refused
		}
	}
	var found []*accessPoint
	for _, ap := range sorted(c.accessPoints) {
		if _, refused := c.accessPoint(in, ap.id); refused == nil && (id == "" || id == ap.id) && (fsID == "" || fsID == ap.fileSystem) {
			found = append(found, ap)
		}
	}
	items, next, refused := restPage(c, in, "MaxResults", "NextToken", found, func(ap *accessPoint) string { return ap.id })
	if refused != nil {
		return nil, refused
	}
	out := map[string]any{"AccessPoints": []any{}}
	shown := []any{}
	for _, ap := range items {
		if ap.polls > 0 {
			ap.polls--
		} else {
			ap.state = "available"
		}
		shown = append(shown, showAccessPoint(ap))
	}
	out["AccessPoints"] = shown
	if next != "" {
		out["NextToken"] = next
	}
	return jsonAnswer(http.StatusOK, out), nil
}

// restPage cuts a list into pages whose token is the last id shown.
func restPage[T any](c *Cloud, in *call, sizeName, tokenName string, all []T, id func(T) string) (items []T, next string, refused *apiError) {
	q := in.URL.Query()
	size := 100
	if text := q.Get(sizeName); text != "" {
		var err error
		if size, err = strconv.Atoi(text); err != nil || size < 1 {
			return nil, "", refuse("BadRequest", "%s must be a positive number.", sizeName)
		}
	}
	if c.opts.PageSize > 0 {
		size = min(size, c.opts.PageSize)
	}
	if token := q.Get(tokenName); token != "" {
		after, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return nil, "", refuse("BadRequest", "The token is not valid.")
		}
		all = slices.DeleteFunc(slices.Clone(all), func(item T) bool { return id(item) <= string(after) })
	}
	if len(all) > size {
		all = all[:size]
		next = base64.StdEncoding.EncodeToString([]byte(id(all[size-1])))
	}
	return all, next, nil
}

func (c *Cloud) deleteAccessPoint(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ap, refused := c.accessPoint(in, in.path[0])
	if refused != nil {
		return nil, refused
	}
	delete(c.accessPoints, ap.id)
	return &answer{status: http.StatusNoContent}, nil
}

func (c *Cloud) describeFileSystems(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := in.URL.Query().Get("FileSystemId")
	if id != "" {
		if _, refused := c.fileSystem(in, id); refused != nil {
			return nil, refused
		}
	}
	var found []*fileSystem
	for _, fs := range sorted(c.fileSystems) {
		if _, refused := c.fileSystem(in, fs.id); refused == nil && (id == "" || id == fs.id) {
			found = append(found, fs)
		}
	}
	items, next, refused := restPage(c, in, "MaxItems", "Marker", found, func(fs *fileSystem) string { return fs.id })
	if refused != nil {
		return nil, refused
	}
	shown := []any{}
	for _, fs := range items {
		shown = append(shown, map[string]any{
			"FileSystemId": fs.id, "OwnerId": fs.account, "CreationToken": fs.id, "CreationTime": float64(fs.created.UnixMilli()) / 1000, "LifeCycleState": "available",
			"NumberOfMountTargets": len(fs.targets), "PerformanceMode": "generalPurpose", "ThroughputMode": "elastic", "Encrypted": true, "Tags": jsonTags(fs.tags),
			"SizeInBytes": map[string]any{"Value": 6144}, "Name": cmp.Or(fs.tags["Name"], ""),
			"FileSystemArn": fmt.Sprintf("arn:aws:elasticfilesystem:%s:%s:file-system/%s", fs.region, fs.account, fs.id),
		})
	}
	out := map[string]any{"FileSystems": shown}
	if next != "" {
		out["NextMarker"] = next
	}
	return jsonAnswer(http.StatusOK, out), nil
}

func (c *Cloud) describeMountTargets(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := in.URL.Query()
	id, targetID := q.Get("FileSystemId"), q.Get("MountTargetId")
	if ap := q.Get("AccessPointId"); ap != "" {
		point, refused := c.accessPoint(in, ap)
		if refused != nil {
			return nil, refused
		}
		id = point.fileSystem
	}
	shown := []any{}
	for _, fs := range sorted(c.fileSystems) {
		if _, refused := c.fileSystem(in, fs.id); refused != nil || id != "" && fs.id != id {
			continue
		}
		for _, target := range fs.targets {
			if targetID == "" && id != "" || target.id == targetID {
				shown = append(shown, map[string]any{
					"MountTargetId": target.id, "FileSystemId": fs.id, "OwnerId": fs.account, "SubnetId": "subnet-" + target.zone, "LifeCycleState": "available",
					"IpAddress": target.address, "AvailabilityZoneName": target.zone,
				})
			}
		}
	}
	switch {
	case id == "" && targetID == "":
		return nil, refuse("BadRequest", "One of FileSystemId, MountTargetId and AccessPointId must be given.")
	case id != "" && c.fileSystems[id] == nil:
		return nil, noFile("FileSystemNotFound", id)
	case len(shown) == 0:
		return nil, noFile("MountTargetNotFound", targetID)
	}
	return jsonAnswer(http.StatusOK, map[string]any{"MountTargets": shown}), nil
}
