package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/peers"
)

// workers is how many requests are under way at once.
const workers = 8

// Request is one request of the corpus.
type Request struct {
	// Group is the line of the summary that it counts for.
	Group string
	// What says what is tried, such as "spec.replicas: -1".
	What         string
	Method, Path string
	ContentType  string // application/json unless said otherwise
	Accept       string
	Body         []byte
	// Replace makes the body from the object that the server has at Of.
	Replace *Change
	Of      string
}

func (r Request) String() string {
	s := r.Method + " " + r.Path
	if r.Accept != "" {
		s += " as " + r.Accept
	}
	if r.ContentType != "" {
		s += " with " + r.ContentType
	}
	if r.What != "" {
		s += " (" + r.What + ")"
	}
	return s
}

// Answer is what a server says.
type Answer struct {
	Code        int
	ContentType string
	Warnings    []string
	// Body is the decoded body: JSON, or text where it is something else.
	Body any
	Raw  []byte
}

// server is a kube-apiserver that answers requests.
type server struct{ *peers.Server }

// send sends a request with the body that it has.
func (s *server) send(ctx context.Context, r Request) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, s.URL(r.Path), bytes.NewReader(r.Body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+peers.Token)
	req.Header.Set("Accept", "application/json")
	if r.Accept != "" {
		req.Header.Set("Accept", r.Accept)
	}
	if len(r.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
		if r.ContentType != "" {
			req.Header.Set("Content-Type", r.ContentType)
		}
	}
	resp, err := s.Client.Do(req)
	if errors.Is(err, io.EOF) { // the handler panicked
		return Answer{Body: "the connection was closed"}, nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %v: %w", s.Name, r, err)
	}
	defer resp.Body.Close()
	a := Answer{Code: resp.StatusCode, ContentType: resp.Header.Get("Content-Type")}
	if a.Raw, err = readAll(resp.Body); err != nil {
		return a, fmt.Errorf("%s: %v: %w", s.Name, r, err)
	}
	headers, errs := utilnet.ParseWarningHeaders(resp.Header["Warning"])
	if len(errs) > 0 {
		return a, fmt.Errorf("%s: %v: warnings: %v", s.Name, r, errs)
	}
	for _, h := range headers {
		a.Warnings = append(a.Warnings, h.Text)
	}
	a.Body = decode(a.Raw)
	if strings.HasPrefix(a.ContentType, "application/yaml") {
		if data, err := yaml.YAMLToJSON(a.Raw); err == nil {
			a.Body = decode(data)
		}
	}
	return a, nil
}

// decode reads JSON, and takes anything else as text; several documents, as of a
// watch, make a list.
func decode(data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var all []any
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			return string(data)
		}
		all = append(all, v)
	}
	switch len(all) {
	case 0:
		return string(data)
	case 1:
		return all[0]
	}
	return all
}

// peer is a server and the objects that it had when they were first needed.
type peer struct {
	*server
	mu      sync.Mutex
	objects map[string]any
}

// ask sends a request of the corpus.
func (p *peer) ask(ctx context.Context, r Request) (Answer, error) {
	if r.Replace != nil {
		object, err := p.object(ctx, r.Of)
		if err != nil {
			return Answer{}, err
		}
		body, err := json.Marshal(r.Replace.apply(object))
		if err != nil {
			return Answer{}, err
		}
		r.Body = body
	}
	return p.send(ctx, r)
}

func (p *peer) object(ctx context.Context, path string) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o, ok := p.objects[path]; ok {
		return o, nil
	}
	a, err := p.send(ctx, Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return nil, err
	}
	p.objects[path] = a.Body // a Status, where there is no such object: refused by both
	return a.Body, nil
}

// forget makes the objects be read again.
func (p *peer) forget() { p.objects = map[string]any{} }

// baseOf is the path of a request without its query.
func baseOf(path string) string {
	base, _, _ := strings.Cut(path, "?")
	return base
}

// readAll reads a body up to a size that no honest answer has.
func readAll(r io.Reader) ([]byte, error) {
	const limit = 64 << 20
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && len(data) > limit {
		err = errors.New("the answer is larger than 64 MiB")
	}
	return data, err
}
