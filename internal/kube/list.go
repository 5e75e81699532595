package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"kedge.dev/kedge/internal/pbjson"
	"kedge.dev/kedge/internal/rawjson"
)

// DefaultPageSize is the number of items asked for in one page (docs/benchmarks.md says why).
const DefaultPageSize = 500

// ListRequest is one list, over as many pages as it takes.
type ListRequest struct {
	Path          string // Resource.Path(namespace, "")
	LabelSelector string
	FieldSelector string
	// ResourceVersion: "" reads the latest state.
	ResourceVersion string
	// Exact asks for the state at exactly ResourceVersion (resourceVersionMatch=Exact).
	Exact bool
	// Limit is the number of items in a page; 0 means DefaultPageSize.
	Limit int64
	// MaxItem bounds one item in bytes; 0 means 64 MiB.
	MaxItem int
	// Protobuf has ListHeads read the list in protobuf, which is less work for the server; nil reads JSON. It counts only with Exact. Where the
	// answer says anything that Protobuf does not know, its page is read again as JSON, and all that follow.
	Protobuf *pbjson.Kind
	// MaxPages ends the list after so many pages; 0 means never. ListMeta.Continue then says whether there was more.
	MaxPages int
}

// ListMeta is what a list said about itself.
type ListMeta struct {
	ResourceVersion  string
	APIVersion, Kind string // of the list: "apps/v1", "DeploymentList"
	Items, Pages     int
	Continue         string // set only where MaxPages ended the list
	Remaining        int64  // the server's count of what is behind Continue; 0 where it gave none
	FellBack         bool   // Protobuf was asked for, and JSON had to be
}

var (
	splitters   = sync.Pool{New: func() any { return new(rawjson.Splitter) }}
	pbSplitters = sync.Pool{New: func() any { return new(pbjson.Splitter) }}
)

// List reads a list page by page and calls fn with the bytes of each item, valid during the call only and in the order of the
// server, without changing them. It stops at fn's first error, which it returns as it is.
//
// Continue pages carry the token alone, so all pages are of one revision; where Exact is set, each page must say that it is of
// that revision (*RevisionError). A page whose transfer breaks is asked for again and only what fn has not had yet is given to
// it. Fn makes no requests of its own by this Client: the list holds one of the slots that they would wait for.
// errors.Is(err, ErrRevisionGone) tells that the revision cannot be had any more: what fn has had is then void.
func (c *Client) List(ctx context.Context, req ListRequest, fn func(raw []byte) error) (ListMeta, error) {
	return c.list(ctx, req, false, func(_ *rawjson.Head, raw []byte, _ error) error { return fn(raw) })
}

// ListHeads is List for a caller that wants each item's head too, or the reason why it has none. Head is valid during the call only,
// the strings and maps in it for ever.
func (c *Client) ListHeads(ctx context.Context, req ListRequest, fn func(head *rawjson.Head, raw []byte, err error) error) (ListMeta, error) {
	return c.list(ctx, req, true, fn)
}

type itemFunc = func(head *rawjson.Head, raw []byte, err error) error

func (c *Client) list(ctx context.Context, req ListRequest, heads bool, fn itemFunc) (ListMeta, error) {
	var meta ListMeta
	token := ""
	if !heads || !req.Exact {
		req.Protobuf = nil
	}
	asked := req.Protobuf
	for {
		head, err := c.page(ctx, &req, token, heads, fn)
		meta.FellBack = req.Protobuf != asked
		if err != nil {
			return meta, err
		}
		meta.ResourceVersion, meta.APIVersion, meta.Kind = head.ResourceVersion, head.APIVersion, head.Kind
		meta.Items += head.Items
		meta.Pages++
		if req.Exact && head.ResourceVersion != req.ResourceVersion {
			return meta, &RevisionError{Path: req.Path, Want: req.ResourceVersion, Got: head.ResourceVersion}
		}
		if head.Continue == "" {
			return meta, nil
		}
		if head.Continue == token {
			return meta, fmt.Errorf("list %s: the server gave the same page again", req.Path)
		}
		token = head.Continue
		if req.MaxPages > 0 && meta.Pages == req.MaxPages {
			meta.Continue = token
			if head.RemainingItemCount != nil {
				meta.Remaining = *head.RemainingItemCount
			}
			return meta, nil
		}
	}
}

func (r *ListRequest) query(token string) url.Values {
	q := url.Values{}
	limit := r.Limit
	if limit <= 0 {
		limit = DefaultPageSize
	}
	q.Set("limit", strconv.FormatInt(limit, 10))
	if r.LabelSelector != "" {
		q.Set("labelSelector", r.LabelSelector)
	}
	if r.FieldSelector != "" {
		q.Set("fieldSelector", r.FieldSelector)
	}
	switch {
	case token != "":
		q.Set("continue", token)
	case r.ResourceVersion != "":
		q.Set("resourceVersion", r.ResourceVersion)
		if r.Exact {
			q.Set("resourceVersionMatch", "Exact")
		}
	}
	return q
}

// callbackError carries an error of the caller's function through the retries.
type callbackError struct{ err error }

func (e *callbackError) Error() string { return e.err.Error() }
func (e *callbackError) Unwrap() error { return e.err }

// page reads one page. Where its transfer breaks after some items were given to the caller, it is read again and those are passed over:
// a page of a pinned revision is the same each time. The first page of an unpinned list is not, so it is held in memory
// until it is complete, up to a bound.
//
// What cannot be read in protobuf is read again as JSON, in the same way.
func (c *Client) page(ctx context.Context, req *ListRequest, token string, heads bool, fn itemFunc) (rawjson.ListHead, error) {
	given := 0
	head, err := c.pageFrom(ctx, req, token, heads, &given, fn)
	if req.Protobuf != nil && (errors.Is(err, pbjson.ErrUnsupported) || Code(err) == http.StatusNotAcceptable || Code(err) == http.StatusUnsupportedMediaType) {
		req.Protobuf = nil
		head, err = c.pageFrom(ctx, req, token, heads, &given, fn)
	}
	if cb, ok := errors.AsType[*callbackError](err); ok {
		return head, cb.err
	}
	return head, err
}

// pageFrom is page without the first items, which were given to fn before.
func (c *Client) pageFrom(ctx context.Context, req *ListRequest, token string, heads bool, given *int, fn itemFunc) (rawjson.ListHead, error) {
	var head rawjson.ListHead
	pinned := token != "" || req.Exact
	hreq := Request{Path: req.Path, Query: req.query(token)}
	if req.Protobuf != nil {
		hreq.Accept = acceptProtobuf
	}
	err := c.retry(ctx, &hreq, func(resp *http.Response) error {
		body, pinned, err := holdPage(resp.Body, pinned)
		if err != nil {
			return err
		}
		seen := 0
		give := func(h *rawjson.Head, raw []byte, bad error) error {
			if seen++; seen <= *given {
				return nil
			}
			if err := fn(h, raw, bad); err != nil {
				return &callbackError{err}
			}
			*given++
			return nil
		}
		isProtobuf := strings.HasPrefix(resp.Header.Get("Content-Type"), protobufType)
		head, err = split(body, req, heads, isProtobuf, give)
		return classify(err, pinned || *given == 0)
	})
	return head, err
}

// split takes a page apart.
func split(body io.Reader, req *ListRequest, heads, isProtobuf bool, give itemFunc) (rawjson.ListHead, error) {
	if req.Protobuf != nil && isProtobuf {
		s := pbSplitters.Get().(*pbjson.Splitter) // the pool holds nothing else
		defer pbSplitters.Put(s)
		s.MaxItem = req.MaxItem
		return s.SplitHeads(body, req.Protobuf, give)
	}
	s := splitters.Get().(*rawjson.Splitter) // as above
	defer splitters.Put(s)
	s.MaxItem = req.MaxItem
	if heads {
		return s.SplitHeads(body, give)
	}
	return s.Split(body, func(raw []byte) error { return give(nil, raw, nil) })
}

// classify tells a broken transfer, which may be repeated, from an error that will come again.
func classify(err error, repeatable bool) error {
	var cb *callbackError
	switch {
	case err == nil, errors.As(err, &cb), errors.Is(err, rawjson.ErrSyntax), errors.Is(err, rawjson.ErrTooLarge), errors.Is(err, pbjson.ErrUnsupported), !repeatable:
		return err
	}
	return &transferError{err}
}

// maxHeld bounds the page that is held in memory until it is complete.
const maxHeld = 16 << 20

// holdPage reads an unpinned page into memory so that a broken transfer can be repeated as a whole. A page beyond the bound
// is streamed, and then cannot be repeated.
func holdPage(body io.Reader, pinned bool) (io.Reader, bool, error) {
	if pinned {
		return body, true, nil
	}
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(body, maxHeld))
	if err != nil {
		return nil, false, &transferError{err}
	}
	if n < maxHeld {
		return &buf, true, nil
	}
	return io.MultiReader(&buf, body), false, nil
}
