package bootstrap

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

const (
	// serviceName is the Service, in the default namespace, that leads to all API servers.
	serviceName = "kubernetes"
	// leaseKeys is where each API server keeps a key that etcd forgets when it is not renewed.
	leaseKeys = "/masterleases/"

	leaseTTL     = 15 * time.Second
	leaseRenewal = 10 * time.Second
)

// APIService keeps the default/kubernetes Service and the endpoints behind it.
type APIService struct {
	Client kubernetes.Interface
	// ClusterIP is the first address of the cluster's first range.
	ClusterIP net.IP
	// Address and Port are where this server is reached.
	Address net.IP
	Port    int
	// NodePort makes it a Service of type NodePort, unless 0.
	NodePort int
	// Leases is the storage of the servers' leases: who has one is an endpoint.
	Leases storage.Interface
	// Count, without Leases, is how many servers there are: a new one takes the place of another when there would be
	// more endpoints. 0 leaves the endpoints alone.
	Count int
}

// LeaseResource is what the storage of the servers' leases is configured by.
var LeaseResource = corev1.Resource("apiServerIPInfo")

// NewLeases returns the storage of the servers' leases and a function that closes it.
func NewLeases(o genericregistry.RESTOptionsGetter) (storage.Interface, func(), error) {
	options, err := o.GetRESTOptions(LeaseResource, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("storage of API servers' leases: %w", err)
	}
	s, destroy, err := options.Decorator(options.StorageConfig, leaseKeys, nil,
		func() runtime.Object { return &corev1.Endpoints{} }, func() runtime.Object { return &corev1.EndpointsList{} }, nil, nil, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("storage of API servers' leases: %w", err)
	}
	return s, destroy, nil
}

// Hook is the post-start hook.
func (a *APIService) Hook(hc server.PostStartHookContext) error {
	go a.run(hc.Context)
	return nil
}

func (a *APIService) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := leaseRenewal
		if err := a.keep(ctx); err != nil {
			klog.FromContext(ctx).V(2).Info("Keeping the Service of the API servers; will try again", "reason", err.Error())
			pause = 200 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// Leave takes this server out of the endpoints. It is called before the server stops.
func (a *APIService) Leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if a.Leases == nil {
		return a.leaveCounted(ctx)
	}
	if err := a.Leases.Delete(ctx, a.leaseKey(), &corev1.Endpoints{}, nil, func(context.Context, runtime.Object) error { return nil }, nil, storage.DeleteOptions{}); err != nil && !storage.IsNotFound(err) {
		return fmt.Errorf("deleting this server's lease: %w", err)
	}
	addresses, err := a.others(ctx)
	if err != nil || len(addresses) == 0 { // the last one leaves its address to be replaced
		return err
	}
	return a.endpoints(ctx, addresses)
}

// leaveCounted leaves no endpoints if this server is the last one.
func (a *APIService) leaveCounted(ctx context.Context) error {
	if a.Count == 0 {
		return nil
	}
	have, err := a.written(ctx)
	if err != nil {
		return err
	}
	own := a.Address.String()
	return a.endpoints(ctx, slices.DeleteFunc(have, func(ip string) bool { return ip == own }))
}

func (a *APIService) keep(ctx context.Context) error {
	if err := a.service(ctx); err != nil {
		return fmt.Errorf("Service: %w", err)
	}
	var addresses []string
	switch {
	case a.Leases != nil:
		if err := a.renew(ctx); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		var err error
		if addresses, err = a.others(ctx); err != nil {
			return fmt.Errorf("leases: %w", err)
		}
	case a.Count > 0:
		have, err := a.written(ctx)
		if err != nil {
			return fmt.Errorf("endpoints: %w", err)
		}
		addresses = counted(have, a.Address.String(), a.Count)
	default:
		return nil
	}
	if err := a.endpoints(ctx, addresses); err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	return nil
}

// counted returns the endpoints with one's own, in order. Of too many those go that follow one's own, as on a ring:
// servers that each replace the next one would not end at the same few for ever.
func counted(have []string, own string, count int) []string {
	ring := append(slices.Clone(have), own)
	slices.Sort(ring)
	ring = slices.Compact(ring)
	next := slices.Index(ring, own) + 1
	for len(ring) > count {
		if next == len(ring) {
			next = 0
		}
		ring = slices.Delete(ring, next, next+1)
	}
	return ring
}

// written returns the addresses that the Endpoints have.
func (a *APIService) written(ctx context.Context) ([]string, error) {
	have, err := a.Client.CoreV1().Endpoints(metav1.NamespaceDefault).Get(ctx, serviceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, s := range have.Subsets {
		for _, address := range s.Addresses {
			addresses = append(addresses, address.IP)
		}
	}
	return addresses, nil
}

// service creates the Service, and mends its ports and type.
func (a *APIService) service(ctx context.Context) error {
	api := a.Client.CoreV1().Services(metav1.NamespaceDefault)
	port := corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(int32(a.Port)), NodePort: int32(a.NodePort)}
	kind := corev1.ServiceTypeClusterIP
	if a.NodePort > 0 {
		kind = corev1.ServiceTypeNodePort
	}
	s, err := api.Get(ctx, serviceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Name: serviceName, Namespace: metav1.NamespaceDefault,
				Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"},
			},
			Spec: corev1.ServiceSpec{
				Type: kind, ClusterIP: a.ClusterIP.String(), SessionAffinity: corev1.ServiceAffinityNone,
				IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack), Ports: []corev1.ServicePort{port},
			},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if s.Spec.Type == kind && equality.Semantic.DeepEqual(s.Spec.Ports, []corev1.ServicePort{port}) {
		return nil
	}
	s.Spec.Type, s.Spec.Ports = kind, []corev1.ServicePort{port}
	_, err = api.Update(ctx, s, metav1.UpdateOptions{})
	return err
}

func (a *APIService) leaseKey() string { return path.Join(leaseKeys, a.Address.String()) }

// renew keeps this server's lease alive. Each renewal must change the value, or
// nothing would be written.
func (a *APIService) renew(ctx context.Context) error {
	return a.Leases.GuaranteedUpdate(ctx, a.leaseKey(), &corev1.Endpoints{}, true, nil, func(obj runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		lease := obj.(*corev1.Endpoints)
		lease.Subsets = []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: a.Address.String()}}}}
		lease.Generation++
		return lease, ptr.To(uint64(leaseTTL.Seconds())), nil
	}, nil)
}

// others returns the addresses of all servers with a lease, in order.
func (a *APIService) others(ctx context.Context) ([]string, error) {
	list := &corev1.EndpointsList{}
	err := a.Leases.GetList(ctx, leaseKeys, storage.ListOptions{
		Recursive: true, Predicate: storage.Everything, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	}, list)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, lease := range list.Items {
		if len(lease.Subsets) > 0 && len(lease.Subsets[0].Addresses) > 0 {
			addresses = append(addresses, lease.Subsets[0].Addresses[0].IP)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), nil
}

// endpoints writes the Endpoints and the EndpointSlice of the Service.
func (a *APIService) endpoints(ctx context.Context, addresses []string) error {
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(a.Port), Protocol: corev1.ProtocolTCP}}}
	kind := discoveryv1.AddressTypeIPv4
	if netutils.IsIPv6(a.Address) {
		kind = discoveryv1.AddressTypeIPv6
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: serviceName, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelServiceName: serviceName},
		},
		AddressType: kind,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(a.Port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, ip := range addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: ip})
		if (kind == discoveryv1.AddressTypeIPv6) == strings.Contains(ip, ":") {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
		}
	}
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Name: serviceName, Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
		Subsets: []corev1.EndpointSubset{subset},
	}
	if len(addresses) == 0 {
		endpoints.Subsets, slice.Ports = nil, nil
	}
	if err := a.writeEndpoints(ctx, endpoints); err != nil {
		return err
	}
	return a.writeSlice(ctx, slice)
}

func (a *APIService) writeEndpoints(ctx context.Context, want *corev1.Endpoints) error {
	api := a.Client.CoreV1().Endpoints(metav1.NamespaceDefault)
	have, err := api.Get(ctx, serviceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && have.Labels[discoveryv1.LabelSkipMirror] == "true" {
		return nil
	}
	have.Subsets = want.Subsets
	metav1.SetMetaDataLabel(&have.ObjectMeta, discoveryv1.LabelSkipMirror, "true")
	_, err = api.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func (a *APIService) writeSlice(ctx context.Context, want *discoveryv1.EndpointSlice) error {
	api := a.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	have, err := api.Get(ctx, serviceName, metav1.GetOptions{})
	if err == nil && have.AddressType != want.AddressType { // cannot be changed
		if err := api.Delete(ctx, serviceName, metav1.DeleteOptions{}); err != nil {
			return err
		}
		err = apierrors.NewNotFound(discoveryv1.Resource("endpointslices"), serviceName)
	}
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) &&
		have.Labels[discoveryv1.LabelServiceName] == serviceName {
		return nil
	}
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	metav1.SetMetaDataLabel(&have.ObjectMeta, discoveryv1.LabelServiceName, serviceName)
	_, err = api.Update(ctx, have, metav1.UpdateOptions{})
	return err
}
