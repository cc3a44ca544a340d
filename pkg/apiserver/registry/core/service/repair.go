package service

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// The repair loop looks after what an interrupted request leaves behind.
const (
	repairInterval = 3 * time.Minute
	// leakGrace is how old an address must be before it counts as forgotten: its
	// Service is stored after it.
	leakGrace = time.Minute
)

// Repair makes allocations agree with Services: what a Service has is taken, and
// what no Service has is free.
type Repair struct {
	Client kubernetes.Interface
	Ports  *NodePorts

	// idle are the ports that no Service had when last looked.
	idle map[int32]bool
}

// Run repairs until ctx is cancelled.
func (r *Repair) Run(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := r.Once(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Repairing the allocations of Services; will try again", "in", repairInterval)
		}
	}, repairInterval)
}

// Once repairs.
func (r *Repair) Once(ctx context.Context, now time.Time) error {
	// Addresses first: those that are made between the two lists have a Service in the second.
	addresses, err := r.Client.NetworkingV1().IPAddresses().List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(labels.Set{networkingv1.LabelManagedBy: managedBy}).String(),
	})
	if err != nil {
		return fmt.Errorf("listing IPAddresses: %w", err)
	}
	services, err := r.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing Services: %w", err)
	}
	return errors.Join(r.addresses(ctx, services.Items, addresses.Items, now), r.ports(ctx, services.Items))
}

func (r *Repair) addresses(ctx context.Context, services []corev1.Service, addresses []networkingv1.IPAddress, now time.Time) error {
	missing, forgotten := compare(services, addresses, now)
	var errs []error
	for _, address := range missing {
		if _, err := r.Client.NetworkingV1().IPAddresses().Create(ctx, address, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			errs = append(errs, fmt.Errorf("creating the IPAddress %s: %w", address.Name, err))
		}
	}
	for _, address := range forgotten {
		options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &address.UID, ResourceVersion: &address.ResourceVersion}}
		if err := r.Client.NetworkingV1().IPAddresses().Delete(ctx, address.Name, options); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("deleting the IPAddress %s: %w", address.Name, err))
		}
	}
	return errors.Join(errs...)
}

// compare finds the addresses of Services that nobody has taken, and those taken for
// Services that do not have them.
func compare(services []corev1.Service, addresses []networkingv1.IPAddress, now time.Time) (missing []*networkingv1.IPAddress, forgotten []networkingv1.IPAddress) {
	taken := map[string]bool{}
	for i := range addresses {
		taken[addresses[i].Name] = true
	}
	owner := map[string]string{}
	for i := range services {
		s := &services[i]
		for _, ip := range clusterIPs(s) {
			addr, err := netip.ParseAddr(ip)
			if err != nil {
				continue
			}
			owner[addr.String()] = s.Namespace + "/" + s.Name
			if !taken[addr.String()] {
				missing = append(missing, newIPAddress(addr, s))
			}
		}
	}
	for i := range addresses {
		a := &addresses[i]
		ref := a.Spec.ParentRef
		if ref == nil || ref.Resource != "services" || now.Sub(a.CreationTimestamp.Time) < leakGrace {
			continue
		}
		if owner[a.Name] != ref.Namespace+"/"+ref.Name {
			forgotten = append(forgotten, *a)
		}
	}
	return missing, forgotten
}

// ports sets the bits of all ports that Services have, and clears those that none
// had now or the last time.
func (r *Repair) ports(ctx context.Context, services []corev1.Service) error {
	var inUse []int32
	for i := range services {
		inUse = append(inUse, nodePorts(&services[i])...)
	}
	idle := map[int32]bool{}
	err := r.Ports.update(ctx, false, func(used *big.Int) error {
		clear(idle)
		for _, p := range inUse {
			if r.Ports.ports.Contains(int(p)) {
				used.SetBit(used, r.Ports.bit(p), 1)
			}
		}
		for bit := range r.Ports.ports.Size {
			port := int32(r.Ports.ports.Base + bit)
			if used.Bit(bit) == 0 || slices.Contains(inUse, port) {
				continue
			}
			if r.idle[port] {
				used.SetBit(used, bit, 0)
			} else {
				idle[port] = true
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("repairing node ports: %w", err)
	}
	r.idle = idle
	return nil
}
