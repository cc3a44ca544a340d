package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/cluster/machine"
	"github.com/leme-k8s/leme/pkg/cluster/machine/boot"
)

const (
	// nodeVariable and initVariable mark, in the environment, processes of further
	// nodes, and the first process of each.
	nodeVariable = "LEME_NODE"
	initVariable = "LEME_NODE_INIT"
	// initProgram is the first process of a further node, in the runtime directory.
	initProgram = "leme-init"
	// nodeService begins the name of the service that is a further node.
	nodeService = "node "
)

// A furtherTask is a further node that is kept running.
type furtherTask struct {
	*task
	// cut is whether the node ends like by a power cut, and not in order.
	cut *atomic.Bool
}

// startNode keeps a further node running: its machine, and the process in it that runs
// the node. A machine that runs already is taken over with all its pods.
func (r *running) startNode(f FurtherNode) *furtherTask {
	cut := &atomic.Bool{}
	t := r.nodes.start(service{name: nodeService + f.Name, run: func(ctx context.Context) error {
		return r.runNode(ctx, f, cut)
	}})
	return &furtherTask{task: t, cut: cut}
}

func (r *running) runNode(ctx context.Context, f FurtherNode, cut *atomic.Bool) error {
	s, with := r.now()
	if err := r.writeNodeFiles(s, f, with); err != nil {
		return fmt.Errorf("files of the node: %w", err)
	}
	m, err := bootNode(ctx, s, f)
	if err != nil {
		return err
	}
	defer m.Close()
	// To a node that is ended like this, nothing happens in order.
	defer func() {
		if ctx.Err() != nil && cut.Load() {
			if err := m.Kill(context.WithoutCancel(ctx)); err != nil {
				klog.FromContext(ctx).Error(err, "The node's machine goes on", "node", f.Name)
			}
		}
	}()
	if err := r.awaitTurn(ctx, f); err != nil {
		return err
	}
	r.restoreRoute(ctx, f)
	images, err := r.images()
	if err != nil {
		return err
	}
	l, err := m.Listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(defaultPorts.Registry)))
	if err != nil {
		return fmt.Errorf("registry of images: %w", err)
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		if err := images.serve(serving, r.dir, l); err != nil {
			klog.FromContext(ctx).Error(err, "The node gets no images any more", "node", f.Name)
		}
	}()
	return r.supervise(ctx, f, m, cut)
}

// supervise runs the process that runs the node, and waits for its end.
func (r *running) supervise(ctx context.Context, f FurtherNode, m *machine.Machine, cut *atomic.Bool) error {
	cmd, err := nodeCommand(ctx, r.dir, f, false)
	if err != nil {
		return err
	}
	defer cmd.log.Close()
	end := cmd.Cancel
	cmd.Cancel = func() error {
		if cut.Load() {
			return m.Kill(context.WithoutCancel(ctx))
		}
		return end()
	}
	if err := m.Start(cmd.Cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w, see %s", err, cmd.log.Name())
	}
	return nil
}

// A nodeCmd is the process that runs a node, with its log.
type nodeCmd struct {
	*exec.Cmd
	log *os.File
}

// nodeCommand runs a node for as long as its standard input is open; cancelled, it is closed.
func nodeCommand(ctx context.Context, d dataDir, f FurtherNode, idle bool) (*nodeCmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"node-run"}
	if idle {
		args = append(args, "--idle")
	}
	if err := os.MkdirAll(d.nodeDir(f.Name).path("log"), 0o700); err != nil {
		return nil, err
	}
	log, err := openLog(d.nodeDir(f.Name).log("node"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(plainEnvironment(), d.environment(), nodeVariable+"="+f.Name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = 30 * time.Second
	return &nodeCmd{Cmd: cmd, log: log}, nil
}

// plainEnvironment is this process's, without what is of the user who started it.
func plainEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "KUBECONFIG=") || strings.HasPrefix(e, "TMPDIR=") || strings.HasPrefix(e, "HOME=")
	})
}

// initMark finds a node's machine.
func initMark(d dataDir, name string) string { return initVariable + "=" + d.node(name) }

// bootNode returns the machine of a node: the one that runs, or a new one.
func bootNode(ctx context.Context, s *State, f FurtherNode) (*machine.Machine, error) {
	d := dataDir(s.Config.DataDir)
	m, err := machine.Find(initMark(d, f.Name))
	if m != nil || err != nil {
		return m, err
	}
	runtimeDir, err := filepath.EvalSymlinks(s.Config.RuntimeDir)
	if err != nil {
		return nil, err
	}
	// The machine of a node that died may have left its cgroups.
	if err := machine.RemoveCgroups(ctx, s.nodeID(f)); err != nil {
		return nil, err
	}
	link, err := s.link(f)
	if err != nil {
		return nil, err
	}
	return machine.Start(ctx, machine.Spec{
		Mark:        initMark(d, f.Name),
		Environment: []string{d.environment(), nodeVariable + "=" + f.Name},
		Init:        filepath.Join(runtimeDir, initProgram),
		Root:        d.node(f.Name),
		Hostname:    f.Name,
		Cgroup:      s.nodeID(f),
		Link:        link,
		Binds: []boot.Bind{
			{Source: runtimeDir, Target: machineRuntime},
		},
		Memory: []string{machineDir.run("")},
	})
}

// nodeID is a node's name where names are this machine's.
func (s *State) nodeID(f FurtherNode) string { return fmt.Sprintf("%s-%d", s.id(), f.Number) }

func (s *State) link(f FurtherNode) (machine.Link, error) {
	ip, err := s.hostIP()
	if err != nil {
		return machine.Link{}, err
	}
	host, err := netip.ParseAddr(ip)
	if err != nil {
		return machine.Link{}, fmt.Errorf("networking.nodeIP: %w", err)
	}
	return machine.Link{Name: s.nodeID(f), Address: s.nodeIP(f), Gateway: s.gateway(), Host: host}, nil
}

// writeNodeFiles writes what a node is told by its cluster.
func (r *running) writeNodeFiles(s *State, f FurtherNode, with map[string]string) error {
	d, ip := r.dir.nodeDir(f.Name), s.nodeIP(f).String()
	if err := ensureNodePKI(r.dir.pki(""), d.pki(""), nodeLeaves(f.Name, ip), time.Now()); err != nil {
		return err
	}
	if err := writeKubeconfigs(d, s.Config.Name, s.nodeServer(), nodeComponents...); err != nil {
		return err
	}
	if _, err := writeResolvConf(d.config("resolv.conf")); err != nil {
		return err
	}
	if _, err := writeResolvConf(filepath.Join(r.dir.node(f.Name), "etc", "resolv.conf")); err != nil {
		return err
	}
	for _, name := range nodeComponents {
		if binary := s.binary(f.Name, name, with); binary != "" {
			if err := install(binary, d.binary(name)); err != nil {
				return err
			}
		}
	}
	return furtherNode(s, f, with).save(d.nodeSpec())
}

// install copies a program, unless it is there.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	want, err := in.Stat()
	if err != nil {
		return err
	}
	if have, err := os.Stat(to); err == nil && have.Size() == want.Size() && have.ModTime().Equal(want.ModTime()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o700), out.Close()); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if err := os.Chtimes(out.Name(), want.ModTime(), want.ModTime()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// awaitTurn has a new node wait until the first one has its range of pod addresses:
// the first range, which it assumes from the start.
func (r *running) awaitTurn(ctx context.Context, f FurtherNode) error {
	if _, err := os.Stat(r.dir.nodeDir(f.Name).cniConfig()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, _ := r.now()
	client, err := r.client()
	if err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		first, err := client.CoreV1().Nodes().Get(ctx, s.Config.Node.Name, metav1.GetOptions{})
		return err == nil && first.Spec.PodCIDR != "", nil
	})
}

func (r *running) client() (kubernetes.Interface, error) {
	config, err := adminClient(r.dir)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// awaitFurther waits until a further node that was started at a time is ready, or cannot be.
func (r *running) awaitFurther(ctx context.Context, client kubernetes.Interface, name string, started time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_ = poll(ctx, func() (bool, error) {
			for _, svc := range r.supervisor.list() {
				if svc.Name == nodeService+name && svc.Restarts > 2 {
					cancel(errors.New(svc.Error))
				}
			}
			return false, nil
		})
	}()
	// What the node object says may be from before the node was switched off.
	err := poll(ctx, func() (bool, error) {
		l, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
		return err == nil && l.Spec.RenewTime != nil && l.Spec.RenewTime.After(started), nil
	})
	if err == nil {
		err = awaitNode(ctx, client, name)
	}
	if err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// followRoutes leads the packets for each further node's pods to it.
func (r *running) followRoutes() {
	r.tasks[routesService] = r.nodes.start(service{name: routesService, run: func(ctx context.Context) error {
		client, err := r.client()
		if err != nil {
			return err
		}
		set := func(o any) {
			node := o.(*corev1.Node)
			if err := r.setRoute(node); err != nil {
				klog.FromContext(ctx).Error(err, "Packets do not get to the node's pods", "node", node.Name, "range", node.Spec.PodCIDR)
			}
		}
		source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.Everything())
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: source, ObjectType: &corev1.Node{},
			Handler: cache.ResourceEventHandlerFuncs{AddFunc: set, UpdateFunc: func(_, now any) { set(now) }},
		})
		informer.RunWithContext(ctx)
		return nil
	}})
}

// restoreRoute leads packets to the pods of a node whose interface is new. If the API
// server does not answer yet, or does not know the node, followRoutes will do it.
func (r *running) restoreRoute(ctx context.Context, f FurtherNode) {
	client, err := r.client()
	if err != nil {
		return
	}
	if node, err := client.CoreV1().Nodes().Get(ctx, f.Name, metav1.GetOptions{}); err == nil {
		err = r.setRoute(node)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Packets do not get to the node's pods", "node", f.Name)
		}
	}
}

const routesService = "node routes"

func (r *running) setRoute(n *corev1.Node) error {
	s, _ := r.now()
	f, ok := s.node(n.Name)
	if !ok || f.Stopped || n.Spec.PodCIDR == "" {
		return nil
	}
	pods, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		return err
	}
	link, err := s.link(*f)
	if err != nil {
		return err
	}
	return link.Route(pods)
}
