package devices

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
)

func marshal(a *pluginapi.ContainerAllocateResponse) ([]byte, error) { return proto.Marshal(a) }

func unmarshal(raw []byte, a *pluginapi.ContainerAllocateResponse) error {
	return proto.Unmarshal(raw, a)
}

// Run lets plugins register at kubelet.sock until ctx is cancelled. The sockets of plugins of an earlier kubelet are removed, by
// which they see that they have to register anew.
func (m *Manager) Run(ctx context.Context) error {
	if err := os.MkdirAll(m.dir, 0o750); err != nil {
		return fmt.Errorf("making the directory of device plugins: %w", err)
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("looking for sockets of device plugins: %w", err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil {
				return fmt.Errorf("removing the socket of a device plugin: %w", err)
			}
		}
	}
	l, err := net.Listen("unix", filepath.Join(m.dir, filepath.Base(pluginapi.KubeletSocket)))
	if err != nil {
		return fmt.Errorf("listening for device plugins: %w", err)
	}
	s := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(s, registration{m: m, base: ctx})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("listening for device plugins: %w", err)
	}
	return nil
}

// registration is what plugins register with.
type registration struct {
	pluginapi.UnimplementedRegistrationServer
	m    *Manager
	base context.Context // of the plugins that are followed
}

func (r registration) Register(_ context.Context, req *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	if !slices.Contains(pluginapi.SupportedVersions[:], req.Version) {
		return nil, fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", req.Version, pluginapi.SupportedVersions)
	}
	if err := checkResource(req.ResourceName); err != nil {
		return nil, err
	}
	if filepath.Base(req.Endpoint) != req.Endpoint {
		return nil, fmt.Errorf("endpoint %q is not the name of a socket in %s", req.Endpoint, r.m.dir)
	}
	return &pluginapi.Empty{}, r.m.begin(r.base, req.ResourceName, filepath.Join(r.m.dir, req.Endpoint), req.Options)
}

// checkResource refuses what is not the name of an extended resource.
func checkResource(name string) error {
	msgs := validation.IsQualifiedName("requests." + name)
	domain, _, qualified := strings.Cut(name, "/")
	if len(msgs) > 0 || !qualified || domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") || strings.HasPrefix(name, "requests.") {
		return fmt.Errorf("the ResourceName %q is invalid", name)
	}
	return nil
}

// Handler has plugins register that announce themselves in the directory of all plugins.
func (m *Manager) Handler(ctx context.Context) plugins.Handler { return handler{m: m, base: ctx} }

type handler struct {
	m    *Manager
	base context.Context
}

func (h handler) Register(_ context.Context, name, endpoint string, versions []string) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(pluginapi.SupportedVersions[:], v) }) {
		return fmt.Errorf("device plugin %q speaks versions %v, not %v", name, versions, pluginapi.SupportedVersions)
	}
	if err := checkResource(name); err != nil {
		return err
	}
	return h.m.begin(h.base, name, endpoint, nil)
}

func (h handler) Deregister(_ context.Context, name, endpoint string) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if r := h.m.resources[name]; r != nil && r.endpoint == endpoint {
		r.cancel()
	}
}

// begin follows a plugin, in place of an earlier one for the same resource.
func (m *Manager) begin(ctx context.Context, name, endpoint string, options *pluginapi.DevicePluginOptions) error {
	conn, err := plugins.Dial(endpoint)
	if err != nil {
		return err
	}
	m.metrics.registrations.WithLabelValues(name).Inc()
	base := ctx
	ctx, cancel := context.WithCancel(base)
	r := &pluginResource{endpoint: endpoint, client: pluginapi.NewDevicePluginClient(conn), options: options, devices: map[string]bool{}, numa: map[string]int64{}, cancel: cancel}
	m.mu.Lock()
	if old := m.resources[name]; old != nil {
		old.cancel()
		r.devices, r.numa = old.devices, old.numa // until it says what it has
	}
	m.resources[name] = r
	m.mu.Unlock()
	go func() {
		err := m.follow(ctx, name, r)
		if ctx.Err() == nil {
			klog.FromContext(ctx).Info("A device plugin has gone", "resource", name, "err", err)
		}
		cancel()
		_ = conn.Close() // the plugin has gone
		m.mu.Lock()
		r.client = nil
		m.mu.Unlock()
		m.changed()
		select {
		case <-base.Done():
		case <-time.After(m.absence):
			m.forget(base, name, r)
		}
	}()
	return nil
}

// forget takes the devices of a plugin for gone, unless another one has taken its place.
func (m *Manager) forget(ctx context.Context, name string, r *pluginResource) {
	m.mu.Lock()
	if m.resources[name] != r {
		m.mu.Unlock()
		return
	}
	r.devices, r.numa = nil, nil
	err := m.note()
	m.mu.Unlock()
	if err != nil {
		klog.FromContext(ctx).Error(err, "A restarted kubelet will not know that devices have gone", "resource", name)
	}
	m.changed()
}

// follow takes note of a plugin's devices for as long as it lives.
func (m *Manager) follow(ctx context.Context, name string, r *pluginResource) error {
	if r.options == nil {
		options, err := r.client.GetDevicePluginOptions(ctx, &pluginapi.Empty{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		m.mu.Lock()
		r.options = options
		m.mu.Unlock()
	}
	stream, err := r.client.ListAndWatch(ctx, &pluginapi.Empty{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		list, err := stream.Recv()
		if err != nil {
			return err
		}
		devices, numa := map[string]bool{}, map[string]int64{}
		for _, d := range list.Devices {
			devices[d.ID] = d.Health == pluginapi.Healthy
			if nodes := d.GetTopology().GetNodes(); len(nodes) > 0 {
				numa[d.ID] = nodes[0].ID
			}
		}
		m.mu.Lock()
		r.devices, r.numa = devices, numa
		err = m.note()
		m.mu.Unlock()
		if err != nil {
			klog.FromContext(ctx).Error(err, "A restarted kubelet will not know the devices", "resource", name)
		}
		m.changed()
	}
}
