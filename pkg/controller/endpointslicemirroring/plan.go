package endpointslicemirroring

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	endpointsliceutil "k8s.io/endpointslice/util"
	netutils "k8s.io/utils/net"
)

// plan is what there is to do for one Endpoints object.
type plan struct {
	create, update, delete []*discoveryv1.EndpointSlice
	// invalid addresses are no IP addresses, and skipped ones these and those that are too many.
	invalid, skipped int
	// added, updated and removed are numbers of endpoints.
	added, updated, removed int
}

// slot is what endpoints must have in common to share a slice.
type slot struct {
	family discoveryv1.AddressType
	ports  endpointsliceutil.PortMapKey
}

// mirror decides how the slices of e, which are existing, come to hold what e holds; of each
// set of ports, max addresses.
func mirror(e *corev1.Endpoints, existing []*discoveryv1.EndpointSlice, max int) plan {
	var p plan
	wanted := map[slot]*discoveryv1.EndpointSlice{}
	for _, s := range repack(e.Subsets) {
		n := 0
		for _, a := range s.addresses {
			ip := netutils.ParseIPSloppy(a.IP)
			if ip == nil {
				p.invalid++
				p.skipped++
				continue
			}
			if n == max {
				p.skipped++
				continue
			}
			n++
			at := slot{discoveryv1.AddressTypeIPv4, endpointsliceutil.NewPortMapKey(s.ports)}
			if ip.To4() == nil {
				at.family = discoveryv1.AddressTypeIPv6
			}
			if wanted[at] == nil {
				wanted[at] = newSlice(e, at.family, s.ports)
			}
			ready, hostname := a.ready, a.Hostname
			endpoint := discoveryv1.Endpoint{
				Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName,
			}
			if hostname != "" {
				endpoint.Hostname = &hostname
			}
			wanted[at].Endpoints = append(wanted[at].Endpoints, endpoint)
		}
	}
	p.count(existing, slices.Collect(maps.Values(wanted)))
	for _, old := range existing {
		at := slot{old.AddressType, endpointsliceutil.NewPortMapKey(slices.Clone(old.Ports))}
		now := wanted[at]
		if now == nil {
			p.delete = append(p.delete, old)
			continue
		}
		delete(wanted, at) // one slice has room for all
		if !same(old, now) {
			p.update = append(p.update, renewed(old, now))
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(wanted), func(a, b slot) int { return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.ports, b.ports)) }) {
		// What is not needed any more is used again, so that its watchers see one change.
		spare := slices.IndexFunc(p.delete, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == at.family })
		if spare < 0 {
			p.create = append(p.create, wanted[at])
			continue
		}
		p.update = append(p.update, renewed(p.delete[spare], wanted[at]))
		p.delete = slices.Delete(p.delete, spare, spare+1)
	}
	return p
}

// count says how the endpoints of slices that are wanted differ from those of the slices that there are.
func (p *plan) count(existing, wanted []*discoveryv1.EndpointSlice) {
	type key struct {
		at      slot
		address string
	}
	all := func(list []*discoveryv1.EndpointSlice) map[key]discoveryv1.Endpoint {
		m := map[key]discoveryv1.Endpoint{}
		for _, s := range list {
			at := slot{s.AddressType, endpointsliceutil.NewPortMapKey(slices.Clone(s.Ports))}
			for _, e := range s.Endpoints {
				m[key{at, e.Addresses[0]}] = e
			}
		}
		return m
	}
	before, now := all(existing), all(wanted)
	for k, e := range now {
		if old, had := before[k]; !had {
			p.added++
		} else if !equality.Semantic.DeepEqual(old, e) {
			p.updated++
		}
		delete(before, k)
	}
	p.removed = len(before)
}

func newSlice(e *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports,
	}
	if len(validation.IsDNS1123Subdomain(e.Name+"-x")) > 0 {
		s.GenerateName = e.Name
	}
	maps.Copy(s.Labels, e.Labels)
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	maps.Copy(s.Annotations, e.Annotations)
	delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(s.Annotations, corev1.LastAppliedConfigAnnotation)
	return s
}

// same reports whether a slice is as it should be.
func same(old, now *discoveryv1.EndpointSlice) bool {
	byAddress := func(a, b discoveryv1.Endpoint) int { return cmp.Compare(a.Addresses[0], b.Addresses[0]) }
	a, b := slices.Clone(old.Endpoints), slices.Clone(now.Endpoints)
	slices.SortStableFunc(a, byAddress)
	slices.SortStableFunc(b, byAddress)
	return maps.Equal(old.Labels, now.Labels) && maps.Equal(old.Annotations, now.Annotations) &&
		metav1.IsControlledBy(old, &metav1.ObjectMeta{UID: now.OwnerReferences[0].UID}) && equality.Semantic.DeepEqual(a, b)
}

// renewed returns old with the content of now.
func renewed(old, now *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s := old.DeepCopy()
	s.Labels, s.Annotations, s.OwnerReferences = now.Labels, now.Annotations, now.OwnerReferences
	s.Ports, s.Endpoints = now.Ports, now.Endpoints
	return s
}

// subset are the addresses that have the same ports.
type subset struct {
	ports     []discoveryv1.EndpointPort
	addresses []address
}

type address struct {
	corev1.EndpointAddress
	ready bool
}

// repack brings together what subsets say about the same address, and then the
// addresses with the same ports. An address that is ready in one subset and not in another counts
// as ready on the ports of the one.
func repack(subsets []corev1.EndpointSubset) []subset {
	type key struct {
		ip    string
		uid   types.UID
		ready bool
	}
	type portKey struct {
		name, app string
		port      int32
		protocol  corev1.Protocol
	}
	type member struct {
		address
		ports []discoveryv1.EndpointPort
	}
	var (
		order   []key
		members = map[key]*member{}
		seen    = map[string]map[portKey]bool{} // by IP and UID
	)
	note := func(a corev1.EndpointAddress, ready bool, ports []corev1.EndpointPort) {
		k := key{ip: a.IP, ready: ready}
		if a.TargetRef != nil {
			k.uid = a.TargetRef.UID
		}
		id := k.ip + " " + string(k.uid)
		if seen[id] == nil {
			seen[id] = map[portKey]bool{}
		}
		for i := range ports {
			p := ports[i].DeepCopy()
			pk := portKey{name: p.Name, port: p.Port, protocol: p.Protocol}
			if p.AppProtocol != nil {
				pk.app = *p.AppProtocol
			}
			if seen[id][pk] {
				continue
			}
			seen[id][pk] = true
			if members[k] == nil {
				members[k] = &member{address: address{a, ready}}
				order = append(order, k)
			}
			members[k].ports = append(members[k].ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
		}
		if len(ports) == 0 && members[k] == nil {
			members[k] = &member{address: address{a, ready}}
			order = append(order, k)
		}
	}
	for _, s := range subsets {
		for _, a := range s.Addresses {
			note(a, true, s.Ports)
		}
	}
	for _, s := range subsets {
		for _, a := range s.NotReadyAddresses {
			note(a, false, s.Ports)
		}
	}
	var (
		packed []subset
		index  = map[endpointsliceutil.PortMapKey]int{}
	)
	for _, k := range order {
		m := members[k]
		ports := endpointsliceutil.NewPortMapKey(m.ports)
		i, ok := index[ports]
		if !ok {
			i = len(packed)
			index[ports] = i
			packed = append(packed, subset{ports: m.ports})
		}
		packed[i].addresses = append(packed[i].addresses, m.address)
	}
	return packed
}
