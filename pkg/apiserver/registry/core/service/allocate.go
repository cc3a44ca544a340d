package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/api/core"
)

// ErrFull is the error of a range that has nothing left to give.
var ErrFull = errors.New("range is full")

// Addresses gives out cluster IPs.
type Addresses interface {
	// Take takes the address for the Service; with a dry run it only says whether it could.
	Take(ctx context.Context, s *corev1.Service, ip string, dryRun bool) error
	// Next takes any free address of the family.
	Next(ctx context.Context, s *corev1.Service, family corev1.IPFamily, dryRun bool) (string, error)
	// Release gives an address back, if the Service has it.
	Release(ctx context.Context, s *corev1.Service, ip string) error
}

// Ports gives out node ports.
type Ports interface {
	// Take takes ports, all or none; with a dry run it only says whether it could.
	Take(ctx context.Context, ports []int32, dryRun bool) error
	// Next takes n free ports.
	Next(ctx context.Context, n int, dryRun bool) ([]int32, error)
	// Release gives ports back.
	Release(ctx context.Context, ports []int32) error
}

// Allocator gives Services what they ask for.
type Allocator struct {
	// Families are those of the cluster, the preferred one first.
	Families  []corev1.IPFamily
	Addresses Addresses
	Ports     Ports
}

// change is what an allocation took, to be given back if the Service cannot be
// stored, and what becomes free when it is.
type change struct {
	service               *corev1.Service
	took, freed           []string
	tookPorts, freedPorts []int32
}

// begin allocates what s needs beyond what old had, and returns what is to be done
// once s is stored, or is not.
func (a *Allocator) begin(ctx context.Context, s, old *corev1.Service, dryRun bool) (registry.FinishFunc, error) {
	if s.Name == "" { // refused by validation, which says what else is wrong
		return func(context.Context, bool) {}, nil
	}
	if err := setFamilies(s, old, a.Families); err != nil {
		return nil, err
	}
	c := &change{service: s}
	err := a.addresses(ctx, c, s, old, dryRun)
	if err == nil {
		err = a.nodePorts(ctx, c, s, old, dryRun)
	}
	if err != nil {
		a.finish(ctx, c, false, dryRun)
		return nil, err
	}
	return func(ctx context.Context, success bool) { a.finish(ctx, c, success, dryRun) }, nil
}

func (a *Allocator) finish(ctx context.Context, c *change, success, dryRun bool) {
	if dryRun {
		return
	}
	ips, ports := c.took, c.tookPorts
	if success {
		ips, ports = c.freed, c.freedPorts
	}
	// The client may be gone by now.
	a.release(context.WithoutCancel(ctx), c.service, ips, ports)
}

// release gives back; what cannot be now, the repair loop finds.
func (a *Allocator) release(ctx context.Context, s *corev1.Service, ips []string, ports []int32) {
	logger := klog.FromContext(ctx)
	for _, ip := range ips {
		if err := a.Addresses.Release(ctx, s, ip); err != nil {
			logger.Error(err, "Releasing a cluster IP", "service", klog.KObj(s), "ip", ip)
		}
	}
	if len(ports) > 0 {
		if err := a.Ports.Release(ctx, ports); err != nil {
			logger.Error(err, "Releasing node ports", "service", klog.KObj(s), "ports", ports)
		}
	}
}

// releaseAll gives back everything that a deleted Service had.
func (a *Allocator) releaseAll(ctx context.Context, s *corev1.Service) {
	a.release(ctx, s, clusterIPs(s), nodePorts(s))
}

// addresses fills in s.Spec.ClusterIPs.
func (a *Allocator) addresses(ctx context.Context, c *change, s, old *corev1.Service, dryRun bool) error {
	var had []string
	if old != nil {
		had = clusterIPs(old)
	}
	spec := &s.Spec
	if core.HasClusterIP(s) && !core.Headless(s) {
		for i, family := range spec.IPFamilies {
			if i == len(spec.ClusterIPs) {
				spec.ClusterIPs = append(spec.ClusterIPs, "")
			}
			ip, err := a.address(ctx, s, family, spec.ClusterIPs[i], had, dryRun)
			if err != nil {
				return err
			}
			if !slices.Contains(had, ip) {
				c.took = append(c.took, ip)
			}
			spec.ClusterIPs[i] = ip
		}
		if len(spec.ClusterIPs) > 0 {
			spec.ClusterIP = spec.ClusterIPs[0]
		}
	}
	for _, ip := range had {
		if !core.HasClusterIP(s) || !slices.Contains(spec.ClusterIPs, ip) {
			c.freed = append(c.freed, ip)
		}
	}
	return nil
}

func (a *Allocator) address(ctx context.Context, s *corev1.Service, family corev1.IPFamily, ip string, had []string, dryRun bool) (string, error) {
	path := field.NewPath("spec", "clusterIPs")
	switch {
	case ip == "":
		next, err := a.Addresses.Next(ctx, s, family, dryRun)
		if errors.Is(err, ErrFull) {
			return "", apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", s.Name, err))
		}
		if err != nil {
			return "", invalid(s, field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP: %v", err))})
		}
		return next, nil
	case slices.Contains(had, ip):
		return ip, nil
	}
	if err := a.Addresses.Take(ctx, s, ip, dryRun); err != nil {
		return "", invalid(s, field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", ip, err))})
	}
	return ip, nil
}

// nodePorts fills in the node ports of s.Spec.Ports and the health check node port.
func (a *Allocator) nodePorts(ctx context.Context, c *change, s, old *corev1.Service, dryRun bool) error {
	have := map[int32]bool{}
	if old != nil {
		for _, p := range nodePorts(old) {
			have[p] = true
		}
	}
	// take takes one port that the client names.
	take := func(port int32) error {
		if have[port] {
			return nil
		}
		if err := a.Ports.Take(ctx, []int32{port}, dryRun); err != nil {
			return err
		}
		have[port] = true
		c.tookPorts = append(c.tookPorts, port)
		return nil
	}
	next := func() (int32, error) {
		ports, err := a.Ports.Next(ctx, 1, dryRun)
		if err != nil {
			return 0, err
		}
		have[ports[0]] = true
		c.tookPorts = append(c.tookPorts, ports[0])
		return ports[0], nil
	}
	if core.HasNodePorts(s) {
		byPort := map[int32]int32{} // one number for the TCP and the UDP side of a port
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.NodePort == 0 {
				continue
			}
			if err := take(p.NodePort); err != nil {
				return invalid(s, field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort, err.Error())})
			}
			byPort[p.Port] = p.NodePort
		}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.NodePort != 0 || !core.WantsNodePorts(s) {
				continue
			}
			if shared := byPort[p.Port]; shared != 0 && !usedByProtocol(s.Spec.Ports, p.Protocol, shared) {
				p.NodePort = shared
				continue
			}
			port, err := next()
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
			p.NodePort, byPort[p.Port] = port, port
		}
	}
	if core.HasHealthPort(s) && (old == nil || !core.HasHealthPort(old)) {
		if err := a.healthPort(s, take, next); err != nil {
			return err
		}
	}
	if old != nil {
		keep := map[int32]bool{}
		for _, p := range nodePorts(s) {
			keep[p] = true
		}
		for _, p := range nodePorts(old) {
			if !keep[p] {
				c.freedPorts = append(c.freedPorts, p)
			}
		}
	}
	return nil
}

func (a *Allocator) healthPort(s *corev1.Service, take func(int32) error, next func() (int32, error)) error {
	if port := s.Spec.HealthCheckNodePort; port != 0 {
		if err := take(port); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", port, err))
		}
		return nil
	}
	port, err := next()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort: %w", err))
	}
	s.Spec.HealthCheckNodePort = port
	return nil
}

func usedByProtocol(ports []corev1.ServicePort, protocol corev1.Protocol, nodePort int32) bool {
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.Protocol == protocol && p.NodePort == nodePort })
}

// clusterIPs are the addresses that s has.
func clusterIPs(s *corev1.Service) []string {
	if !core.HasClusterIP(s) || core.Headless(s) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Spec.ClusterIPs), func(ip string) bool { return ip == "" })
}

// nodePorts are the node ports that s has, each once.
func nodePorts(s *corev1.Service) []int32 {
	var all []int32
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 && !slices.Contains(all, p.NodePort) {
			all = append(all, p.NodePort)
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 && core.HasHealthPort(s) && !slices.Contains(all, p) {
		all = append(all, p)
	}
	return all
}
