package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

// download asks the server for something that a location holds and hands the answer to consume as it comes. The bucket is not reached from
// here; whether the account may ask is decided by its right to create DownloadRequests.
func (r *remote) download(ctx context.Context, spec v1alpha1.DownloadRequestSpec, consume func(io.Reader) error) error {
	in, out := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := r.fetch(ctx, spec, out)
		out.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		err := consume(in)
		if err == nil { // what is left of the answer must not hold the other side up
			_, err = io.Copy(io.Discard, in)
		}
		in.CloseWithError(err)
		return err
	})
	return group.Wait()
}

// copyTo hands an answer on.
func copyTo(w io.Writer) func(io.Reader) error {
	return func(in io.Reader) error {
		_, err := io.Copy(w, in)
		return err
	}
}

// maxDocument bounds an answer that is decoded as one JSON document: a report.
const maxDocument = 256 << 20

// decodeInto decodes an answer that is one JSON document.
func decodeInto(dst any) func(io.Reader) error {
	return func(in io.Reader) error {
		if err := json.NewDecoder(io.LimitReader(in, maxDocument)).Decode(dst); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		return nil
	}
}

// fetch writes the whole answer to w, asking for one part after the other.
func (r *remote) fetch(ctx context.Context, spec v1alpha1.DownloadRequestSpec, w io.Writer) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("make a key for the answer: %w", err)
	}
	spec.Recipient = identity.Recipient().String()
	for {
		next, err := r.part(ctx, identity, spec, w)
		if err != nil || next == nil {
			return err
		}
		if *next <= spec.Offset {
			return fmt.Errorf("read the server's answer: after byte %d it goes on at byte %d", spec.Offset, *next)
		}
		spec.Offset = *next
	}
}

// part asks for one part of an answer. It gives where the next one begins; nil at the end.
func (r *remote) part(ctx context.Context, identity age.Identity, spec v1alpha1.DownloadRequestSpec, w io.Writer) (*int64, error) {
	request := &v1alpha1.DownloadRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "kedge-"}, Spec: spec}
	if err := r.create(ctx, request); err != nil {
		return nil, fmt.Errorf("ask the server for %s of %s: %w", spec.Target, spec.Name, err)
	}
	err := r.follow(ctx, request, func() bool {
		return request.Status.Phase == v1alpha1.RequestDone || request.Status.Phase == v1alpha1.RequestFailed
	})
	if err != nil {
		return nil, fmt.Errorf("ask the server for %s of %s: %w", spec.Target, spec.Name, err)
	}
	s := &request.Status
	if s.Phase == v1alpha1.RequestFailed {
		return nil, fmt.Errorf("ask the server for %s of %s: %s", spec.Target, spec.Name, orElse(s.Message, "it failed"))
	}
	plain, err := age.Decrypt(bytes.NewReader(s.Data), identity)
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	decoder, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDocument))
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	defer decoder.Close()
	if _, err := io.Copy(w, decoder); err != nil {
		return nil, errors.Join(ctx.Err(), fmt.Errorf("read the server's answer: %w", err))
	}
	return s.NextOffset, nil
}
