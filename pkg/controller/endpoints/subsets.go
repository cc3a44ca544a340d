package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/endpointslice"
	endpointsliceutil "k8s.io/endpointslice/util"
	netutils "k8s.io/utils/net"
)

// capacity is how many addresses one Endpoints object holds.
const capacity = 1000

// subsetsOf returns the endpoints of a Service, and whether some had to be left out.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) ([]corev1.EndpointSubset, bool) {
	type portKey struct {
		name     string
		port     int32
		protocol corev1.Protocol
		app      string
	}
	ports := map[portKey]corev1.EndpointPort{}
	members := map[portKey]map[string]bool{} // addresses by port
	addresses := map[string]corev1.EndpointAddress{}
	ready := map[string]bool{}

	for _, p := range pods {
		if !endpointsliceutil.ShouldPodBeInEndpoints(p, svc.Spec.PublishNotReadyAddresses) {
			continue
		}
		address, ok := addressOf(svc, p)
		if !ok {
			continue
		}
		id := address.IP + " " + string(p.UID)
		addresses[id] = address
		ready[id] = svc.Spec.PublishNotReadyAddresses || endpointsliceutil.IsPodReady(p)
		add := func(k portKey, port corev1.EndpointPort) {
			ports[k] = port
			if members[k] == nil {
				members[k] = map[string]bool{}
			}
			members[k][id] = true
		}
		if len(svc.Spec.Ports) == 0 {
			add(portKey{port: -1}, corev1.EndpointPort{}) // headless without ports
		}
		for i := range svc.Spec.Ports {
			sp := &svc.Spec.Ports[i]
			n, err := endpointslice.FindPort(p, sp)
			if err != nil {
				continue // this pod has no port of that name
			}
			port := corev1.EndpointPort{Name: sp.Name, Port: int32(n), Protocol: sp.Protocol, AppProtocol: sp.AppProtocol}
			k := portKey{name: sp.Name, port: port.Port, protocol: sp.Protocol}
			if sp.AppProtocol != nil {
				k.app = *sp.AppProtocol
			}
			add(k, port)
		}
	}

	// Ports with the same addresses share a subset.
	shared := map[string][]portKey{}
	for k, ids := range members {
		all := make([]string, 0, len(ids))
		for id := range ids {
			all = append(all, id)
		}
		slices.Sort(all)
		list := strings.Join(all, ",")
		shared[list] = append(shared[list], k)
	}
	var subsets []corev1.EndpointSubset
	for list, keys := range shared {
		var s corev1.EndpointSubset
		for id := range strings.SplitSeq(list, ",") {
			if ready[id] {
				s.Addresses = append(s.Addresses, addresses[id])
			} else {
				s.NotReadyAddresses = append(s.NotReadyAddresses, addresses[id])
			}
		}
		for _, k := range keys {
			if k.port >= 0 {
				s.Ports = append(s.Ports, ports[k])
			}
		}
		subsets = append(subsets, s)
	}
	sortSubsets(subsets)
	return truncate(subsets)
}

// addressOf returns a pod's address of the Service's first IP family.
func addressOf(svc *corev1.Service, p *corev1.Pod) (corev1.EndpointAddress, bool) {
	wantV6 := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	if len(svc.Spec.IPFamilies) == 0 {
		wantV6 = netutils.IsIPv6String(svc.Spec.ClusterIP)
	}
	for _, ip := range p.Status.PodIPs {
		if netutils.IsIPv6String(ip.IP) != wantV6 {
			continue
		}
		a := corev1.EndpointAddress{
			IP:        ip.IP,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		}
		if p.Spec.NodeName != "" {
			node := p.Spec.NodeName
			a.NodeName = &node
		}
		if endpointsliceutil.ShouldSetHostname(p, svc) {
			a.Hostname = p.Spec.Hostname
		}
		return a, true
	}
	return corev1.EndpointAddress{}, false
}

func sortSubsets(subsets []corev1.EndpointSubset) {
	byIP := func(a, b corev1.EndpointAddress) int {
		return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(uid(a), uid(b)))
	}
	for i := range subsets {
		slices.SortFunc(subsets[i].Addresses, byIP)
		slices.SortFunc(subsets[i].NotReadyAddresses, byIP)
		slices.SortFunc(subsets[i].Ports, func(a, b corev1.EndpointPort) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
		})
	}
	slices.SortFunc(subsets, func(a, b corev1.EndpointSubset) int { return cmp.Compare(fmt.Sprint(a.Ports), fmt.Sprint(b.Ports)) })
}

func uid(a corev1.EndpointAddress) string {
	if a.TargetRef == nil {
		return ""
	}
	return string(a.TargetRef.UID)
}

// sameSubsets compares without regard to order and to the versions of pods.
func sameSubsets(a, b []corev1.EndpointSubset) bool {
	normal := func(in []corev1.EndpointSubset) []corev1.EndpointSubset {
		out := make([]corev1.EndpointSubset, len(in))
		for i := range in {
			in[i].DeepCopyInto(&out[i])
			for _, list := range [][]corev1.EndpointAddress{out[i].Addresses, out[i].NotReadyAddresses} {
				for j := range list {
					if list[j].TargetRef != nil {
						list[j].TargetRef.ResourceVersion = ""
					}
				}
			}
		}
		sortSubsets(out)
		return out
	}
	return equality.Semantic.DeepEqual(normal(a), normal(b))
}

// truncate keeps as many addresses as an object may hold: those that are ready first.
func truncate(subsets []corev1.EndpointSubset) ([]corev1.EndpointSubset, bool) {
	left, cut := capacity, false
	for i := range subsets {
		if n := len(subsets[i].Addresses); n > left {
			subsets[i].Addresses, cut = subsets[i].Addresses[:left], true
		}
		left -= len(subsets[i].Addresses)
	}
	for i := range subsets {
		if n := len(subsets[i].NotReadyAddresses); n > left {
			subsets[i].NotReadyAddresses, cut = subsets[i].NotReadyAddresses[:left], true
		}
		left -= len(subsets[i].NotReadyAddresses)
	}
	if !cut {
		return subsets, false
	}
	return slices.DeleteFunc(subsets, func(s corev1.EndpointSubset) bool { return len(s.Addresses)+len(s.NotReadyAddresses) == 0 }), true
}
