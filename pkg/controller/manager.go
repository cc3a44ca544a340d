package controller

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/component/election"
	"github.com/leme-k8s/leme/pkg/controller/csrsigning"
	"github.com/leme-k8s/leme/pkg/controller/internal/fanout"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/sharing"
	"github.com/leme-k8s/leme/pkg/controller/internal/terse"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
	"github.com/leme-k8s/leme/pkg/controller/rootca"
	"github.com/leme-k8s/leme/pkg/controller/storageversiongc"
)

// Manager is an assembled controller manager.
type Manager struct {
	options Options
	config  *rest.Config
	rootCA  []byte
	signers csrsigning.Signers
	gates   map[string]bool // all of them
	// serviceAccountKey signs the tokens of service accounts in Secrets.
	serviceAccountKey crypto.Signer
}

// Run waits for the API server, becomes the leader and runs the controllers until
// ctx is cancelled or the lead is lost.
func (m *Manager) Run(ctx context.Context) error {
	ctrllog.SetLogger(klog.Background()) // for what controller-runtime logs outside of a manager
	if err := waitForAPI(ctx, m.config); err != nil {
		return err
	}
	serving := *m.options.Serving
	serving.Metrics = metrics.NewKubeRegistry() // several managers may run in one process
	serving.NativeHistograms = component.NativeHistograms(m.gates)
	checks := []healthz.HealthChecker{healthz.PingHealthz}
	elector, err := m.newElector()
	if err != nil {
		return err
	}
	if elector != nil {
		checks = append(checks, elector.WatchDog)
	}
	server, err := serving.New(checks, nil)
	if err != nil {
		return err
	}
	mgr, err := m.newManager(ctx)
	if err != nil {
		return err
	}
	events, err := newEvents(ctx, m.config, mgr.GetScheme())
	if err != nil {
		return err
	}
	defer events.stop()
	if err := m.register(ctx, mgr, events, serving.Metrics); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	served := make(chan error, 1)
	wg.Go(func() {
		defer cancel()
		served <- server.Run(ctx)
	})
	if elector == nil {
		err = mgr.Start(ctx)
	} else { // who stands by watches nothing
		err = election.Run(ctx, *elector, mgr.Start)
	}
	cancel()
	return errors.Join(err, <-served)
}

// newElector returns what the election is held with, or nil if there is none.
func (m *Manager) newElector() (*leaderelection.LeaderElectionConfig, error) {
	l := m.options.LeaderElection
	if !l.LeaderElect {
		return nil, nil
	}
	return election.NewConfig(l.ResourceName, l, m.config)
}

// helmRelease is the type of Secrets that Helm keeps whole releases in.
const helmRelease = "helm.sh/release.v1"

func (m *Manager) newManager(ctx context.Context) (manager.Manager, error) {
	skipNames := true // several managers may run in one process
	leases := map[string]cache.Config{corev1.NamespaceNodeLease: {}}
	if m.gates[gateStorageVersions] {
		leases[metav1.NamespaceSystem] = cache.Config{LabelSelector: labels.SelectorFromSet(labels.Set{storageversiongc.IdentityLabel: storageversiongc.APIServer})}
	}
	mgr, err := manager.New(m.config, manager.Options{
		Scheme:      scheme.Scheme,
		Logger:      klog.FromContext(ctx).V(1),
		BaseContext: func() context.Context { return klog.NewContext(context.Background(), klog.FromContext(ctx)) },
		NewCache:    fanout.New,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}: {Transform: sharing.Pods(cache.TransformStripManagedFields())},
				// Of these, nothing else is looked at.
				&corev1.ConfigMap{}:     {Field: fields.OneTermEqualSelector("metadata.name", rootca.Name)},
				&coordinationv1.Lease{}: {Namespaces: leases},
				&corev1.Secret{}: {Namespaces: map[string]cache.Config{
					cache.AllNamespaces: {FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken))},
					// Here the bootstrap tokens as well; a selector cannot say "or".
					metav1.NamespaceSystem: {FieldSelector: fields.AndSelectors(
						fields.OneTermNotEqualSelector("type", string(corev1.SecretTypeOpaque)), fields.OneTermNotEqualSelector("type", string(corev1.SecretTypeTLS)),
						fields.OneTermNotEqualSelector("type", string(corev1.SecretTypeDockerConfigJson)), fields.OneTermNotEqualSelector("type", helmRelease),
					)},
				}},
			},
		},
		Controller: ctrlconfig.Controller{
			SkipNameValidation: &skipNames,
			// Reads wait until the cache has seen the controller's own writes. A watch
			// that hangs must not hang a worker for good.
			ReconciliationTimeout: 5 * time.Minute,
		},
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
	})
	if err != nil {
		return nil, fmt.Errorf("building the manager: %w", err)
	}
	return mgr, nil
}

// register adds the selected controllers to mgr.
func (m *Manager) register(ctx context.Context, mgr manager.Manager, events *events, registry metrics.KubeRegistry) error {
	selected, err := selectControllers(m.options.Controllers)
	if err != nil {
		return fmt.Errorf("--controllers: %w", err)
	}
	d := &dependencies{Manager: m, mgr: mgr, events: events, metrics: registry, pods: replicaset.NewMetrics(registry), indexed: map[string]bool{},
		progress: ownwrites.NewProgress(mgr.GetCache())}
	d.identities, err = m.identities()
	if err != nil {
		return err
	}
	log := klog.FromContext(ctx)
	for _, e := range entries {
		if !selected.Has(e.Name) {
			continue
		}
		if err := d.add(ctx, e); errors.Is(err, errLeftOut) {
			log.Info("Controller is left out", "controller", e.Name, "reason", err.Error())
		} else if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

// identities returns what makes the clients of each controller: under the
// controller's own service account, or all under the manager's.
func (m *Manager) identities() (clientbuilder.ControllerClientBuilder, error) {
	if !m.options.UseServiceAccountCredentials {
		return clientbuilder.SimpleControllerClientBuilder{ClientConfig: m.config}, nil
	}
	root, err := kubernetes.NewForConfig(m.config)
	if err != nil {
		return nil, fmt.Errorf("--use-service-account-credentials: %w", err)
	}
	return clientbuilder.NewDynamicClientBuilder(rest.AnonymousClientConfig(m.config), root.CoreV1(), metav1.NamespaceSystem), nil
}

// waitForAPI returns when the API server says that it is ready. Until then, roles
// may be missing and a refused watch would be tried again only seconds later.
func waitForAPI(ctx context.Context, cfg *rest.Config) error {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = 5 * time.Second
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	log := klog.FromContext(ctx)
	started := time.Now()
	warned := false
	err = wait.PollUntilContextCancel(ctx, 25*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		var code int
		err := cs.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Error()
		if err != nil && !warned && time.Since(started) > 5*time.Second {
			warned = true
			log.Info("Waiting for the API server", "server", cfg.Host, "status", code, "err", err)
		}
		return code == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the API server at %s: %w", cfg.Host, err)
	}
	return nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

// access is what one controller reaches the API server with.
type access struct {
	// Client reads from the shared cache, waiting until it holds what this
	// controller has written before, and writes as the controller.
	Client client.Client
	// Live reads from the API server, as the controller.
	Live client.Client
	// Config makes clients of other kinds.
	Config *rest.Config
	// Clientset is for the libraries that want one.
	Clientset kubernetes.Interface
	// Events records under the name that events of the controller are known by.
	Events record.EventRecorder
}

// access builds the clients of the controller called identity, or those of the manager itself. Events are from source.
func (d *dependencies) access(identity, source string) (*access, error) {
	cfg := d.config
	if identity != "" {
		var err error
		if cfg, err = d.identities.Config(identity); err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("building the HTTP client: %w", err)
	}
	ownWrites := true
	opts := client.Options{HTTPClient: hc, Scheme: d.mgr.GetScheme(), Mapper: d.mgr.GetRESTMapper()}
	live, err := client.New(cfg, opts)
	if err != nil {
		return nil, err
	}
	if live, err = terse.NewClient(live, cfg, hc); err != nil {
		return nil, err
	}
	opts.Cache = &client.CacheOptions{Reader: d.mgr.GetCache(), EnableReadYourWritesConsistency: &ownWrites}
	opts.Log = d.mgr.GetLogger()
	consistent, err := client.New(cfg, opts)
	if err != nil {
		return nil, err
	}
	typed := rest.CopyConfig(cfg)
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	cs, err := kubernetes.NewForConfigAndClient(typed, hc)
	if err != nil {
		return nil, err
	}
	return &access{
		Client: ownwrites.NewClient(consistent, live, d.progress), Live: live, Config: cfg, Clientset: cs,
		Events: d.events.recorder(source),
	}, nil
}
