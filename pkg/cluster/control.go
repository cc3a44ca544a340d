package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// A route is what can be asked of a running cluster, or of one of its nodes, on its
// socket. The answer, or the error's text, is sent as JSON.
type route struct {
	pattern string // of http.ServeMux
	handle  func(*http.Request) (any, error)
}

// handler makes a route of a function that takes a request of its own type.
func handler[T any](pattern string, do func(context.Context, T) (any, error)) route {
	return route{pattern: pattern, handle: func(req *http.Request) (any, error) {
		var body T
		if req.Method != http.MethodGet {
			d := json.NewDecoder(req.Body)
			d.DisallowUnknownFields()
			if err := d.Decode(&body); err != nil {
				return nil, err
			}
		}
		return do(req.Context(), body)
	}}
}

// An answer is what a route's function returned.
type answer struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// serveControl answers on a socket that only root can open.
func serveControl(ctx context.Context, path string, routes []route) (*http.Server, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) {
			result, err := r.handle(req)
			a := answer{}
			if err == nil {
				a.Result, err = json.Marshal(result)
			}
			if err != nil {
				a.Error = err.Error()
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(a) // a client that went away
		})
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "Nobody can ask on this socket any more", "socket", path)
		}
	}()
	return server, nil
}

// ask asks on a socket: with a body if there is one, for the result if there is room for it.
func ask(ctx context.Context, socket, path string, body, result any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	method, content := http.MethodGet, io.Reader(nil)
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		method, content = http.MethodPost, bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://leme"+path, content)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking on %s for %s: %s", socket, path, resp.Status)
	}
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Result, result)
}

// fetchStatus asks the process that runs the cluster.
func fetchStatus(ctx context.Context, d dataDir) (*Status, error) {
	var s Status
	return &s, ask(ctx, d.controlSocket(), "/status", nil, &s)
}

// A lock on a data directory is held by the process that runs its cluster, or by
// one that changes it; the kernel lets go of it however the process ends.
type lock struct{ file *os.File }

// tryLock returns nil if somebody else holds the lock, and who that is.
func tryLock(d dataDir) (l *lock, pid int, err error) {
	if err := os.MkdirAll(d.run(""), 0o700); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(d.lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if err != unix.EWOULDBLOCK {
			return nil, 0, fmt.Errorf("locking %s: %w", d.lockFile(), err)
		}
		data, err := os.ReadFile(d.lockFile())
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return nil, pid, err
	}
	return &lock{file: f}, 0, nil
}

// hold records who holds the lock.
func (l *lock) hold(pid int) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

func (l *lock) release() { l.file.Close() }
