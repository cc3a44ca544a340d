package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/kubelet/certificates"
	"github.com/leme-k8s/leme/pkg/kubelet/eviction"
	"github.com/leme-k8s/leme/pkg/kubelet/images"
	"github.com/leme-k8s/leme/pkg/kubelet/resources"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/volumes"
)

// A Kubelet is an assembled kubelet that has not started.
type Kubelet struct {
	options  Options
	config   *kubeletconfig.KubeletConfiguration
	hostname string
	nodeName string
	ips      []net.IP
	// thresholds are what the node must keep free.
	thresholds []eviction.Threshold
	// providers are the plugins that know credentials of images; nil for none.
	providers *images.Providers
}

// clients are the ways to the API server: each kind of traffic has a rate limit of its own, so that many
// events delay no status and nothing delays a heartbeat.
type clients struct {
	main, events, heartbeat kubernetes.Interface
}

// connections are what a kubelet talks to.
type connections struct {
	clients
	certificate *certificates.Client
	runtime     cri.RuntimeService
	images      cri.ImageManagerService
	runtimeName string
	calls       *runtime.Calls
}

// Run runs the kubelet until ctx is cancelled. Pods outlive it.
func (k *Kubelet) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for _, dir := range []string{k.options.RootDir, k.options.CertDir, filepath.Join(k.options.RootDir, "pods"), k.config.PodLogsDir} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("--root-dir: %w", err)
		}
	}
	if err := volumes.MakeShared(k.options.RootDir); err != nil {
		return fmt.Errorf("--root-dir: %w", err)
	}
	if err := k.addresses(); err != nil {
		return err
	}
	if err := component.SetOOMScore(int(*k.config.OOMScoreAdj)); err != nil {
		logger.Info("Cannot set the kubelet's oom_score_adj; going on without", "err", err)
	}
	c, err := k.connect(ctx)
	if err != nil {
		return ignoreCancelled(ctx, err)
	}
	defer func() {
		// The process goes on without us, perhaps.
		_ = errors.Join(c.runtime.Close(ctx), c.images.Close(ctx))
	}()
	rooms, err := k.assemble(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, room := range rooms {
		running.Go(func() {
			if err := room(ctx); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func ignoreCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// addresses finds the node's address if none was given: the one that the default route leaves from.
func (k *Kubelet) addresses() error {
	if len(k.ips) > 0 {
		return nil
	}
	ip, err := utilnet.ResolveBindAddress(nil)
	if err != nil {
		found, lookup := net.LookupIP(k.hostname)
		if lookup != nil || len(found) == 0 {
			return fmt.Errorf("--node-ip: not given, and there is no address to find: %w", err)
		}
		ip = found[0]
	}
	k.ips = []net.IP{ip}
	return nil
}

// connect reaches the runtime and, if there is to be one, the API server.
func (k *Kubelet) connect(ctx context.Context) (*connections, error) {
	c := &connections{calls: runtime.NewCalls()}
	if k.options.Kubeconfig != "" {
		cfg := certificates.ClientConfig{
			Kubeconfig: k.options.Kubeconfig, BootstrapKubeconfig: k.options.BootstrapKubeconfig,
			Dir: k.options.CertDir, NodeName: k.nodeName, Rotate: k.config.RotateCertificates,
		}
		if err := certificates.Bootstrap(ctx, cfg); err != nil {
			return nil, err
		}
		var err error
		if c.certificate, err = certificates.NewClient(ctx, cfg); err != nil {
			return nil, err
		}
		if c.clients, err = newClients(c.certificate.Config, k.config); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	}
	return c, k.connectRuntime(ctx, c)
}

func newClients(base *rest.Config, k *kubeletconfig.KubeletConfiguration) (clients, error) {
	var errs [3]error
	make := func(i int, qps float32, burst int, timeout time.Duration) kubernetes.Interface {
		c := rest.CopyConfig(base)
		c.ContentType, c.AcceptContentTypes = k.ContentType, k.ContentType+",application/json"
		c.UserAgent = "kubelet/v" + component.Version
		c.QPS, c.Burst, c.Timeout = qps, burst, timeout
		if qps == 0 {
			c.QPS = -1 // no limit
		}
		var set kubernetes.Interface
		set, errs[i] = kubernetes.NewForConfig(c)
		return set
	}
	out := clients{
		main:      make(0, float32(*k.KubeAPIQPS), int(k.KubeAPIBurst), 0),
		events:    make(1, float32(*k.EventRecordQPS), int(k.EventBurst), 0),
		heartbeat: make(2, 0, 0, max(time.Duration(k.NodeLeaseDurationSeconds)*time.Second/4, 5*time.Second)),
	}
	return out, errors.Join(errs[:]...)
}

// connectRuntime waits until the runtime answers: it may be starting, too.
func (k *Kubelet) connectRuntime(ctx context.Context, c *connections) error {
	endpoint := k.config.ImageServiceEndpoint
	if endpoint == "" {
		endpoint = k.config.ContainerRuntimeEndpoint
	}
	const each, patience = 100 * time.Millisecond, 2 * time.Minute
	deadline := time.Now().Add(patience)
	for {
		err := func() (err error) {
			if c.runtime == nil {
				if c.runtime, err = criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(k.config.ContainerRuntimeEndpoint).
					WithConnectionTimeout(k.config.RuntimeRequestTimeout.Duration).WithTracerProvider(nil).Build(ctx); err != nil {
					c.runtime = nil
					return fmt.Errorf("--container-runtime-endpoint %s: %w", k.config.ContainerRuntimeEndpoint, err)
				}
			}
			if c.images, err = criclient.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).
				WithConnectionTimeout(k.config.RuntimeRequestTimeout.Duration).WithTracerProvider(nil).Build(ctx); err != nil {
				return fmt.Errorf("--image-service-endpoint %s: %w", endpoint, err)
			}
			version, err := c.runtime.Version(ctx, "")
			if err != nil {
				return fmt.Errorf("asking the runtime for its version: %w", err)
			}
			c.runtimeName = version.RuntimeName
			c.runtime, c.images = c.calls.Runtime(c.runtime), c.calls.Images(c.images)
			return nil
		}()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(each):
		}
	}
}

// recorder sends events until ctx is cancelled.
func (k *Kubelet) recorder(ctx context.Context, c *connections) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	if c.events != nil {
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.events.CoreV1().Events("")})
	}
	return broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: k.nodeName})
}

// machine reads what the node has and checks that the kubelet may run on it.
func (k *Kubelet) machine() (*resources.Node, *resources.Cgroups, error) {
	m, err := resources.ReadMachine("/", k.options.RootDir)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the machine: %w", err)
	}
	if m.Swap > 0 && *k.config.FailSwapOn {
		return nil, nil, errors.New("failSwapOn: the machine has swap; switch it off or set failSwapOn to false")
	}
	cgroups, err := resources.New(resources.Config{
		Root: k.config.CgroupRoot, Driver: k.config.CgroupDriver, PerQOS: *k.config.CgroupsPerQOS,
		Policy: resources.Policy{CPUQuota: *k.config.CPUCFSQuota, CPUPeriod: k.config.CPUCFSQuotaPeriod.Duration, PidsLimit: *k.config.PodPidsLimit},
	})
	if err != nil {
		return nil, nil, err
	}
	if cgroups.Version() == 1 && *k.config.FailCgroupV1 {
		return nil, nil, errors.New("failCgroupV1: the machine has cgroup v1; set failCgroupV1 to false to run on it all the same")
	}
	reserved, err := k.reserved(m.Capacity())
	if err != nil {
		return nil, nil, err
	}
	most := int64(k.config.MaxPods)
	if per := int64(k.config.PodsPerCore) * int64(m.CPUs); per > 0 {
		most = min(most, per)
	}
	return &resources.Node{Machine: m, Reserved: reserved, MaxPods: most}, cgroups, nil
}
