package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
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

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
	"github.com/leme-k8s/leme/pkg/cluster/machine"
	"github.com/leme-k8s/leme/pkg/component"
)

// Components make the options of each component that can run inside leme, by name.
type Components map[string]func() component.Options

// A running cluster.
type running struct {
	dir        dataDir
	components Components
	nodeIP     string
	upstream   bool // there is a name server beyond the cluster
	images     func() (*registry, error)

	supervisor *supervisor
	progress   progress
	tasks      map[string]*task // the components of this machine
	nodes      *group           // the further nodes

	// changing is held while the cluster is changed; what is changed is below.
	changing sync.Mutex
	further  map[string]*furtherTask

	mu    sync.Mutex
	state *State // never changed, but replaced
	with  map[string]string
}

// now is the cluster's state, and the programs that were asked for this time.
func (r *running) now() (*State, map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.with
}

func (r *running) setState(s *State, with map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.with = s, with
}

// heapGrowth is by how many percent the heap grows between two collections. What a start leaves in use lies scattered
// over all that the heap has grown to, and a heap that grows by half holds a tenth less.
const heapGrowth = 50

// run prepares and runs the cluster of d until ctx is cancelled. The caller holds
// the lock of d. Pods go on running when it returns.
func run(ctx context.Context, d dataDir, components Components, with map[string]string) error {
	r := &running{
		dir: d, components: components, with: with,
		supervisor: &supervisor{clock: clock.RealClock{}}, tasks: map[string]*task{}, further: map[string]*furtherTask{},
	}
	r.progress.began = time.Now()
	go component.TendMemory(ctx, heapGrowth, 0)
	r.changing.Lock() // until everything is started
	control, err := serveControl(ctx, d.controlSocket(), r.routes())
	if err != nil {
		return err
	}
	defer control.Close()
	s, err := loadState(d)
	if err != nil {
		return err
	}
	r.setState(s, with)
	r.images = sync.OnceValues(func() (*registry, error) { return openRegistry(s.Config.ImagesDir) })
	if err := r.prepare(ctx, s); err != nil {
		return err
	}

	// What others need ends last.
	base, server, clients := r.supervisor.group(ctx), r.supervisor.group(ctx), r.supervisor.group(ctx)
	r.nodes = r.supervisor.group(ctx)
	r.startAll(s, base, server, clients)
	r.changing.Unlock()

	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if err := r.awaitReady(starting, s); err != nil && starting.Err() == nil {
			r.progress.fail(err)
		}
	}()
	<-ctx.Done()
	klog.FromContext(ctx).Info("Stopping")
	return errors.Join(r.nodes.stop(20*time.Second), clients.stop(10*time.Second), server.stop(10*time.Second), base.stop(10*time.Second))
}

// prepare writes the files that everything starts from.
func (r *running) prepare(ctx context.Context, s *State) error {
	d := r.dir
	var err error
	if r.nodeIP, err = s.hostIP(); err != nil {
		return err
	}
	err = r.progress.step("certificates", func() error {
		if err := ensurePKI(d.pki(""), leaves(s, r.nodeIP), time.Now()); err != nil {
			return err
		}
		return writeKubeconfigs(d, s.Config.Name, s.server(), slices.Sorted(maps.Keys(kubeconfigs))...)
	})
	if err != nil {
		return err
	}
	return r.progress.step("node", func() error {
		if err := os.MkdirAll(d.path("etcd"), 0o700); err != nil {
			return err
		}
		if r.upstream, err = writeResolvConf(d.config("resolv.conf")); err != nil {
			return err
		}
		if err := r.agent(s, r.with).prepare(ctx); err != nil {
			return err
		}
		if err := newPodNetwork(s).prepare(ctx); err != nil {
			return err
		}
		if err := machine.CreateCgroup(s.id()); err != nil {
			return fmt.Errorf("cgroup %s: %w", s.id(), err)
		}
		return nil
	})
}

// agent is this machine as a node.
func (r *running) agent(s *State, with map[string]string) *agent {
	return &agent{dir: r.dir, spec: firstNode(s, r.nodeIP, with), components: r.components}
}

// startAll starts everything at once: whoever needs another one tries until it answers.
func (r *running) startAll(s *State, base, server, clients *group) {
	if len(s.Config.Etcd.Servers) == 0 {
		base.start(etcdService(r.dir, s))
	}
	base.start(r.registryService())
	base.start(r.agent(s, r.with).containerd())
	for _, name := range v1alpha1.Components {
		g := clients
		if name == "kube-apiserver" {
			g = server
		}
		r.tasks[name] = g.start(r.service(name, s, r.with))
	}
	for _, f := range s.Nodes {
		if !f.Stopped {
			r.further[f.Name] = r.startNode(f)
		}
	}
	if len(s.Nodes) > 0 {
		r.followRoutes()
	}
}

// service is one component on this machine: inside this process, or from the program
// that was chosen for it.
func (r *running) service(name string, s *State, with map[string]string) service {
	if slices.Contains(nodeComponents, name) {
		return r.agent(s, with).component(name)
	}
	args := args(r.dir, s, r.nodeIP)[name]
	if binary := s.binary(s.Config.Node.Name, name, with); binary != "" {
		return fromBinary(r.dir, name, binary, args, []string{r.dir.environment()})
	}
	return inProcess(r.dir, name, r.components[name], args)
}

// awaitReady follows the cluster until it answers: the images are there, the API
// server is ready, the addons are deployed and run.
func (r *running) awaitReady(ctx context.Context, s *State) error {
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
		return r.progress.step("containerd", func() error {
			return ensureImages(ctx, r.dir.containerdSocket(), pauseImage, corednsImage)
		})
	})
	g.Go(func() error {
		if err := r.progress.step("API server", func() error { return awaitAPI(ctx, client) }); err != nil {
			return err
		}
		g.Go(func() error {
			return r.progress.step("node ready", func() error { return awaitNode(ctx, client, s.Config.Node.Name) })
		})
		for _, f := range s.Nodes {
			if !f.Stopped {
				g.Go(func() error {
					return r.progress.step(f.Name, func() error { return r.awaitFurther(ctx, client, f.Name, r.progress.began) })
				})
			}
		}
		return r.progress.step("DNS", func() error { return r.deployDNS(ctx, config, client, s) })
	})
	if err := g.Wait(); err != nil {
		return err
	}
	r.progress.finish()
	debug.FreeOSMemory() // a start needs more than what follows; at once, not when it has been quiet for a while
	if err := relaxTimers(timerSlack); err != nil {
		klog.FromContext(ctx).Info("The idle cluster will use more processor time than it need", "reason", err.Error())
	}
	return nil
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

func (r *running) deployDNS(ctx context.Context, config *rest.Config, client kubernetes.Interface, s *State) error {
	objects, err := addons(s, r.upstream)
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
	// Nodes are the further nodes.
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

func (r *running) status(ctx context.Context) Status {
	s, with := r.now()
	p := &r.progress
	out := Status{PID: os.Getpid(), DataDir: string(r.dir), Since: p.began}
	if s != nil {
		out.Name, out.Server, out.Node = s.Config.Name, s.server(), s.Config.Node.Name
		out.Nodes = r.nodeStatuses(ctx, s, with)
	}
	for _, svc := range r.supervisor.list() {
		if !strings.HasPrefix(svc.Name, nodeService) {
			out.Services = append(out.Services, svc)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out.Ready, out.Failed = p.ready, p.failed
	for _, step := range p.steps {
		out.Steps = append(out.Steps, *step)
	}
	return out
}

// routes are what can be asked of the cluster.
func (r *running) routes() []route {
	return []route{
		handler("GET /status", func(ctx context.Context, _ struct{}) (any, error) { return r.status(ctx), nil }),
		handler("POST /swap", func(ctx context.Context, s swapRequest) (any, error) { return nil, r.swap(ctx, s) }),
		handler("POST /nodes/add", func(ctx context.Context, n nodeRequest) (any, error) { return r.addNode(ctx, n.Name) }),
		handler("POST /nodes/start", func(ctx context.Context, n nodeRequest) (any, error) { return nil, r.switchOn(ctx, n.Name) }),
		handler("POST /nodes/stop", func(ctx context.Context, n nodeRequest) (any, error) { return nil, r.switchOff(ctx, n.Name) }),
		handler("POST /nodes/remove", func(ctx context.Context, n nodeRequest) (any, error) { return nil, r.removeNode(ctx, n.Name) }),
	}
}
