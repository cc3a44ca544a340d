package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/tracing"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/component"
)

const (
	etcdDialTimeout      = 20 * time.Second
	etcdKeepAlive        = 30 * time.Second
	etcdKeepAliveTimeout = 10 * time.Second
)

// etcdBackoff is how soon a refused connection is tried again. An etcd that starts at
// the same time listens within milliseconds, where gRPC would wait for a second.
var etcdBackoff = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}

// etcdClients are the server's connections to etcd: one for each list of servers. The
// library makes one for each resource, whose handshakes take longer than the rest of
// the server's start and whose buffers take more memory than a small cluster's objects.
type etcdClients struct {
	mu      sync.Mutex
	clients map[string]*etcdClient
	filling []*cacher.Cacher // caches that nobody has waited for yet
}

// An etcdClient is a connection and what keeps its etcd from growing, for as long as
// a store uses them.
type etcdClient struct {
	*kubernetes.Client
	compactor interface {
		etcd3.Compactor
		Stop()
	}
	users int
}

// get returns the connection to the servers of t, and what to call when done with it.
func (e *etcdClients) get(t storagebackend.TransportConfig, compactionInterval time.Duration) (*etcdClient, func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := strings.Join(t.ServerList, ",")
	c := e.clients[key]
	if c == nil {
		client, err := newEtcdClient(t)
		if err != nil {
			return nil, nil, fmt.Errorf("connecting to etcd at %s: %w", key, err)
		}
		// What the stores get, see forStore, has no endpoints to ask. Without it, whoever
		// lists or watches what nobody changes waits in vain for the cache to be fresh.
		etcdfeature.DefaultFeatureSupportChecker.CheckClient(client.Ctx(), client.Client, storage.RequestWatchProgress)
		c = &etcdClient{Client: client}
		if compactionInterval > 0 {
			c.compactor = etcd3.NewCompactor(client.Client, compactionInterval, clock.RealClock{}, func() {})
		}
		e.clients[key] = c
	}
	c.users++
	return c, sync.OnceFunc(func() { e.release(key, c) }), nil
}

func (e *etcdClients) release(key string, c *etcdClient) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	delete(e.clients, key)
	if c.compactor != nil {
		c.compactor.Stop()
	}
	_ = c.Close() // nobody waits for an answer any more
}

// newEtcdClient returns when etcd has answered.
func newEtcdClient(t storagebackend.TransportConfig) (*kubernetes.Client, error) {
	config := clientv3.Config{
		Endpoints:            t.ServerList,
		DialTimeout:          etcdDialTimeout,
		DialKeepAliveTime:    etcdKeepAlive,
		DialKeepAliveTimeout: etcdKeepAliveTimeout,
		Logger:               zap.NewNop(), // errors are returned, and logged by whoever gets them
	}
	if t.CertFile != "" || t.KeyFile != "" || t.TrustedCAFile != "" {
		var err error
		if config.TLS, err = (transport.TLSInfo{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.TrustedCAFile}).ClientConfig(); err != nil {
			return nil, err
		}
	}
	metrics, err := grpcMetrics()
	if err != nil {
		return nil, err
	}
	config.DialOptions = []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: etcdBackoff, MinConnectTimeout: etcdDialTimeout}),
		grpc.WithChainUnaryInterceptor(metrics.UnaryClientInterceptor()),
		grpc.WithChainStreamInterceptor(metrics.StreamClientInterceptor()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithMessageEvents(otelgrpc.ReceivedEvents, otelgrpc.SentEvents),
			otelgrpc.WithPropagators(tracing.Propagators()),
			otelgrpc.WithTracerProvider(t.TracerProvider))),
	}
	if t.EgressLookup != nil {
		dial, err := t.EgressLookup(egressselector.Etcd.AsNetworkContext())
		if err != nil {
			return nil, err
		}
		if dial != nil {
			config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(dialTCP(dial)))
		}
	}
	client, err := kubernetes.New(config)
	if err != nil {
		return nil, err
	}
	if err := awaitEtcd(client.Client); err != nil {
		_ = client.Close()
		return nil, err
	}
	return client, nil
}

func awaitEtcd(client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(client.Ctx(), etcdDialTimeout)
	defer cancel()
	conn := client.ActiveConnection()
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		conn.Connect()
		if !conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("no answer: connection is %s: %w", strings.ToLower(state.String()), ctx.Err())
		}
	}
}

// dialTCP lets gRPC dial as the server's egress configuration says.
func dialTCP(dial utilnet.DialFunc) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			address = u.Host
		}
		return dial(ctx, "tcp", address)
	}
}

// forStore returns a client on the same connection whose watches have a stream of
// their own: asking how far one resource's watch has come does not wake all others.
func (c *etcdClient) forStore() *kubernetes.Client {
	own := clientv3.NewCtxClient(c.Ctx())
	own.KV = etcd3.NewETCDLatencyTracker(c.KV)
	own.Lease = c.Lease
	own.Watcher = clientv3.NewWatcher(c.Client.Client)
	k := &kubernetes.Client{Client: own}
	k.Kubernetes = k
	return k
}

// raw is the library's undecorated storage on a shared connection.
func (e *etcdClients) raw(c *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	client, release, err := e.get(c.Transport, c.CompactionInterval)
	if err != nil {
		return nil, nil, err
	}
	transformer := c.Transformer
	if transformer == nil {
		transformer = identity.NewEncryptCheckTransformer()
	}
	versioner := storage.APIObjectVersioner{}
	decoder := etcd3.NewDefaultDecoder(c.Codec, versioner)
	deleteCorrupt := utilfeature.DefaultFeatureGate.Enabled(genericfeatures.AllowUnsafeMalformedObjectDeletion)
	if deleteCorrupt {
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	own := client.forStore()
	store, err := etcd3.New(own, client.compactor, c.Codec, newFunc, newListFunc, c.Prefix, resourcePrefix, c.GroupResource,
		transformer, c.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		release()
		return nil, nil, err
	}
	destroy := sync.OnceFunc(func() {
		store.Close()
		_ = own.Watcher.Close() // its watches have ended
		release()
	})
	if deleteCorrupt {
		return etcd3.NewStoreWithUnsafeCorruptObjectDeletion(store, c.GroupResource), destroy, nil
	}
	return store, destroy, nil
}

// withCache is the library's storage with a watch cache on a shared connection.
func (e *etcdClients) withCache(c *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (*cacher.Cacher, storage.Interface, factory.DestroyFunc, error) {
	store, destroyStore, err := e.raw(c, resourcePrefix, keyFunc, newFunc, newListFunc, attrs, triggers, indexers)
	if err != nil {
		return nil, nil, nil, err
	}
	watchCache, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage:             store,
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       c.GroupResource,
		EventsHistoryWindow: c.EventsHistoryWindow,
		ResourcePrefix:      resourcePrefix,
		KeyFunc:             keyFunc,
		NewFunc:             newFunc,
		NewListFunc:         newListFunc,
		GetAttrsFunc:        attrs,
		IndexerFuncs:        triggers,
		Indexers:            indexers,
		Codec:               c.Codec,
		// Each of them looks once a second whether a bookmark is due.
		Clock: component.Coarse{Period: time.Second},
	})
	if err != nil {
		destroyStore()
		return nil, nil, nil, err
	}
	delegator := cacher.NewCacheDelegator(watchCache, store)
	return watchCache, queuedStore{delegator}, sync.OnceFunc(func() {
		delegator.Stop()
		watchCache.Stop()
		destroyStore()
	}), nil
}

// cacheFilling is how long a cache may take to be filled before it is used as it is: it
// refuses requests, and asks clients to come back in a second.
const cacheFilling = time.Second

// cached is a store whose cache fills while the server is assembled; see awaitCaches.
func (e *etcdClients) cached(c *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	watchCache, store, destroy, err := e.withCache(c, resourcePrefix, keyFunc, newFunc, newListFunc, attrs, triggers, indexers)
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.filling = append(e.filling, watchCache)
	}
	return store, destroy, err
}

// awaitCaches waits until the caches of the stores that have been made so far have what
// etcd has.
func (e *etcdClients) awaitCaches(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cacheFilling)
	defer cancel()
	e.mu.Lock()
	caches := e.filling
	e.filling = nil
	e.mu.Unlock()
	for _, c := range caches {
		_ = c.Wait(ctx) // whoever uses it is told
	}
}

// cachedReady is a store that is there once its cache has what etcd has.
func (e *etcdClients) cachedReady(c *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	watchCache, store, destroy, err := e.withCache(c, resourcePrefix, keyFunc, newFunc, newListFunc, attrs, triggers, indexers)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cacheFilling)
	defer cancel()
	_ = watchCache.Wait(ctx) // whoever uses it is told
	return store, destroy, nil
}

// grpcMetrics returns the metrics of gRPC clients that the library has registered.
func grpcMetrics() (*grpcprom.ClientMetrics, error) {
	metrics := grpcprom.NewClientMetrics()
	err := legacyregistry.Registerer().Register(metrics)
	var registered prometheus.AlreadyRegisteredError
	if !errors.As(err, &registered) {
		return metrics, err
	}
	if have, ok := registered.ExistingCollector.(*grpcprom.ClientMetrics); ok {
		return have, nil
	}
	return nil, err
}
