// Package inprocess takes requests of a server's own clients to its handler without a
// connection. There they are treated as those that come over the network:
// authenticated, authorized, admitted, counted and logged.
package inprocess

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// errEnded is what clients get when the server has ended.
var errEnded = errors.New("the server has ended")

// A Transport is an http.RoundTripper whose requests are answered by a handler of this
// process. As over a network, only bytes pass from one side to the other: neither sees
// the other's headers change, nor the values in its context, but each sees the other go.
type Transport struct {
	serving chan struct{} // closed when there is a handler
	handler http.Handler
	ctx     context.Context // of all requests
	end     context.CancelCauseFunc
}

// NewTransport returns a transport whose requests wait for [Transport.Serve].
func NewTransport() *Transport {
	t := &Transport{serving: make(chan struct{})}
	t.ctx, t.end = context.WithCancelCause(context.Background())
	return t
}

// Serve lets h answer the requests. It is called once.
func (t *Transport) Serve(h http.Handler) {
	t.handler = h
	close(t.serving)
}

// End ends all requests, and refuses those that come later.
func (t *Transport) End() { t.end(errEnded) }

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.Await(req.Context()); err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // nobody has read it
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	a := newAnswer(ctx, cancel)
	hangUp := context.AfterFunc(req.Context(), func() { cancel(context.Cause(req.Context())) })
	go func() {
		defer hangUp()
		a.serve(t.handler, received(ctx, req))
	}()
	return a.response(req)
}

// Await waits until requests can be answered.
func (t *Transport) Await(ctx context.Context) error {
	select {
	case <-t.serving:
	case <-ctx.Done():
	case <-t.ctx.Done():
	}
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	return context.Cause(ctx)
}

// received is a client's request as a server sees it.
func received(ctx context.Context, req *http.Request) *http.Request {
	r := (&http.Request{
		Method:        req.Method,
		URL:           &url.URL{Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery},
		Proto:         "HTTP/2.0", // as clients of the API have it
		ProtoMajor:    2,
		Header:        req.Header.Clone(),
		Body:          req.Body,
		ContentLength: req.ContentLength,
		Host:          req.Host,
		RemoteAddr:    req.URL.Host, // this machine's
		RequestURI:    req.URL.RequestURI(),
	}).WithContext(ctx)
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if r.Host == "" {
		r.Host = req.URL.Host
	}
	return r
}
