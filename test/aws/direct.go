package aws

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The EBS direct APIs: REST with JSON, blocks as plain bodies ("EBS direct APIs Reference").

// restOperation is an operation that is told by method and path.
type restOperation struct {
	name, method string
	path         *regexp.Regexp
	perform      func(*Cloud, *call) (*answer, *apiError)
}

var directOperations = []restOperation{
	{"StartSnapshot", http.MethodPost, regexp.MustCompile(`^/snapshots$`), (*Cloud).startSnapshot},
	{"CompleteSnapshot", http.MethodPost, regexp.MustCompile(`^/snapshots/completion/([^/]+)$`), (*Cloud).completeSnapshot},
	{"ListSnapshotBlocks", http.MethodGet, regexp.MustCompile(`^/snapshots/([^/]+)/blocks$`), (*Cloud).listSnapshotBlocks},
	{"ListChangedBlocks", http.MethodGet, regexp.MustCompile(`^/snapshots/([^/]+)/changedblocks$`), (*Cloud).listChangedBlocks},
	{"GetSnapshotBlock", http.MethodGet, regexp.MustCompile(`^/snapshots/([^/]+)/blocks/(\d+)$`), (*Cloud).getSnapshotBlock},
	{"PutSnapshotBlock", http.MethodPut, regexp.MustCompile(`^/snapshots/([^/]+)/blocks/(\d+)$`), (*Cloud).putSnapshotBlock},
}

// rest finds and performs the operations of a table.
func rest(operations []restOperation) (find func(*call) bool, perform func(*Cloud, *call) (*answer, *apiError)) {
	find = func(in *call) bool {
		for _, o := range operations {
			if found := o.path.FindStringSubmatch(in.URL.Path); found != nil && o.method == in.Method {
				in.op, in.path, in.perform = o.name, found[1:], o.perform
				return true
			}
		}
		return false
	}
	return find, func(c *Cloud, in *call) (*answer, *apiError) { return in.perform(c, in) }
}

func jsonAnswer(status int, body any) *answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // a shape of ours that JSON cannot hold
	}
	return &answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: text}
}

func refuseJSON(_ *call, e *apiError) *answer {
	body := map[string]string{"Message": e.message}
	if e.reason != "" {
		body["Reason"] = e.reason
	}
	out := jsonAnswer(e.status, body)
	out.header.Set("X-Amzn-Errortype", e.code)
	return out
}

func invalid(reason, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "ValidationException", reason, fmt.Sprintf(format, args...)}
}

func noSnapshot(id string) *apiError {
	return &apiError{http.StatusNotFound, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", fmt.Sprintf("The snapshot '%s' does not exist.", id)}
}

var snapshotID = regexp.MustCompile(`^snap-[0-9a-f]+$`)

// direct finds a snapshot that EBS direct knows. The caller holds the lock.
func (c *Cloud) direct(in *call, id string) (*snapshot, *apiError) {
	if !snapshotID.MatchString(id) {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot ID '%s' is malformed.", id)
	}
	s := c.snapshots[id]
	if s == nil || s.region != in.region || s.account != in.account && !s.shared[in.account] {
		return nil, noSnapshot(id)
	}
	if s.blocksUnseen > 0 {
		s.blocksUnseen--
		return nil, noSnapshot(id)
	}
	return s, nil
}

// readable is direct for what reads: only completed snapshots are there.
func (c *Cloud) readable(in *call, id string) (*snapshot, *apiError) {
	s, refused := c.direct(in, id)
	if refused == nil && s.state != "completed" {
		return nil, noSnapshot(id)
	}
	return s, refused
}

// window are the paging parameters of the lists: from which index on, and how many.
func (c *Cloud) window(in *call) (from, size int64, refused *apiError) {
	q := in.URL.Query()
	var err error
	size = 10_000
	if text := q.Get("maxResults"); text != "" {
		if size, err = strconv.ParseInt(text, 10, 32); err != nil || size < 100 || size > 10_000 {
			return 0, 0, invalid("INVALID_PARAMETER_VALUE", "MaxResults must be between 100 and 10000.")
		}
	}
	if c.opts.PageSize > 0 {
		size = min(size, int64(c.opts.PageSize))
	}
	if token := q.Get("pageToken"); token != "" {
		text, _ := base64.StdEncoding.DecodeString(token) // what is no base64 has no prefix either
		at, ok := strings.CutPrefix(string(text), pagePrefix(in))
		if from, err = strconv.ParseInt(at, 10, 64); err != nil || !ok {
			return 0, 0, invalid("INVALID_PAGE_TOKEN", "The page token is invalid.")
		}
		return from, size, nil
	}
	if text := q.Get("startingBlockIndex"); text != "" {
		if from, err = strconv.ParseInt(text, 10, 32); err != nil || from < 0 {
			return 0, 0, invalid("INVALID_PARAMETER_VALUE", "StartingBlockIndex must not be negative.")
		}
	}
	return from, size, nil
}

func pagePrefix(in *call) string {
	return fmt.Sprintf("page:%s:%s:", strings.Join(in.path, ":"), in.URL.Query().Get("firstSnapshotId"))
}

func nextPage(in *call, from int32) string {
	return base64.StdEncoding.EncodeToString(fmt.Append(nil, pagePrefix(in), from))
}

// blockToken is what a block is read with until it expires. The time in it is when.
func blockToken(s *snapshot, index int32, expiry time.Time) string {
	body := fmt.Sprintf("%s:%d:%d", s.id, index, expiry.UnixMilli())
	sum := sha256.Sum256([]byte("block token:" + body))
	return base64.StdEncoding.EncodeToString(append(sum[:8:8], body...))
}

func checkBlockToken(s *snapshot, index int64, token string, now time.Time) *apiError {
	text, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(text) < 8 {
		return invalid("INVALID_BLOCK_TOKEN", "The block token is invalid.")
	}
	body := string(text[8:])
	sum := sha256.Sum256([]byte("block token:" + body))
	expiry, err := strconv.ParseInt(body[strings.LastIndexByte(body, ':')+1:], 10, 64)
	if err != nil || string(sum[:8]) != string(text[:8]) || !strings.HasPrefix(body, fmt.Sprintf("%s:%d:", s.id, index)) {
		return invalid("INVALID_BLOCK_TOKEN", "The block token is not for this block.")
	}
	if now.UnixMilli() > expiry {
		return invalid("INVALID_BLOCK_TOKEN", "The block token has expired.")
	}
	return nil
}

type listed struct {
	BlockIndex       int32
	BlockToken       string `json:",omitempty"`
	FirstBlockToken  string `json:",omitempty"`
	SecondBlockToken string `json:",omitempty"`
}

type blockList struct {
	Blocks        []listed `json:",omitempty"`
	ChangedBlocks []listed `json:",omitempty"`
	ExpiryTime    float64
	VolumeSize    int64
	BlockSize     int64
	NextToken     string `json:",omitempty"`
}

func (c *Cloud) newList(s *snapshot, now time.Time) (blockList, time.Time) {
	expiry := now.Add(c.opts.TokenTime)
	return blockList{ExpiryTime: float64(expiry.UnixMilli()) / 1000, VolumeSize: s.gib, BlockSize: blockSize}, expiry
}

func (c *Cloud) listSnapshotBlocks(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, size, refused := c.window(in)
	if refused != nil {
		return nil, refused
	}
	s, refused := c.readable(in, in.path[0])
	if refused != nil {
		return nil, refused
	}
	out, expiry := c.newList(s, in.now)
	for _, index := range slices.Sorted(maps.Keys(s.blocks)) {
		if int64(index) < from {
			continue
		}
		if int64(len(out.Blocks)) == size {
			out.NextToken = nextPage(in, index)
			break
		}
		out.Blocks = append(out.Blocks, listed{BlockIndex: index, BlockToken: blockToken(s, index, expiry)})
	}
	return jsonAnswer(http.StatusOK, out), nil
}

func (c *Cloud) listChangedBlocks(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, size, refused := c.window(in)
	if refused != nil {
		return nil, refused
	}
	second, refused := c.readable(in, in.path[0])
	if refused != nil {
		return nil, refused
	}
	firstID := in.URL.Query().Get("firstSnapshotId")
	if firstID == "" {
		return nil, invalid("INVALID_SNAPSHOT_ID", "FirstSnapshotId must be specified.")
	}
	first, refused := c.readable(in, firstID)
	if refused != nil {
		return nil, refused
	}
	if first.lineage != second.lineage {
		return nil, invalid("UNRELATED_SNAPSHOTS", "The snapshots '%s' and '%s' are not related.", first.id, second.id)
	}
	if first.gib != second.gib {
		return nil, invalid("INVALID_PARAMETER_VALUE", "The snapshots '%s' and '%s' are of volumes of different sizes.", first.id, second.id)
	}
	all := maps.Clone(first.blocks)
	maps.Copy(all, second.blocks)
	out, expiry := c.newList(second, in.now)
	// A page covers so many written blocks and lists those that changed among them, so it can be empty though others follow.
	covered := int64(0)
	for _, index := range slices.Sorted(maps.Keys(all)) {
		if int64(index) < from {
			continue
		}
		if covered == size {
			out.NextToken = nextPage(in, index)
			break
		}
		covered++
		before, inFirst := first.blocks[index]
		after, inSecond := second.blocks[index]
		if inFirst && inSecond && before == after {
			continue
		}
		changed := listed{BlockIndex: index}
		if inFirst {
			changed.FirstBlockToken = blockToken(first, index, expiry)
		}
		if inSecond {
			changed.SecondBlockToken = blockToken(second, index, expiry)
		}
		out.ChangedBlocks = append(out.ChangedBlocks, changed)
	}
	return jsonAnswer(http.StatusOK, out), nil
}

func (c *Cloud) getSnapshotBlock(in *call) (*answer, *apiError) {
	index, err := strconv.ParseInt(in.path[1], 10, 32)
	if err != nil {
		return nil, invalid("INVALID_BLOCK", "The block index is invalid.")
	}
	c.mu.Lock()
	s, refused := c.readable(in, in.path[0])
	var sum digest
	if refused == nil {
		var ok bool
		if sum, ok = s.blocks[int32(index)]; !ok {
			refused = invalid("INVALID_BLOCK", "The snapshot has no block %d.", index)
		} else {
			refused = checkBlockToken(s, index, in.URL.Query().Get("blockToken"), in.now)
		}
	}
	if refused == nil {
		c.traffic.read += blockSize
	}
	c.mu.Unlock()
	if refused != nil {
		return nil, refused
	}
	data, err := c.blocks.get(sum)
	if err != nil {
		return nil, &apiError{500, "InternalServerException", "", err.Error()}
	}
	return &answer{status: http.StatusOK, body: data, header: http.Header{
		"Content-Type": {"application/octet-stream"}, "X-Amz-Data-Length": {strconv.Itoa(blockSize)},
		"X-Amz-Checksum": {base64.StdEncoding.EncodeToString(sum[:])}, "X-Amz-Checksum-Algorithm": {"SHA256"},
	}}, nil
}
