// Package plugins finds the plugins of a node: each puts a socket into a directory and says there what it
// is, and which socket serves it. When its socket goes, so does the plugin.
package plugins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/lookout"
)

// A Handler takes plugins of one type into use. Its methods are never called at the same time.
type Handler interface {
	// Register takes a plugin into use, or a new incarnation of one. What it returns as an error the plugin is told.
	Register(ctx context.Context, name, endpoint string, versions []string) error
	// Deregister is told of a plugin that has gone.
	Deregister(ctx context.Context, name, endpoint string)
}

// A Watcher finds plugins in a directory and below it.
type Watcher struct {
	Dir string
	// Handlers are by the type of plugin.
	Handlers map[string]Handler

	known  map[string]*plugin // by socket
	failed map[string]failure
}

// plugin is one that has been registered.
type plugin struct {
	socket
	handler        Handler
	name, endpoint string
}

// socket is one that was found; a new one in the place of an old one has another time.
type socket struct {
	path     string
	modified time.Time
}

type failure struct {
	socket
	wait  time.Duration
	until time.Time
}

// Dial connects to a socket on this machine. The connection is made when it is first used.
func Dial(socket string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// Timed has the calls to a driver timed: by its name, the method, the status code, and more labels that are the same for all of them.
func Timed(calls *metrics.HistogramVec, driver string, more ...string) grpc.DialOption {
	return grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		began := time.Now()
		err := invoke(ctx, method, req, reply, conn, options...)
		calls.WithLabelValues(append([]string{driver, method, status.Code(err).String()}, more...)...).Observe(time.Since(began).Seconds())
		return err
	})
}

// Run finds plugins until ctx is cancelled.
func (w *Watcher) Run(ctx context.Context) {
	const rarely = time.Minute
	logger := klog.FromContext(ctx)
	w.known, w.failed = map[string]*plugin{}, map[string]failure{}
	if err := os.MkdirAll(w.Dir, 0o750); err != nil {
		logger.Error(err, "Cannot make the directory of plugins")
	}
	lookout.Run(ctx, "plugins", rarely, func() ([]string, time.Duration) {
		found, dirs, err := find(w.Dir)
		next := w.pass(ctx, found, time.Now())
		if err != nil {
			logger.Error(err, "Cannot look for plugins")
			if next == 0 || next > rarely {
				next = rarely
			}
		}
		return dirs, next
	})
}

// find lists the sockets in a directory and the directories to watch.
func find(dir string) (sockets []socket, dirs []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir():
			dirs = append(dirs, path)
		case d.Type()&fs.ModeSocket != 0:
			if info, err := d.Info(); err == nil {
				sockets = append(sockets, socket{path, info.ModTime()})
			}
		}
		return nil
	})
	return sockets, dirs, err
}

// pass lets plugins go whose sockets have gone and takes in those that are new, and says after what time to look again, if at all.
func (w *Watcher) pass(ctx context.Context, found []socket, now time.Time) (next time.Duration) {
	logger := klog.FromContext(ctx)
	for _, path := range slices.Sorted(maps.Keys(w.known)) {
		if p := w.known[path]; !slices.Contains(found, p.socket) {
			logger.Info("A plugin has gone", "plugin", p.name, "socket", path)
			p.handler.Deregister(ctx, p.name, p.endpoint)
			delete(w.known, path)
		}
	}
	maps.DeleteFunc(w.failed, func(_ string, f failure) bool { return !slices.Contains(found, f.socket) })
	const least, most = 500 * time.Millisecond, time.Minute
	for _, s := range found {
		f := w.failed[s.path]
		if w.known[s.path] != nil {
			continue
		}
		if !now.Before(f.until) {
			p, err := w.register(ctx, s)
			if err == nil {
				logger.Info("Registered a plugin", "plugin", p.name, "socket", s.path)
				w.known[s.path] = p
				delete(w.failed, s.path)
				continue
			}
			logger.Error(err, "Cannot register a plugin yet", "socket", s.path)
			f.socket, f.wait = s, min(max(2*f.wait, least), most)
			f.until = now.Add(f.wait)
			w.failed[s.path] = f
		}
		if wait := f.until.Sub(now); next == 0 || wait < next {
			next = wait
		}
	}
	return next
}

// register asks a plugin who it is and tells it whether it is wanted.
func (w *Watcher) register(ctx context.Context, s socket) (*plugin, error) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := Dial(s.path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := registerapi.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registerapi.InfoRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking a plugin who it is: %w", err)
	}
	p := &plugin{socket: s, handler: w.Handlers[info.Type], name: info.Name, endpoint: info.Endpoint}
	if p.endpoint == "" {
		p.endpoint = s.path
	}
	if p.handler == nil {
		err = fmt.Errorf("plugins of type %q are not known", info.Type)
	} else {
		err = p.handler.Register(ctx, p.name, p.endpoint, info.SupportedVersions)
	}
	registered := &registerapi.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		registered.Error = err.Error()
	}
	if _, told := client.NotifyRegistrationStatus(ctx, registered); told != nil && err == nil {
		p.handler.Deregister(ctx, p.name, p.endpoint)
		return nil, fmt.Errorf("telling plugin %q that it is registered: %w", p.name, told)
	}
	if err != nil {
		return nil, fmt.Errorf("registering plugin %q: %w", info.Name, err)
	}
	return p, nil
}
