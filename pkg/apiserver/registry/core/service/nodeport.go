package service

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/storage"
	storageerr "k8s.io/apiserver/pkg/storage/errors"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// nodePortKey is where the bitmap of node ports is stored.
const nodePortKey = "/ranges/servicenodeports"

var (
	// NodePortResource is what the storage of allocated node ports is configured by.
	NodePortResource = corev1.Resource("servicenodeportallocations")

	errPortTaken = errors.New("provided port is already allocated")
)

// NodePorts gives out the ports of a range. One stored object, changed by
// compare-and-swap, holds a bit for each port: whoever changes it first has won, in
// however many servers.
type NodePorts struct {
	ports   utilnet.PortRange
	storage storage.Interface
	close   func()
}

// NewNodePorts returns the allocator of the given range.
func NewNodePorts(o generic.Options, ports utilnet.PortRange) (*NodePorts, error) {
	options, err := o.RESTOptions.GetRESTOptions(NodePortResource, nil)
	if err != nil {
		return nil, fmt.Errorf("storage of node ports: %w", err)
	}
	s, destroy, err := options.Decorator(options.StorageConfig, nodePortKey, nil,
		func() runtime.Object { return &corev1.RangeAllocation{} }, nil, nil, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("storage of node ports: %w", err)
	}
	return &NodePorts{ports: ports, storage: s, close: sync.OnceFunc(destroy)}, nil
}

// Take implements Ports. A dry run, as the original's, takes ports out of the range as free.
func (n *NodePorts) Take(ctx context.Context, ports []int32, dryRun bool) error {
	if dryRun {
		outside := func(p int32) bool { return !n.ports.Contains(int(p)) }
		ports = slices.DeleteFunc(slices.Clone(ports), outside)
	}
	for _, p := range ports {
		if !n.ports.Contains(int(p)) {
			return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", n.ports)
		}
	}
	return n.update(ctx, dryRun, func(used *big.Int) error {
		for _, p := range ports {
			if used.Bit(n.bit(p)) == 1 {
				return errPortTaken
			}
			used.SetBit(used, n.bit(p), 1)
		}
		return nil
	})
}

// Next implements Ports. The lower part of the range is left, while there is choice,
// to those who name their port.
func (n *NodePorts) Next(ctx context.Context, count int, dryRun bool) (ports []int32, err error) {
	size := n.ports.Size
	low := min(max(16, size/32), 128)
	if low >= size {
		low = 0
	}
	start := rand.IntN(size - low)
	err = n.update(ctx, dryRun, func(used *big.Int) error {
		ports = nil
		for i := 0; i < size && len(ports) < count; i++ {
			bit := i - (size - low) // the lower part comes last
			if i < size-low {
				bit = low + (start+i)%(size-low)
			}
			if used.Bit(bit) == 0 {
				used.SetBit(used, bit, 1)
				ports = append(ports, int32(n.ports.Base+bit))
			}
		}
		if len(ports) < count {
			return ErrFull
		}
		return nil
	})
	return ports, err
}

// Release implements Ports.
func (n *NodePorts) Release(ctx context.Context, ports []int32) error {
	return n.update(ctx, false, func(used *big.Int) error {
		for _, p := range ports {
			if n.ports.Contains(int(p)) {
				used.SetBit(used, n.bit(p), 0)
			}
		}
		return nil
	})
}

// Destroy releases the connection to etcd.
func (n *NodePorts) Destroy() { n.close() }

func (n *NodePorts) bit(port int32) int { return int(port) - n.ports.Base }

// update changes the stored bitmap. One of another range, of a server with other
// flags, is begun anew: the repair loop fills it.
func (n *NodePorts) update(ctx context.Context, dryRun bool, change func(used *big.Int) error) error {
	errDry := errors.New("dry run")
	err := n.storage.GuaranteedUpdate(ctx, nodePortKey, &corev1.RangeAllocation{}, true, nil, storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		a := obj.(*corev1.RangeAllocation)
		used := new(big.Int)
		if a.Range == n.ports.String() {
			used.SetBytes(a.Data)
		}
		if err := change(used); err != nil {
			return nil, err
		}
		if dryRun {
			return nil, errDry
		}
		a.Range, a.Data = n.ports.String(), used.Bytes()
		return a, nil
	}), nil)
	if errors.Is(err, errDry) {
		return nil
	}
	return storageerr.InterpretUpdateError(err, NodePortResource, "")
}
