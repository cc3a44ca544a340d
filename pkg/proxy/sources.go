package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// byService is the index of EndpointSlices by the Service that they belong to.
const byService = "service"

// toBeDeleted is the taint of a node that an autoscaler is about to remove.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// changes are what the rules must be brought up to date with.
type changes struct {
	services map[types.NamespacedName]bool
	node     bool
	cidrs    bool
}

// sources watches Services, EndpointSlices, ServiceCIDRs and the proxy's own node, and collects what changed until
// somebody asks.
type sources struct {
	nodeName string
	changed  func()

	services, slices, cidrs, nodes cache.SharedIndexInformer
	factories                      []informers.SharedInformerFactory

	mu      sync.Mutex
	pending changes
	wake    chan struct{} // holds one token while something is pending
}

func newSources(client kubernetes.Interface, nodeName string, changed func()) *sources {
	s := &sources{nodeName: nodeName, changed: changed, wake: make(chan struct{}, 1)}
	s.pending.services = map[types.NamespacedName]bool{}

	others, err := labels.NewRequirement(labelServiceProxyName, selection.DoesNotExist, nil)
	headless, err2 := labels.NewRequirement(v1.IsHeadlessService, selection.DoesNotExist, nil)
	if err := errors.Join(err, err2); err != nil {
		panic(err) // the keys are constants
	}
	ours := labels.NewSelector().Add(*others, *headless).String()
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = ours }))
	own := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", nodeName).String()
		}))
	s.factories = []informers.SharedInformerFactory{f, own}
	s.services = f.Core().V1().Services().Informer()
	s.slices = f.Discovery().V1().EndpointSlices().Informer()
	s.cidrs = f.Networking().V1().ServiceCIDRs().Informer()
	s.nodes = own.Core().V1().Nodes().Informer()
	return s
}

func strip(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// start begins to watch and returns when all that exists is known.
func (s *sources) start(ctx context.Context) error {
	err := s.slices.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
		if name, ok := serviceOf(obj); ok {
			return []string{name.String()}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return err
	}
	services, err := s.services.AddEventHandler(notify(s.markService))
	if err != nil {
		return err
	}
	slices, err := s.slices.AddEventHandler(notify(func(obj any) {
		if name, ok := serviceOf(obj); ok {
			s.mark(name)
		}
	}))
	if err != nil {
		return err
	}
	cidrs, err := s.cidrs.AddEventHandler(notify(func(any) { s.markCIDRs() }))
	if err != nil {
		return err
	}
	nodes, err := s.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.markNode() },
		UpdateFunc: func(old, obj any) {
			if relevant(old.(*v1.Node), obj.(*v1.Node)) {
				s.markNode()
			}
		},
		DeleteFunc: func(any) { s.markNode() },
	})
	if err != nil {
		return err
	}
	for _, f := range s.factories {
		f.Start(ctx.Done())
	}
	if !cache.WaitForCacheSync(ctx.Done(), services.HasSynced, slices.HasSynced, cidrs.HasSynced, nodes.HasSynced) {
		return errors.New("stopped while waiting for Services, EndpointSlices, ServiceCIDRs and the node")
	}
	return nil
}

// relevant reports whether rules depend on what changed about the node.
func relevant(old, n *v1.Node) bool {
	return old.Labels[v1.LabelTopologyZone] != n.Labels[v1.LabelTopologyZone] ||
		!equality.Semantic.DeepEqual(old.Status.Addresses, n.Status.Addresses) ||
		!equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) ||
		old.DeletionTimestamp.IsZero() != n.DeletionTimestamp.IsZero()
}

// notify calls f with each object that comes, changes or goes.
func notify(f func(obj any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    f,
		UpdateFunc: func(old, obj any) { f(old); f(obj) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			f(obj)
		},
	}
}

func (s *sources) markService(obj any) {
	if svc, ok := obj.(*v1.Service); ok {
		s.mark(types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name})
	}
}

func serviceOf(obj any) (types.NamespacedName, bool) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}, true
}

func (s *sources) mark(name types.NamespacedName) {
	s.mu.Lock()
	s.pending.services[name] = true
	s.mu.Unlock()
	s.ring()
}

// markNode has every Service computed again, as all may depend on the node.
func (s *sources) markNode() {
	s.mu.Lock()
	s.pending.node = true
	for _, key := range s.services.GetStore().ListKeys() {
		if ns, name, err := cache.SplitMetaNamespaceKey(key); err == nil {
			s.pending.services[types.NamespacedName{Namespace: ns, Name: name}] = true
		}
	}
	s.mu.Unlock()
	s.ring()
}

func (s *sources) markCIDRs() {
	s.mu.Lock()
	s.pending.cidrs = true
	s.mu.Unlock()
	s.ring()
}

// again puts changes back that could not be written.
func (s *sources) again(c changes) {
	s.mu.Lock()
	for name := range c.services {
		s.pending.services[name] = true
	}
	s.pending.node = s.pending.node || c.node
	s.pending.cidrs = s.pending.cidrs || c.cidrs
	s.mu.Unlock()
	s.ring()
}

func (s *sources) ring() {
	s.changed()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next waits for changes and returns all that there are; at once if now is set. It
// returns false when ctx is cancelled.
func (s *sources) next(ctx context.Context, now bool) (changes, bool) {
	if !now {
		select {
		case <-ctx.Done():
			return changes{}, false
		case <-s.wake:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.pending
	s.pending = changes{services: map[types.NamespacedName]bool{}}
	c.node = c.node || now
	return c, ctx.Err() == nil
}

// service returns a Service with its EndpointSlices. The Service is nil if it is gone.
func (s *sources) service(name types.NamespacedName) (*v1.Service, []*discoveryv1.EndpointSlice, error) {
	svc, err := corelisters.NewServiceLister(s.services.GetIndexer()).Services(name.Namespace).Get(name.Name)
	if err != nil {
		return nil, nil, err
	}
	objs, err := s.slices.GetIndexer().ByIndex(byService, name.String())
	if err != nil {
		return nil, nil, err
	}
	var list []*discoveryv1.EndpointSlice
	for _, obj := range objs {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok {
			list = append(list, slice)
		}
	}
	return svc, list, nil
}

// serviceCIDRs are the networks that cluster IPs come from.
func (s *sources) serviceCIDRs() []netip.Prefix {
	var out []netip.Prefix
	for _, obj := range s.cidrs.GetStore().List() {
		for _, cidr := range obj.(*networkingv1.ServiceCIDR).Spec.CIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil { // else it is not what the API lets in
				out = append(out, p)
			}
		}
	}
	return out
}

// node returns the proxy's own node, nil while it is not registered.
func (s *sources) node() *v1.Node {
	obj, ok, err := s.nodes.GetIndexer().GetByKey(s.nodeName)
	if err != nil || !ok {
		return nil
	}
	n, _ := obj.(*v1.Node)
	return n
}

// eligible reports whether load balancers may send new traffic to this node.
func (s *sources) eligible() bool {
	n := s.node()
	if n == nil {
		return true
	}
	for _, t := range n.Spec.Taints {
		if t.Key == toBeDeleted {
			return false
		}
	}
	return n.DeletionTimestamp == nil
}

// localAddresses returns this machine's addresses in the given networks, without
// loopback, which nftables cannot forward.
func localAddresses(networks []netip.Prefix) []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || prefix.Addr().IsLoopback() || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		for _, n := range networks {
			if n.Contains(prefix.Addr()) {
				out = append(out, prefix.Addr())
				break
			}
		}
	}
	return out
}
