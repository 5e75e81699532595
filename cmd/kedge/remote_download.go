package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/download"
)

// download asks the server for something that a location holds and hands the answer to consume as it comes. The bucket is not reached from
// here; whether the account may ask is decided by its right to create DownloadRequests.
func (r *remote) download(ctx context.Context, spec v1alpha1.DownloadRequestSpec, consume func(io.Reader) error) error {
	in, out := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := r.fetched(download.Fetch(ctx, r.client, r.namespace, spec, out))
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

// fetched says what the error of a download means to the user of a command.
func (r *remote) fetched(err error) error {
	if _, answered := apiStatus(err); answered {
		return r.failure("create", &v1alpha1.DownloadRequest{}, err)
	}
	switch {
	case errors.Is(err, download.ErrNotServed):
		return codeError(exitUnreachable, err, "\"kedge doctor\" checks whether a server runs")
	case errors.Is(err, download.ErrRefused):
		return codeError(exitRefused, err, "")
	}
	return err
}
