package aws

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// startRequest is the body of StartSnapshot.
type startRequest struct {
	VolumeSize       int64
	ClientToken      string
	Description      string
	Encrypted        *bool
	KmsKeyArn        string
	ParentSnapshotID string `json:"ParentSnapshotId"`
	Tags             []struct{ Key, Value string }
	Timeout          *int64 // minutes
}

func (c *Cloud) startSnapshot(in *call) (*answer, *apiError) {
	var req startRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return nil, invalid("INVALID_PARAMETER_VALUE", "The body is no JSON.")
	}
	tags := map[string]string{}
	for _, tag := range req.Tags {
		tags[tag.Key] = tag.Value
	}
	timeout := int64(60)
	if req.Timeout != nil {
		timeout = *req.Timeout
	}
	switch {
	case req.VolumeSize < 1 || req.VolumeSize > 65536:
		return nil, invalid("INVALID_VOLUME_SIZE", "The volume size must be 1 to 65536 GiB.")
	case len(req.ClientToken) > 64:
		return nil, invalid("INVALID_PARAMETER_VALUE", "The client token is too long.")
	case timeout < 10 || timeout > 4320:
		return nil, invalid("INVALID_PARAMETER_VALUE", "The timeout must be 10 to 4320 minutes.")
	case checkTags(tags) != nil:
		return nil, invalid("INVALID_TAG", "%s", checkTags(tags).message)
	case req.ParentSnapshotID != "" && req.Encrypted != nil:
		return nil, invalid("INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId cannot be specified together.")
	case req.KmsKeyArn != "" && (req.Encrypted == nil || !*req.Encrypted) && req.ParentSnapshotID == "":
		return nil, invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn requires Encrypted.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tokenKey, fingerprint := in.account+"/"+in.region+"/"+req.ClientToken, string(in.body)
	if before := c.started[tokenKey]; req.ClientToken != "" && before != nil {
		if before.fingerprint != fingerprint {
			return nil, &apiError{http.StatusConflict, "ConflictException", "", "The client token was used before with other parameters."}
		}
		if s := c.snapshots[before.id]; s != nil {
			return c.showStarted(s), nil
		}
		return nil, noSnapshot(before.id)
	}
	if refused := c.snapshotQuota(in, 1); refused != nil {
		return nil, &apiError{http.StatusPaymentRequired, "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", refused.message}
	}
	s, refused := c.newSnapshot(in, req)
	if refused != nil {
		return nil, refused
	}
	s.tags, s.timeout = tags, time.Duration(timeout)*time.Minute
	if req.ClientToken != "" {
		c.started[tokenKey] = &creation{fingerprint, s.id}
	}
	return c.showStarted(s), nil
}

// newSnapshot makes the pending snapshot that blocks are put into.
func (c *Cloud) newSnapshot(in *call, req startRequest) (*snapshot, *apiError) {
	s := &snapshot{
		region: in.region, account: in.account, volumeID: "vol-ffffffff", description: req.Description, state: "pending", gib: req.VolumeSize, started: in.now, lastWrite: in.now,
		direct: true, parent: req.ParentSnapshotID, blocks: map[int32]digest{}, written: map[int32]bool{},
		polls: c.opts.SnapshotPolls, unseen: c.opts.DescribeLag, blocksUnseen: c.opts.BlocksLag,
	}
	if req.ParentSnapshotID != "" {
		parent, refused := c.readable(in, req.ParentSnapshotID)
		if refused != nil {
			return nil, refused
		}
		if parent.gib > s.gib {
			return nil, invalid("INVALID_VOLUME_SIZE", "The volume is smaller than that of the parent snapshot.")
		}
		s.blocks, s.encrypted, s.keyID, s.lineage = maps.Clone(parent.blocks), parent.encrypted, parent.keyID, parent.lineage
	}
	if req.Encrypted != nil && *req.Encrypted {
		arn, ok := c.findKey(in.region, in.account, req.KmsKeyArn)
		if !ok {
			return nil, invalid("INVALID_CUSTOMER_KEY", "The KMS key '%s' cannot be used.", arn)
		}
		s.encrypted, s.keyID = true, arn
	}
	s.id = c.id("snap")
	if s.lineage == "" {
		s.lineage = s.id
	}
	c.snapshots[s.id] = s
	return s, nil
}

func (c *Cloud) showStarted(s *snapshot) *answer {
	type tag struct{ Key, Value string }
	out := struct {
		SnapshotID       string `json:"SnapshotId"`
		OwnerID          string `json:"OwnerId"`
		Status           string
		StartTime        float64
		VolumeSize       int64
		BlockSize        int64
		Description      string `json:",omitempty"`
		ParentSnapshotID string `json:"ParentSnapshotId,omitempty"`
		KmsKeyArn        string `json:",omitempty"`
		Tags             []tag
	}{s.id, s.account, s.state, float64(s.started.UnixMilli()) / 1000, s.gib, blockSize, s.description, s.parent, s.keyID, nil}
	for _, name := range slices.Sorted(maps.Keys(s.tags)) {
		out.Tags = append(out.Tags, tag{name, s.tags[name]})
	}
	return jsonAnswer(http.StatusCreated, out)
}

// writable finds a snapshot that blocks can be put into.
func (c *Cloud) writable(in *call, id string) (*snapshot, *apiError) {
	s, refused := c.direct(in, id)
	if refused != nil {
		return nil, refused
	}
	if s.account != in.account {
		return nil, &apiError{http.StatusForbidden, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT", "The snapshot is another account's."}
	}
	if s.direct && !s.sealed && in.now.Sub(s.lastWrite) > s.timeout {
		s.state, s.message = "error", "The snapshot was not completed in time."
	}
	if !s.direct || s.sealed || s.state != "pending" {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot '%s' is not in a state to be written.", id)
	}
	return s, nil
}

func (c *Cloud) putSnapshotBlock(in *call) (*answer, *apiError) {
	index, err := strconv.ParseInt(in.path[1], 10, 32)
	if err != nil {
		return nil, invalid("INVALID_BLOCK", "The block index is invalid.")
	}
	sum := sha256.Sum256(in.body)
	switch {
	case in.Header.Get("X-Amz-Data-Length") != strconv.Itoa(blockSize):
		return nil, invalid("INVALID_PARAMETER_VALUE", "The data length must be %d.", blockSize)
	case in.Header.Get("X-Amz-Checksum-Algorithm") != "SHA256":
		return nil, invalid("INVALID_PARAMETER_VALUE", "The checksum algorithm must be SHA256.")
	case len(in.body) != blockSize:
		return nil, invalid("INVALID_PARAMETER_VALUE", "Failed to read block data")
	case in.Header.Get("X-Amz-Checksum") != base64.StdEncoding.EncodeToString(sum[:]):
		return nil, invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the block data.")
	}
	c.mu.Lock()
	s, refused := c.writable(in, in.path[0])
	if refused == nil && index >= s.gib*gib/blockSize {
		refused = invalid("INVALID_BLOCK", "The block index is beyond the end of the volume.")
	}
	c.mu.Unlock()
	if refused != nil {
		return nil, refused
	}
	if err := c.blocks.put(sum, in.body); err != nil {
		return nil, &apiError{500, "InternalServerException", "", err.Error()}
	}
	c.mu.Lock()
	s.blocks[int32(index)], s.written[int32(index)], s.lastWrite = sum, true, in.now
	c.traffic.written += blockSize
	c.mu.Unlock()
	out := jsonAnswer(http.StatusCreated, struct{}{})
	out.header.Set("X-Amz-Checksum", base64.StdEncoding.EncodeToString(sum[:]))
	out.header.Set("X-Amz-Checksum-Algorithm", "SHA256")
	return out, nil
}

func (c *Cloud) completeSnapshot(in *call) (*answer, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, refused := c.writable(in, in.path[0])
	if refused != nil {
		return nil, refused
	}
	count, err := strconv.Atoi(in.Header.Get("X-Amz-Changedblockscount"))
	if err != nil || count != len(s.written) {
		return nil, invalid("INVALID_PARAMETER_VALUE", "The changed blocks count %s is not the number of blocks written.", fmt.Sprintf("%q", in.Header.Get("X-Amz-Changedblockscount")))
	}
	if want := in.Header.Get("X-Amz-Checksum"); want != "" && want != linear(s) {
		return nil, invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the blocks written.")
	}
	s.sealed, s.started, s.blocksUnseen = true, in.now, c.opts.BlocksLag
	if c.opts.SnapshotPolls == 0 && c.opts.SnapshotTime == 0 {
		s.state = "completed"
	}
	return jsonAnswer(http.StatusAccepted, map[string]string{"Status": s.state}), nil
}

// linear is the checksum over the checksums of the blocks written, in ascending order of their indexes.
func linear(s *snapshot) string {
	h := sha256.New()
	for _, index := range slices.Sorted(maps.Keys(s.written)) {
		sum := s.blocks[index]
		h.Write(sum[:]) // never fails
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
