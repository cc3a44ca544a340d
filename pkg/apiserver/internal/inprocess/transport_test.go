package inprocess

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

// clients are of a server with handler h, over a connection and without one: nobody can tell
// them apart.
func clients(t *testing.T, h http.HandlerFunc) map[string]*http.Client {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	connected := s.Client()
	own := connected.Transport
	connected.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Host = s.Listener.Addr().String()
		r.Host = host
		return own.RoundTrip(r)
	})
	direct := NewTransport()
	direct.Serve(h)
	t.Cleanup(direct.End)
	return map[string]*http.Client{"connected": connected, "in process": {Transport: direct}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

const host = "127.0.0.1:6443"

func get(ctx context.Context, c *http.Client, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	return c.Do(r)
}

type contextKey struct{}

func TestRequestAndAnswer(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for _, tc := range []struct {
		name, body string
		handler    http.HandlerFunc
		want       string
	}{
		{name: "what arrives", body: "hello", handler: func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			fmt.Fprintln(w, r.Method, r.URL, r.Host, r.Proto, r.RequestURI, r.Header["X"], r.ContentLength, string(body), err, r.Context().Value(contextKey{}))
		}, want: "200 POST /a%2Fb?c=d 127.0.0.1:6443 HTTP/2.0 /a%2Fb?c=d [1 2] 5 hello <nil> <nil>\n"},
		{name: "code and header", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Y", "before")
			w.WriteHeader(http.StatusTeapot)
			w.Header().Set("Y", "after")
			w.WriteHeader(http.StatusOK)
			fmt.Fprint(w, "tea")
		}, want: "418 before tea"},
		{name: "nothing", handler: func(http.ResponseWriter, *http.Request) {}, want: "200 "},
		{name: "much", body: large, handler: func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(w, r.Body); err != nil {
				t.Error(err)
			}
		}, want: "200 " + large},
		{name: "a header of the client's", handler: func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X", "changed")
		}, want: "200 "},
		{name: "broken off at once", handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: "no answer"},
		{name: "broken off", handler: func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, want: "200 some and no end"},
	} {
		for how, c := range clients(t, tc.handler) {
			t.Run(tc.name+", "+how, func(t *testing.T) {
				ctx := context.WithValue(t.Context(), contextKey{}, "the client's")
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/a%2Fb?c=d", strings.NewReader(tc.body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header["X"] = []string{"1", "2"}
				got := ""
				if answer, err := c.Do(r); err != nil {
					got = "no answer"
				} else {
					got = fmt.Sprintf("%d ", answer.StatusCode)
					if y := answer.Header.Get("Y"); y != "" {
						got += y + " "
					}
					body, err := io.ReadAll(answer.Body)
					got += string(body)
					if err != nil {
						got += " and no end"
					}
					answer.Body.Close()
				}
				if got != tc.want {
					t.Errorf("got %.200q, want %.200q", got, tc.want)
				}
				if len(r.Header["X"]) != 2 {
					t.Error("the server has changed the client's header")
				}
			})
		}
	}
}

// What is flushed can be read while the handler goes on, also by a handler that is wrapped as
// the library wraps it, and each side sees the other go.
func TestStream(t *testing.T) {
	ended := make(chan error, 1)
	for how, c := range clients(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- r.Context().Err() }()
		w = responsewriter.WrapForHTTP1Or2(wrapped{w})
		for i := range 3 {
			fmt.Fprintln(w, i)
			w.(http.Flusher).Flush()
		}
		<-w.(http.CloseNotifier).CloseNotify()
		<-r.Context().Done()
	}) {
		for _, leave := range []string{"close", "cancel"} {
			t.Run(how+", "+leave, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answer, err := get(ctx, c, "/")
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				var all [6]byte
				if _, err := io.ReadFull(answer.Body, all[:]); err != nil || !bytes.Equal(all[:], []byte("0\n1\n2\n")) {
					t.Fatalf("%q, %v", all, err)
				}
				if leave == "cancel" {
					cancel()
					if _, err := answer.Body.Read(all[:]); !errors.Is(err, context.Canceled) {
						t.Errorf("reading on: %v", err)
					}
				} else {
					answer.Body.Close()
				}
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("the handler's context: %v", err)
				}
			})
		}
	}
}

type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A client's deadline holds while the handler does nothing.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTransport()
		tr.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := get(ctx, &http.Client{Transport: tr}, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Requests wait for a handler; those that are under way when the server ends are ended,
// and others refused.
func TestServeAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTransport()
		c := &http.Client{Transport: tr}
		early := make(chan *http.Response, 1)
		go func() {
			answer, err := get(t.Context(), c, "/")
			if err != nil {
				t.Error(err)
			}
			early <- answer
		}()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := get(impatient, c, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before there is a handler: %v", err)
		}
		tr.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		answer := <-early
		if answer == nil {
			return
		}
		defer answer.Body.Close()
		tr.End()
		if _, err := io.ReadAll(answer.Body); !errors.Is(err, errEnded) {
			t.Errorf("under way: %v", err)
		}
		if _, err := get(t.Context(), c, "/"); !errors.Is(err, errEnded) {
			t.Errorf("after the end: %v", err)
		}
	})
}
