package bootstrap

import (
	"context"
	"fmt"
	"net"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/reconcilers"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/ptr"
)

const (
	// peerLeaseKeys is where each API server keeps a key with the address by which others reach it.
	peerLeaseKeys = "/peerserverleases/"
	// peerPatience is how long etcd may take.
	peerPatience = 2 * time.Second
)

// PeerLeaseResource is what the storage of these addresses is configured by.
var PeerLeaseResource = corev1.Resource("apiServerPeerIPInfo")

// PeerLeases are where API servers reach each other, by their IDs. They share the connection of other storage, which
// the library's own would not.
type PeerLeases struct {
	storage storage.Interface
	destroy func()
	stopped atomic.Bool
}

var _ reconcilers.PeerEndpointLeaseReconciler = &PeerLeases{}

// NewPeerLeases returns the addresses that are stored as the options say.
func NewPeerLeases(o genericregistry.RESTOptionsGetter) (*PeerLeases, error) {
	options, err := o.GetRESTOptions(PeerLeaseResource, nil)
	if err != nil {
		return nil, fmt.Errorf("storage of API servers' addresses: %w", err)
	}
	s, destroy, err := options.Decorator(options.StorageConfig, peerLeaseKeys, nil,
		func() runtime.Object { return &corev1.Endpoints{} }, func() runtime.Object { return &corev1.EndpointsList{} }, nil, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("storage of API servers' addresses: %w", err)
	}
	return &PeerLeases{storage: s, destroy: sync.OnceFunc(destroy)}, nil
}

func peerLeaseKey(id string) string { return path.Join(peerLeaseKeys, id) }

// GetEndpoint implements reconcilers.PeerEndpointLeaseReconciler.
func (p *PeerLeases) GetEndpoint(id string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	lease := &corev1.Endpoints{}
	if err := p.storage.Get(ctx, peerLeaseKey(id), storage.GetOptions{}, lease); err != nil {
		return "", fmt.Errorf("the address of server %s: %w", id, err)
	}
	for _, s := range lease.Subsets {
		if len(s.Addresses) > 0 && len(s.Ports) > 0 {
			return net.JoinHostPort(s.Addresses[0].IP, strconv.Itoa(int(s.Ports[0].Port))), nil
		}
	}
	return "", fmt.Errorf("the address of server %s is not known", id)
}

// UpdateLease implements reconcilers.PeerEndpointLeaseReconciler. Each update must change the value, or nothing would be written.
func (p *PeerLeases) UpdateLease(id, ip string, ports []corev1.EndpointPort) error {
	if p.stopped.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	return p.storage.GuaranteedUpdate(ctx, peerLeaseKey(id), &corev1.Endpoints{}, true, nil, func(obj runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		lease := obj.(*corev1.Endpoints)
		lease.Subsets = []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: ip}}, Ports: ports}}
		metav1.SetMetaDataLabel(&lease.ObjectMeta, reconcilers.APIServerIdentityLabel, id)
		lease.Generation++
		return lease, ptr.To(uint64(leaseTTL.Seconds())), nil
	}, nil)
}

// RemoveLease implements reconcilers.PeerEndpointLeaseReconciler.
func (p *PeerLeases) RemoveLease(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	err := p.storage.Delete(ctx, peerLeaseKey(id), &corev1.Endpoints{}, nil, func(context.Context, runtime.Object) error { return nil }, nil, storage.DeleteOptions{})
	if storage.IsNotFound(err) {
		return nil
	}
	return err
}

// Destroy implements reconcilers.PeerEndpointLeaseReconciler.
func (p *PeerLeases) Destroy() { p.destroy() }

// StopReconciling implements reconcilers.PeerEndpointLeaseReconciler.
func (p *PeerLeases) StopReconciling() { p.stopped.Store(true) }
