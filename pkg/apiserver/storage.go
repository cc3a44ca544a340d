package apiserver

import (
	"fmt"
	"net/http"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	migrationv1 "k8s.io/api/storagemigration/v1"
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/leme-k8s/leme/pkg/apiserver/bootstrap"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/service"
)

// keyPrefixes are the resources whose etcd keys do not begin with their plural name.
var keyPrefixes = map[schema.GroupResource]string{
	corev1.Resource("nodes"):                  "minions",
	corev1.Resource("services"):               "services/specs",
	corev1.Resource("endpoints"):              "services/endpoints",
	corev1.Resource("replicationcontrollers"): "controllers",
	networkingv1.Resource("ingresses"):        "ingress",
}

// storedAs are the resources that the original stores in another version than the
// preferred one of the group.
var storedAs = map[schema.GroupResource]schema.GroupVersion{
	certificatesv1.Resource("clustertrustbundles"):    certificatesv1beta1.SchemeGroupVersion,
	certificatesv1.Resource("podcertificaterequests"): certificatesv1beta1.SchemeGroupVersion,
	coordinationv1.Resource("leasecandidates"):        coordinationv1beta1.SchemeGroupVersion,
	migrationv1.Resource("storageversionmigrations"):  migrationv1beta1.SchemeGroupVersion,
	resourcev1.Resource("devicetaintrules"):           resourcev1beta2.SchemeGroupVersion,
	resourcev1.Resource("resourcepoolstatusrequests"): resourcev1alpha3.SchemeGroupVersion,
	schedulingv1.Resource("workloads"):                schedulingv1beta1.SchemeGroupVersion,
	schedulingv1.Resource("podgroups"):                schedulingv1beta1.SchemeGroupVersion,
	schedulingv1.Resource("compositepodgroups"):       schedulingv1alpha3.SchemeGroupVersion,
}

// applyStorage tells c where and how objects are stored, and returns the same for objects
// that are not of the built-in kinds.
func (o *Options) applyStorage(c *server.Config, scheme *runtime.Scheme, codecs serializer.CodecFactory) (*stores, error) {
	etcd := *o.Etcd
	etcd.StorageConfig.StorageObjectCountTracker = c.StorageObjectCountTracker
	etcd.StorageConfig.Transport.TracerProvider = c.TracerProvider
	if c.EgressSelector != nil {
		etcd.StorageConfig.Transport.EgressLookup = c.EgressSelector.Lookup
	}
	// Events are written often, read seldom, and expire: caching them does not pay.
	// Leases of servers and bits of node ports are changed by compare-and-swap alone.
	sizes, err := genericoptions.WriteWatchCacheSizes(map[schema.GroupResource]int{
		corev1.Resource("events"): 0, eventsv1.Resource("events"): 0, bootstrap.LeaseResource: 0, bootstrap.PeerLeaseResource: 0, service.NodePortResource: 0,
	})
	if err != nil {
		return nil, err
	}
	etcd.WatchCacheSizes = append(sizes, etcd.WatchCacheSizes...)

	encoding := serverstorage.NewDefaultResourceEncodingConfigForEffectiveVersion(scheme, c.EffectiveVersion)
	for resource, gv := range storedAs {
		encoding.SetResourceEncoding(resource, gv, schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal})
	}
	factory := serverstorage.NewDefaultStorageFactory(etcd.StorageConfig, etcd.DefaultStorageMediaType, codecs, encoding, c.MergedResourceConfig, keyPrefixes)
	factory.AddCohabitatingResources(corev1.Resource("events"), eventsv1.Resource("events"))
	overrides, err := genericoptions.ParseEtcdServersOverrides(etcd.EtcdServersOverrides)
	if err != nil {
		return nil, err
	}
	for _, override := range overrides {
		factory.SetEtcdLocation(override.GroupResource, override.Servers)
	}
	clients := &etcdClients{clients: map[string]*etcdClient{}}
	// Only the library can check what encrypts.
	if etcd.SkipHealthEndpoints = etcd.EncryptionProviderConfigFilepath == ""; etcd.SkipHealthEndpoints {
		clients.addEtcdChecks(c, etcd.StorageConfig, overrides)
	}
	if err := etcd.ApplyWithStorageFactoryTo(factory, c); err != nil {
		return nil, err
	}
	cacheSizes, err := genericoptions.ParseWatchCacheSizes(etcd.WatchCacheSizes)
	if err != nil {
		return nil, fmt.Errorf("--watch-cache-sizes: %w", err)
	}
	cached := func(r schema.GroupResource) bool {
		size, ok := cacheSizes[r]
		return etcd.EnableWatchCache && (!ok || size > 0)
	}
	s := &stores{options: etcd, clients: clients, cached: cached, checks: clients.healthChecks(etcd.StorageConfig, overrides)}
	c.RESTOptionsGetter = hubOptions{s.share(c.RESTOptionsGetter)}
	return s, nil
}

// stores are where all objects are.
type stores struct {
	options genericoptions.EtcdOptions
	clients *etcdClients
	cached  func(schema.GroupResource) bool
	// checks ask each etcd how it is.
	checks []func(*http.Request) error
}

// share returns the options of g on the shared connections.
func (s *stores) share(g genericregistry.RESTOptionsGetter) genericregistry.RESTOptionsGetter {
	return sharedOptions{RESTOptionsGetter: g, stores: s}
}

// shareReady returns the options of g on the shared connections, for stores that are made
// when they are needed: a cache that is not filled yet would refuse whoever came for it.
func (s *stores) shareReady(g genericregistry.RESTOptionsGetter) genericregistry.RESTOptionsGetter {
	return sharedOptions{RESTOptionsGetter: g, stores: s, ready: true}
}

// in returns the options of a group that is stored as the given versions, the first of
// them when it is written.
func (s *stores) in(codecs serializer.CodecFactory, transformers value.ResourceTransformers, versions ...schema.GroupVersion) genericregistry.RESTOptionsGetter {
	options := s.options
	options.StorageConfig.Codec = codecs.LegacyCodec(versions...)
	options.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(versions[0], schema.GroupKind{Group: versions[0].Group})
	return s.share(options.CreateRESTOptionsGetter(&genericoptions.SimpleStorageFactory{StorageConfig: options.StorageConfig}, transformers))
}

// sharedOptions stores objects over shared connections.
type sharedOptions struct {
	genericregistry.RESTOptionsGetter
	stores *stores
	ready  bool // before it is used
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (s sharedOptions) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (genericregistry.RESTOptions, error) {
	options, err := s.RESTOptionsGetter.GetRESTOptions(resource, example)
	if err != nil {
		return options, err
	}
	options.Decorator = s.stores.clients.raw
	if s.stores.cached(resource) {
		options.Decorator = s.stores.clients.cached
		if s.ready {
			options.Decorator = s.stores.clients.cachedReady
		}
	}
	return options, nil
}

// hubOptions stores objects through hubCodec.
type hubOptions struct {
	genericregistry.RESTOptionsGetter
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (h hubOptions) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (genericregistry.RESTOptions, error) {
	options, err := h.RESTOptionsGetter.GetRESTOptions(resource, example)
	if err != nil {
		return options, err
	}
	config := *options.StorageConfig
	config.Codec = hubCodec{config.Codec, &sharedFields{}}
	options.StorageConfig = &config
	return options, nil
}

// hubCodec clears the kind and version of what is read from storage. Since a kind's
// hub is its published type, decoding converts nothing and would leave them in
// place, where clients do not expect them: in the items of a list.
type hubCodec struct {
	runtime.Codec
	fields *sharedFields
}

// Decode implements runtime.Decoder.
func (c hubCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, gvk, err := c.Codec.Decode(data, defaults, into)
	if err != nil {
		return obj, gvk, err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if into == nil { // a change that was watched, for the cache, whose objects nobody changes
		c.fields.share(obj)
	}
	return obj, gvk, nil
}

// maxSharedFields is how many different sets of managed fields of a resource are kept to be shared.
const maxSharedFields = 1024

// sharedFields lets objects share what is equal of their managed fields. All pods of a Deployment have
// the same ones, which take a fifth of the memory of a pod.
type sharedFields struct {
	mu    sync.Mutex
	known map[string]*metav1.FieldsV1
}

// share lets an object that nobody changes share its managed fields.
func (s *sharedFields) share(obj runtime.Object) {
	o, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := o.GetManagedFields()
	for i := range entries {
		if fields := entries[i].FieldsV1; fields != nil {
			entries[i].FieldsV1 = s.sharedLocked(fields)
		}
	}
}

func (s *sharedFields) sharedLocked(fields *metav1.FieldsV1) *metav1.FieldsV1 {
	text := fields.GetRawBytes()
	if known := s.known[string(text)]; known != nil {
		return known
	}
	if s.known == nil || len(s.known) >= maxSharedFields {
		s.known = map[string]*metav1.FieldsV1{} // those that are still in use come back
	}
	s.known[string(text)] = fields
	return fields
}
