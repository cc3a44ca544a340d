package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pauseImage is the image of a pod's sandbox.
const pauseImage = "registry.k8s.io/pause:3.10.2"

// A containerdConfig is what containerd's configuration file says beside its defaults.
type containerdConfig struct {
	Root, State, Socket, Opt string
	Runc                     string
	CNIPlugins, CNIConfig    string
	Registries               string
	PauseImage               string
	Snapshotter              string
	RestrictOOMScore         bool
}

var containerdTemplate = template.Must(template.New("containerd").Parse(`version = 3
root = '{{.Root}}'
state = '{{.State}}'
imports = []
disabled_plugins = [
  'io.containerd.differ.v1.erofs',
  'io.containerd.image-verifier.v1.bindir',
  'io.containerd.internal.v1.tracing',
  'io.containerd.monitor.container.v1.restart',
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs',
  'io.containerd.tracing.processor.v1.otlp',
]

[debug]
  level = 'warn'

[grpc]
  address = '{{.Socket}}'

[ttrpc]
  address = '{{.Socket}}.ttrpc'

[plugins.'io.containerd.internal.v1.opt']
  path = '{{.Opt}}'

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '{{.State}}'

[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{{.Snapshotter}}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{{.PauseImage}}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{{.Registries}}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {{.RestrictOOMScore}}
  netns_mounts_under_state_dir = true
  drain_exec_sync_io_timeout = '10s'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{{.Runc}}'
      Root = '{{.State}}/runc'
      SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{{.CNIPlugins}}']
    conf_dir = '{{.CNIConfig}}'
`))

// containerdFiles writes containerd's configuration: its own, and where it finds
// the images of registry.k8s.io without leaving the machine.
func containerdFiles(d dataDir, n *nodeSpec) error {
	var buf bytes.Buffer
	err := containerdTemplate.Execute(&buf, containerdConfig{
		Root: d.path("containerd"), State: d.run("s"), Socket: d.containerdSocket(), Opt: d.path("containerd", "opt"),
		Runc:       filepath.Join(n.RuntimeDir, "runc"),
		CNIPlugins: filepath.Join(n.RuntimeDir, "cni"), CNIConfig: filepath.Dir(d.cniConfig()),
		Registries: d.config("registries"), PauseImage: pauseImage,
		Snapshotter:      snapshotter(string(d)),
		RestrictOOMScore: !hasCapability(unix.CAP_SYS_RESOURCE),
	})
	if err != nil {
		return err
	}
	if err := writeFile(d.config("containerd.toml"), buf.Bytes(), 0o600); err != nil {
		return err
	}
	hosts := fmt.Sprintf(`server = "https://registry.k8s.io"

[host."https://127.0.0.1:%d"]
  capabilities = ["pull", "resolve"]
  ca = "%s"
  client = [["%s", "%s"]]
`, n.Ports.Registry, d.pki("ca.crt"), d.pki("registry-client.crt"), d.pki("registry-client.key"))
	return writeFile(d.config("registries/registry.k8s.io/hosts.toml"), []byte(hosts), 0o600)
}

// snapshotter is overlayfs, but for a data directory that is on an overlay already.
func snapshotter(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native"
	}
	return "overlayfs"
}

// hasCapability reports whether this process has it in effect.
func hasCapability(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

func containerdService(d dataDir, runtimeDir string, environment []string) service {
	svc := fromBinary(d, "containerd", filepath.Join(runtimeDir, "containerd"), []string{"--config", d.config("containerd.toml")}, environment)
	run := svc.run
	svc.binary = ""
	svc.run = func(ctx context.Context) error {
		// A socket that nobody answers would be connected to before the new one.
		if err := os.Remove(d.containerdSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return run(ctx)
	}
	return svc
}

// criClient talks to containerd; it connects when it is first used and again
// whenever the connection breaks.
type criClient struct {
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
}

func newCRIClient(socket string) (*criClient, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialPatiently))
	if err != nil {
		return nil, err
	}
	return &criClient{conn: conn, runtime: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn)}, nil
}

// dialPatiently connects as soon as there is somebody to connect to.
func dialPatiently(ctx context.Context, address string) (net.Conn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ready waits until containerd runs containers.
func (c *criClient) ready(ctx context.Context) error {
	for {
		status, err := c.runtime.Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		for _, condition := range status.GetStatus().GetConditions() {
			if condition.Type == cri.RuntimeReady && condition.Status {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd: %w", errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ensureImages has containerd fetch images that are absent, before a pod needs them.
func ensureImages(ctx context.Context, socket string, names ...string) error {
	c, err := newCRIClient(socket)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.ready(ctx); err != nil {
		return err
	}
	images, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		images.Go(func() error { return c.ensureImage(ctx, name) })
	}
	return images.Wait()
}

// ensureImage pulls an image that is absent.
func (c *criClient) ensureImage(ctx context.Context, name string) error {
	spec := &cri.ImageSpec{Image: name}
	status, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err == nil && status.Image != nil {
		return nil
	}
	if err == nil {
		_, err = c.images.PullImage(ctx, &cri.PullImageRequest{Image: spec})
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return nil
}

// checkRuntime names the first runtime part that is missing or does not run.
func checkRuntime(dir string, further bool) error {
	parts := []string{"containerd", "containerd-shim-runc-v2", "runc", "cni/ptp", "cni/host-local", "cni/portmap", "cni/loopback"}
	if further {
		parts = append(parts, initProgram)
	}
	for _, part := range parts {
		info, err := os.Stat(filepath.Join(dir, part))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is missing from %s: `make runtime` builds it, and --runtime-dir names another place", part, dir)
		}
	}
	for _, tool := range []string{"nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: install the package nftables", tool)
		}
	}
	return nil
}

// besideProgram finds a directory of Leme's own: beside the program or in /usr/lib/leme.
func besideProgram(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	candidates := []string{filepath.Join(filepath.Dir(self), name), filepath.Join("/usr/lib/leme", name)}
	for _, dir := range candidates {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("found no directory %s: `make %s` builds it, and --%s-dir names another place", strings.Join(candidates, " nor "), name, name)
}
