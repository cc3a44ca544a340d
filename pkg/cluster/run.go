package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/component"
)

// Components make the options of each component that can run inside leme, by name.
type Components map[string]func() component.Options

// A running cluster.
type running struct {
	dir        dataDir
	state      *State
	components Components
	with       map[string]string
	nodeIP     string
	upstream   bool // there is a name server beyond the cluster

	supervisor *supervisor
	progress   progress
}

// run prepares and runs the cluster of d until ctx is cancelled. The caller holds
// the lock of d. Pods go on running when it returns.
func run(ctx context.Context, d dataDir, components Components, with map[string]string) error {
	r := &running{dir: d, components: components, with: with, supervisor: &supervisor{clock: clock.RealClock{}}}
	r.progress.began = time.Now()
	control, err := r.serveControl(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	if r.state, err = loadState(d); err != nil {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}

	// What others need ends last.
	base, server, clients := r.supervisor.group(ctx), r.supervisor.group(ctx), r.supervisor.group(ctx)
	r.startAll(ctx, base, server, clients)

	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if err := r.awaitReady(starting); err != nil && starting.Err() == nil {
			r.progress.fail(err)
		}
	}()
	<-ctx.Done()
	klog.FromContext(ctx).Info("Stopping")
	return errors.Join(clients.stop(10*time.Second), server.stop(10*time.Second), base.stop(10*time.Second))
}

// prepare writes the files that everything starts from.
func (r *running) prepare(ctx context.Context) error {
	s, d := r.state, r.dir
	var err error
	if r.nodeIP = s.Config.Networking.NodeIP; r.nodeIP == "" {
		if r.nodeIP, err = nodeAddress(); err != nil {
			return err
		}
	}
	err = r.progress.step("certificates", func() error {
		if err := ensurePKI(d.pki(""), leaves(s, r.nodeIP), time.Now()); err != nil {
			return err
		}
		return writeKubeconfigs(d, s)
	})
	if err != nil {
		return err
	}
	return r.progress.step("node", func() error {
		for _, dir := range []string{"log", "log/pods", "manifests", "kubelet/volume-plugins", "etcd"} {
			if err := os.MkdirAll(d.path(dir), 0o700); err != nil {
				return err
			}
		}
		if r.upstream, err = writeResolvConf(d.config("resolv.conf")); err != nil {
			return err
		}
		if err := writeComponentConfigs(d, s); err != nil {
			return err
		}
		if err := containerdFiles(d, s, s.Config.RuntimeDir); err != nil {
			return err
		}
		return newNode(s, r.nodeIP).prepare(ctx)
	})
}

func newNode(s *State, ip string) *node {
	return &node{dir: dataDir(s.Config.DataDir), id: s.id(), ip: ip, podCIDR: s.nodePodCIDR()}
}

// startAll starts everything at once: whoever needs another one tries until it answers.
func (r *running) startAll(ctx context.Context, base, server, clients *group) {
	s, d := r.state, r.dir
	if len(s.Config.Etcd.Servers) == 0 {
		base.start(etcdService(d, s))
	}
	base.start(registryService(d, s, s.Config.ImagesDir))
	base.start(containerdService(d, s.Config.RuntimeDir))
	all := args(d, s, r.nodeIP)
	server.start(r.component("kube-apiserver", all))
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"} {
		clients.start(r.component(name, all))
	}
}

// component is the service of one component: inside this process, or from the
// binary that the flag --with or the configuration names.
func (r *running) component(name string, args map[string][]string) service {
	binary := r.with[name]
	if binary == "" {
		binary = r.state.Config.Components[name].Binary
	}
	if binary != "" {
		return fromBinary(r.dir, name, binary, args[name])
	}
	return inProcess(r.dir, name, r.components[name], args[name])
}

// awaitReady follows the cluster until it answers: the images are there, the API
// server is ready, the addons are deployed and run.
func (r *running) awaitReady(ctx context.Context) error {
	config, err := adminClient(r.dir)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.progress.step("containerd", func() error { return r.awaitContainerd(ctx) })
	})
	g.Go(func() error {
		if err := r.progress.step("API server", func() error { return awaitAPI(ctx, client) }); err != nil {
			return err
		}
		g.Go(func() error {
			return r.progress.step("node ready", func() error { return awaitNode(ctx, client, r.state.Config.Node.Name) })
		})
		return r.progress.step("DNS", func() error { return r.deployDNS(ctx, config, client) })
	})
	if err := g.Wait(); err != nil {
		return err
	}
	r.progress.finish()
	debug.FreeOSMemory() // a start needs more than what follows, which may take long to ask for it
	return nil
}

// awaitContainerd waits for containerd and has it fetch the images that the first
// pods will need, while the rest of the cluster starts.
func (r *running) awaitContainerd(ctx context.Context) error {
	c, err := newCRIClient(r.dir)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.ready(ctx); err != nil {
		return err
	}
	images, ictx := errgroup.WithContext(ctx)
	for _, image := range []string{pauseImage, corednsImage} {
		images.Go(func() error { return c.ensureImage(ictx, image) })
	}
	return images.Wait()
}

func awaitAPI(ctx context.Context, client kubernetes.Interface) error {
	return poll(ctx, func() (bool, error) {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, nil
	})
}

func awaitNode(ctx context.Context, client kubernetes.Interface, name string) error {
	return poll(ctx, func() (bool, error) {
		n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, nil // not registered yet
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue && time.Since(c.LastHeartbeatTime.Time) < time.Minute, nil
			}
		}
		return false, nil
	})
}

func (r *running) deployDNS(ctx context.Context, config *rest.Config, client kubernetes.Interface) error {
	objects, err := addons(r.state, r.upstream)
	if err != nil {
		return err
	}
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := applyAddons(ctx, d, objects); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		deployment, err := client.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{})
		if apierrors.IsForbidden(err) {
			return false, err
		}
		if err != nil || deployment.Status.ObservedGeneration < deployment.Generation {
			return false, nil
		}
		for _, c := range deployment.Status.Conditions {
			if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue {
				return deployment.Status.ReadyReplicas > 0, nil
			}
		}
		return false, nil
	})
}

// poll asks until the answer is yes or an error.
func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// A Step of starting the cluster.
type Step struct {
	Name string        `json:"name"`
	Done bool          `json:"done"`
	Took time.Duration `json:"took"` // since the start began
}

// progress records how far the start has come.
type progress struct {
	began time.Time

	mu     sync.Mutex
	steps  []*Step
	ready  bool
	failed string
}

func (p *progress) step(name string, do func() error) error {
	p.mu.Lock()
	step := &Step{Name: name}
	p.steps = append(p.steps, step)
	p.mu.Unlock()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	step.Done, step.Took = true, time.Since(p.began)
	return nil
}

func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
}

func (p *progress) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err.Error()
}

// Status is what a running cluster says of itself.
type Status struct {
	PID      int             `json:"pid"`
	Name     string          `json:"name"`
	DataDir  string          `json:"dataDir"`
	Server   string          `json:"server,omitempty"`
	Node     string          `json:"node,omitempty"`
	Since    time.Time       `json:"since"`
	Ready    bool            `json:"ready"`
	Failed   string          `json:"failed,omitempty"`
	Steps    []Step          `json:"steps"`
	Services []ServiceStatus `json:"services"`
}

func (r *running) status() Status {
	p := &r.progress
	out := Status{PID: os.Getpid(), DataDir: string(r.dir), Since: p.began, Services: r.supervisor.list()}
	p.mu.Lock()
	defer p.mu.Unlock()
	out.Ready, out.Failed = p.ready, p.failed
	for _, s := range p.steps {
		out.Steps = append(out.Steps, *s)
	}
	if len(out.Services) > 0 { // the state is loaded
		out.Name, out.Server, out.Node = r.state.Config.Name, r.state.server(), r.state.Config.Node.Name
	}
	return out
}

// serveControl answers for the cluster on a socket that only root can open.
func (r *running) serveControl(ctx context.Context) (*http.Server, error) {
	path := r.dir.controlSocket()
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
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, r.status()) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "Nobody can ask for the cluster's status any more")
		}
	}()
	return server, nil
}
