// Package testcluster starts a control plane inside a Go test: an etcd and an API
// server, in this process, with everything that a real one defaults, checks, admits and
// authorizes. There are no binaries to download, and a cluster is ready in less than half
// a second (hack/bench/testcluster measures it).
//
//	func TestMyController(t *testing.T) {
//		c := testcluster.Start(t, testcluster.WithCRDs("../config/crd/bases"))
//		mgr, err := ctrl.NewManager(c.Config, ctrl.Options{})
//		…
//	}
//
// Each call of [Start] starts a cluster of its own, which ends with its test; as many
// as one likes run at once. [New] is for what is not a test: a TestMain whose tests
// share a cluster.
//
// # What runs
//
// Alone, the API server keeps objects and acts on none: a Deployment makes no pods, a
// namespace that is deleted stays, nobody makes service accounts, so pods need none. With
// [WithControllerManager] all that happens as in any cluster, and with [WithScheduler]
// pods are given to nodes. There are no kubelets: a test that needs a node creates it,
// and writes the status of node and pods as a kubelet would.
//
// Authorization is RBAC. [Cluster.Config] may do everything, [Cluster.As] gives a test
// other users. Webhooks are called: the API server reaches whatever this process listens on.
//
// Data is in a temporary directory and is not synced to disk.
//
// # What clusters of a process share
//
// Components log with klog, to standard error unless the process has told klog
// otherwise. Feature gates and the registry of metrics are the process's, so
// clusters with different --feature-gates belong into different test binaries.
package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// startTimeout is how long a cluster may take to start on a busy machine.
const startTimeout = time.Minute

// pollInterval is the time between two looks at whether something is ready.
const pollInterval = 10 * time.Millisecond

// Cluster is a running control plane, as one user sees it.
type Cluster struct {
	// Config is how to reach the API server, and as whom: for a Cluster that Start or New
	// has returned, as a member of system:masters. Its certificates are in memory,
	// requests are not throttled, and answers are not compressed.
	Config *rest.Config
	// Etcd reads and writes what the API server has stored, and knows where etcd listens.
	Etcd *clientv3.Client

	*parts
}

// parts are what all views of a cluster share.
type parts struct {
	dir   string
	pki   *pki
	stops []func() error // in the order of starting

	mu    sync.Mutex
	users []*rest.Config // whose connections hangUp knows
}

// Start starts a control plane, waits until it is ready, and stops it when the test and
// its cleanups that were registered later are over. What goes wrong fails the test.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := New(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// New does what Start does where there is no test, as in TestMain. ctx bounds the start
// alone; the cluster runs until Stop.
func New(ctx context.Context, opts ...Option) (_ *Cluster, err error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{parts: &parts{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("testcluster: %w", errors.Join(err, c.stop()))
		}
	}()
	if err := c.start(ctx, &o); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o *options) error {
	if err := o.validate(); err != nil {
		return err
	}
	var err error
	if c.dir, err = os.MkdirTemp("", "testcluster-"); err != nil {
		return err
	}
	c.stops = append(c.stops, func() error { return os.RemoveAll(c.dir) })
	if c.pki, err = newPKI(c.dir); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	etcdURL, err := c.startEtcd()
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := c.startAPIServer(ctx, etcdURL, o); err != nil {
		return err
	}
	if err := c.create(ctx, o); err != nil {
		return err
	}
	if o.controllerManager {
		if err := c.startControllerManager(ctx, o.controllerManagerFlags); err != nil {
			return err
		}
	}
	if o.scheduler {
		return c.startScheduler(ctx, o)
	}
	return nil
}

// Stop ends the cluster and removes its data. An error says what did not end well, or had
// ended before.
func (c *Cluster) Stop() error {
	if err := c.stop(); err != nil {
		return fmt.Errorf("testcluster: %w", err)
	}
	return nil
}

func (p *parts) stop() error {
	var errs []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		errs = append(errs, p.stops[i]())
	}
	p.stops = nil
	return errors.Join(errs...)
}

// As returns the cluster as a user sees it who belongs to the given groups, and to
// system:authenticated, and may do what RBAC says: at first, next to nothing. The
// user has a client certificate. "system:serviceaccount:NAMESPACE:NAME" acts as a
// service account does, whose groups are system:serviceaccounts and
// system:serviceaccounts:NAMESPACE.
func (c *Cluster) As(t testing.TB, user string, groups ...string) *Cluster {
	t.Helper()
	config, err := c.configFor(user, groups)
	if err != nil {
		t.Fatalf("testcluster: a certificate for %q: %v", user, err)
	}
	return &Cluster{Config: config, Etcd: c.Etcd, parts: c.parts}
}

// configFor returns how user reaches the API server.
func (c *Cluster) configFor(user string, groups []string) (*rest.Config, error) {
	cert, key, err := c.pki.client(user, groups)
	if err != nil {
		return nil, err
	}
	config := rest.CopyConfig(c.Config)
	config.CertData, config.KeyData = cert, key
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users = append(c.users, rest.CopyConfig(config)) // the other is the caller's
	return config, nil
}

// hangUp closes connections of the cluster's users as soon as they are idle, until the
// API server has ended, which would wait for a second for each that is open.
func (p *parts) hangUp(ended <-chan struct{}) {
	p.mu.Lock()
	users := slices.Clone(p.users)
	p.mu.Unlock()
	for {
		for _, config := range users {
			// Clients of the same user share connections.
			if t, err := rest.TransportFor(config); err == nil {
				utilnet.CloseIdleConnectionsFor(t)
			}
		}
		select {
		case <-ended:
			return
		case <-time.After(pollInterval):
		}
	}
}

// Client returns a client for the built-in kinds. Make others from Config.
func (c *Cluster) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	return client
}

// Kubeconfig returns the path of a kubeconfig file, which is there until the test ends, for
// what runs outside of this process: kubectl, helm, another component.
func (c *Cluster) Kubeconfig(t testing.TB) string {
	t.Helper()
	path := t.TempDir() + "/kubeconfig"
	if err := writeKubeconfig(path, c.Config); err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	return path
}

func writeKubeconfig(path string, c *rest.Config) error {
	const name = "testcluster"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData, DisableCompression: c.DisableCompression}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	return clientcmd.WriteToFile(*kubeconfig, path)
}

// poll calls done until it is, or ctx ends; why says what it waits for.
func poll(ctx context.Context, done func() (ok bool, why error, err error)) error {
	for {
		ok, why, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), why)
		case <-time.After(pollInterval):
		}
	}
}

// anyPort is where to listen on a port of the system's choice.
func anyPort() url.URL { return url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", "0")} }
