package plugins

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

// fakePlugin is a plugin that registers itself.
type fakePlugin struct {
	registerapi.UnimplementedRegistrationServer
	info *registerapi.PluginInfo

	mu   sync.Mutex
	told []string
}

func (p *fakePlugin) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return p.info, nil
}

func (p *fakePlugin) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, fmt.Sprint(s.PluginRegistered, " ", s.Error))
	return &registerapi.RegistrationStatusResponse{}, nil
}

func (p *fakePlugin) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// serve has a plugin answer at a socket; stop removes it.
func serve(t *testing.T, socket string, p *fakePlugin) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	registerapi.RegisterRegistrationServer(s, p)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s.Stop
}

type recorded struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorded) Register(_ context.Context, name, endpoint string, versions []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf("+%s at %s %v", name, filepath.Base(endpoint), versions))
	if name == "bad" {
		return errors.New("unwanted")
	}
	return nil
}

func (r *recorded) Deregister(_ context.Context, name, endpoint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf("-%s at %s", name, filepath.Base(endpoint)))
}

func (r *recorded) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.calls, ", ")
}

func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	handler := &recorded{}
	w := &Watcher{Dir: filepath.Join(dir, "registry"), Handlers: map[string]Handler{"Kind": handler}}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.Run(ctx) }()
	defer func() { cancel(); <-stopped }()

	good := &fakePlugin{info: &registerapi.PluginInfo{Type: "Kind", Name: "good", Endpoint: "/there/csi.sock", SupportedVersions: []string{"1.0.0"}}}
	stop := serve(t, filepath.Join(dir, "registry", "below", "good.sock"), good)
	componenttest.Eventually(t, "registered", func() bool { return handler.all() == "+good at csi.sock [1.0.0]" })
	componenttest.Eventually(t, "it is told", func() bool { return slices.Equal(good.heard(), []string{"true "}) })

	strange := &fakePlugin{info: &registerapi.PluginInfo{Type: "Other", Name: "strange"}}
	serve(t, filepath.Join(dir, "registry", "strange.sock"), strange)
	componenttest.Eventually(t, "a plugin of an unknown type is told", func() bool {
		return len(strange.heard()) > 0 && strange.heard()[0] == `false plugins of type "Other" are not known`
	})
	stop()
	componenttest.Eventually(t, "deregistered", func() bool { return strings.HasSuffix(handler.all(), ", -good at csi.sock") })
}

// TestPass is about what is tried again, and when.
func TestPass(t *testing.T) {
	dir := t.TempDir()
	bad := &fakePlugin{info: &registerapi.PluginInfo{Type: "Kind", Name: "bad"}}
	serve(t, filepath.Join(dir, "bad.sock"), bad)
	handler := &recorded{}
	w := &Watcher{Dir: dir, Handlers: map[string]Handler{"Kind": handler}, known: map[string]*plugin{}, failed: map[string]failure{}}
	found, _, err := find(dir)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	now := time.Now()
	for i, step := range []struct {
		after, next time.Duration
		calls       int
	}{{0, 500 * time.Millisecond, 1}, {100 * time.Millisecond, 400 * time.Millisecond, 1}, {500 * time.Millisecond, time.Second, 2}} {
		if next := w.pass(t.Context(), found, now.Add(step.after)); next != step.next || len(handler.calls) != step.calls {
			t.Errorf("step %d: again in %s, %d calls", i, next, len(handler.calls))
		}
	}
	if handler.calls[0] != "+bad at bad.sock []" {
		t.Errorf("without an endpoint of its own: %s", handler.calls[0])
	}
	// A new socket in its place need not wait.
	found[0].modified = now.Add(time.Hour)
	if w.pass(t.Context(), found, now.Add(600*time.Millisecond)); len(handler.calls) != 3 {
		t.Errorf("%d calls", len(handler.calls))
	}
}
