package inprocess

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// An answer is an http.ResponseWriter for the handler, and a body for the client. What
// the handler writes is on its way once it flushes, or ends, or has written much; then it
// waits until the client has read it.
type answer struct {
	ctx    context.Context // ends when the handler has ended, or the client has gone
	cancel context.CancelCauseFunc
	header http.Header // the handler's, which may change it at any time
	code   int
	out    *bufio.Writer
	pipe   *io.PipeWriter

	begun  chan struct{} // closed when result is there
	result http.Response
	in     *io.PipeReader
}

func newAnswer(ctx context.Context, cancel context.CancelCauseFunc) *answer {
	a := &answer{ctx: ctx, cancel: cancel, header: http.Header{}, begun: make(chan struct{})}
	a.in, a.pipe = io.Pipe()
	a.out = bufio.NewWriter(sender{a})
	context.AfterFunc(ctx, func() { _ = a.pipe.CloseWithError(context.Cause(ctx)) })
	return a
}

// serve lets h write the answer.
func (a *answer) serve(h http.Handler, r *http.Request) {
	err := io.EOF
	defer func() {
		if p := recover(); p != nil {
			// Whoever panics here has logged why, and wants the client to see that there is more.
			err = fmt.Errorf("%w: the handler broke off: %v", io.ErrUnexpectedEOF, p)
		}
		_ = r.Body.Close()
		_ = a.pipe.CloseWithError(err)
		a.cancel(err)
	}()
	h.ServeHTTP(a, r)
	if a.ctx.Err() != nil {
		err = context.Cause(a.ctx) // nobody waits for the answer
		return
	}
	a.Flush()
}

// response returns what the client gets, as soon as the handler sends some of it.
func (a *answer) response(req *http.Request) (*http.Response, error) {
	select {
	case <-a.begun:
	case <-a.ctx.Done():
		select {
		case <-a.begun: // all of it was there at once
		default:
			return nil, context.Cause(a.ctx)
		}
	}
	a.result.Request = req
	return &a.result, nil
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	if a.code != 0 {
		return
	}
	a.code = code
	length := int64(-1)
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	a.result = http.Response{
		Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: a.header.Clone(), ContentLength: length, Body: body{a},
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.out.Write(p)
}

// Flush implements http.Flusher.
func (a *answer) Flush() {
	a.WriteHeader(http.StatusOK)
	a.send()
	_ = a.out.Flush() // the next Write returns the error
}

// send lets the client have the header.
func (a *answer) send() {
	select {
	case <-a.begun:
	default:
		close(a.begun)
	}
}

// CloseNotify implements http.CloseNotifier, without which the library does not see that
// an answer can be flushed.
func (a *answer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(a.ctx, func() { gone <- true })
	return gone
}

// A sender sends what has been written.
type sender struct{ *answer }

// Write implements io.Writer.
func (s sender) Write(p []byte) (int, error) {
	s.send()
	return s.pipe.Write(p)
}

// A body is what the client reads.
type body struct{ *answer }

// Read implements io.Reader.
func (b body) Read(p []byte) (int, error) { return b.in.Read(p) }

// Close implements io.Closer: the client has gone.
func (b body) Close() error {
	b.cancel(context.Canceled)
	return nil
}
