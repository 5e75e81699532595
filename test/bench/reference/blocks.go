package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"
)

const (
	blockBytes = 512 << 10
	partBlocks = 16 // 8 MiB
)

// blockCopy reads the blocks of a snapshot and PUTs them as they are. EBS is found by the SDK's own chain, S3 by a profile of it.
type blockCopy struct {
	ebs              *ebs.Client
	s3               *s3.Client
	snapshot, bucket string
	most             int
}

// blocks copies a snapshot with each number of connections.
func blocks(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("blocks", flag.ContinueOnError)
	snapshot := flags.String("snapshot", "", "id of the snapshot to read")
	bucket := flags.String("bucket", "", "bucket to write to")
	endpoint := flags.String("endpoint", "", "URL of the S3 server")
	credentials := flags.String("credentials", "", "shared credentials file of the S3 server")
	region := flags.String("region", "", "region of the S3 server")
	most := flags.Int("most", 1024, "number of blocks to copy at the most")
	connections := flags.String("connections", "1,2,4,8,16,32", "numbers of connections to try")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conns, err := numbers(*connections)
	if err != nil {
		return err
	}
	var best string
	var bestRate float64
	for _, n := range conns {
		c := &blockCopy{snapshot: *snapshot, bucket: *bucket, most: *most}
		if err := c.connect(ctx, n, *endpoint, *credentials, *region); err != nil {
			return err
		}
		start := time.Now()
		read, err := c.all(ctx, n)
		if err != nil {
			return err
		}
		seconds := time.Since(start).Seconds()
		rate := float64(read) / (1 << 20) / seconds
		line := fmt.Sprintf("bytes=%d seconds=%.3f rate=%.1f connections=%d", read, seconds, rate, n)
		fmt.Fprintln(out, line)
		if rate > bestRate {
			best, bestRate = line, rate
		}
	}
	fmt.Fprintln(out, "best", best)
	return nil
}

func (c *blockCopy) connect(ctx context.Context, connections int, endpoint, credentials, region string) error {
	from, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	from.HTTPClient = pool(connections) // not as an option: with $AWS_CA_BUNDLE set that is refused
	c.ebs = ebs.NewFromConfig(from)
	to, err := config.LoadSharedConfigProfile(ctx, config.DefaultSharedConfigProfile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{credentials}, []string{}
	})
	if err != nil {
		return err
	}
	c.s3 = s3.New(s3.Options{
		BaseEndpoint: &endpoint, Region: region, UsePathStyle: true, HTTPClient: pool(connections),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return to.Credentials, nil }),
	})
	return nil
}

func pool(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}}
}

// all copies every block, and gives the bytes that were read. Each of so many workers reads a part's blocks and PUTs them.
func (c *blockCopy) all(ctx context.Context, workers int) (int64, error) {
	list, err := c.list(ctx)
	if err != nil {
		return 0, err
	}
	list = list[:min(len(list), c.most)]
	parts := make(chan []types.Block, len(list)/partBlocks+1)
	for len(list) > 0 {
		n := min(partBlocks, len(list))
		parts <- list[:n]
		list = list[n:]
	}
	close(parts)
	sums := make([]int64, workers)
	g, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		g.Go(func() error {
			buf := make([]byte, 0, partBlocks*blockBytes)
			for part := range parts {
				n, err := c.part(ctx, part, buf)
				if err != nil {
					return err
				}
				sums[i] += n
			}
			return nil
		})
	}
	err = g.Wait()
	var sum int64
	for _, n := range sums {
		sum += n
	}
	return sum, err
}

func (c *blockCopy) list(ctx context.Context) ([]types.Block, error) {
	var list []types.Block
	pages := ebs.NewListSnapshotBlocksPaginator(c.ebs, &ebs.ListSnapshotBlocksInput{SnapshotId: &c.snapshot})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, page.Blocks...)
	}
	return list, nil
}

// part reads some blocks, one after the other, and PUTs them as one object.
func (c *blockCopy) part(ctx context.Context, blocks []types.Block, buf []byte) (int64, error) {
	for _, b := range blocks {
		got, err := c.ebs.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &c.snapshot, BlockIndex: b.BlockIndex, BlockToken: b.BlockToken})
		if err != nil {
			return 0, err
		}
		at := len(buf)
		buf = buf[:at+blockBytes]
		_, err = io.ReadFull(got.BlockData, buf[at:])
		_ = got.BlockData.Close() // all is read
		if err != nil {
			return 0, fmt.Errorf("read block %d: %w", *b.BlockIndex, err)
		}
	}
	_, err := c.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &c.bucket, Key: aws.String(fmt.Sprintf("reference/part-%010d", *blocks[0].BlockIndex)), Body: bytes.NewReader(buf),
	})
	return int64(len(buf)), err
}
