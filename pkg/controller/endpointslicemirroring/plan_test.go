package endpointslicemirroring

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// show writes slices in one line each: family, ports, endpoints; those not ready in brackets.
func show(list []*discoveryv1.EndpointSlice) []string {
	var lines []string
	for _, s := range list {
		var parts []string
		for _, p := range s.Ports {
			parts = append(parts, fmt.Sprintf("%s:%d", *p.Name, *p.Port))
		}
		slices.Sort(parts)
		line := s.Name + " " + string(s.AddressType) + " " + strings.Join(parts, ",")
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				line += " " + e.Addresses[0]
			} else {
				line += " (" + e.Addresses[0] + ")"
			}
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

func TestMirror(t *testing.T) {
	endpoints := func(subsets string) *corev1.Endpoints {
		e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc", UID: "u", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1", corev1.EndpointsLastChangeTriggerTime: "x"}}}
		if err := yaml.UnmarshalStrict([]byte(subsets), &e.Subsets); err != nil {
			t.Fatal(err)
		}
		return e
	}
	// before are the slices that there are for these subsets, called s0, s1, …
	before := func(subsets string) []*discoveryv1.EndpointSlice {
		made := mirror(endpoints(subsets), nil, 100).create
		for i := range made {
			made[i].Name = fmt.Sprint("s", i)
		}
		return made
	}
	const (
		http  = `[{addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 80, protocol: TCP}]}]`
		https = `[{addresses: [{ip: 10.0.0.1}], ports: [{name: https, port: 443, protocol: TCP}]}]`
	)
	for name, tc := range map[string]struct {
		before, subsets        string
		create, update, delete []string
		invalid, skipped       int
	}{
		"new":     {subsets: http, create: []string{"IPv4 http:80 10.0.0.1"}},
		"nothing": {before: http, subsets: http},
		"empty":   {before: http, subsets: `[]`, delete: []string{"s0 IPv4 http:80 10.0.0.1"}},
		"one more": {before: http, subsets: `[{addresses: [{ip: 10.0.0.1}], notReadyAddresses: [{ip: 10.0.0.2}], ports: [{name: http, port: 80, protocol: TCP}]}]`,
			update: []string{"s0 IPv4 http:80 10.0.0.1 (10.0.0.2)"}},
		"other ports": {before: http, subsets: https, update: []string{"s0 IPv4 https:443 10.0.0.1"}},
		"two families": {subsets: `[{addresses: [{ip: 10.0.0.1}, {ip: "fd00::1"}], ports: [{name: http, port: 80, protocol: TCP}]}]`,
			create: []string{"IPv4 http:80 10.0.0.1", "IPv6 http:80 fd00::1"}},
		"another family": {before: http, subsets: `[{addresses: [{ip: "fd00::1"}], ports: [{name: http, port: 80, protocol: TCP}]}]`,
			create: []string{"IPv6 http:80 fd00::1"}, delete: []string{"s0 IPv4 http:80 10.0.0.1"}},
		"an address in two subsets": {subsets: `[{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{name: http, port: 80, protocol: TCP}]},
			{addresses: [{ip: 10.0.0.1}], ports: [{name: https, port: 443, protocol: TCP}]}]`,
			create: []string{"IPv4 http:80 10.0.0.2", "IPv4 http:80,https:443 10.0.0.1"}},
		"ready on one port": {subsets: `[{addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 80, protocol: TCP}]},
			{notReadyAddresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 80, protocol: TCP}, {name: https, port: 443, protocol: TCP}]}]`,
			create: []string{"IPv4 http:80 10.0.0.1", "IPv4 https:443 (10.0.0.1)"}},
		"no ports":      {subsets: `[{addresses: [{ip: 10.0.0.1}]}]`, create: []string{"IPv4  10.0.0.1"}},
		"no IP address": {subsets: `[{addresses: [{ip: x}, {ip: 10.0.0.1}], ports: [{name: http, port: 80, protocol: TCP}]}]`, create: []string{"IPv4 http:80 10.0.0.1"}, invalid: 1, skipped: 1},
		"too many": {subsets: `[{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}, {ip: 10.0.0.3}], ports: [{name: http, port: 80, protocol: TCP}]}]`,
			create: []string{"IPv4 http:80 10.0.0.1 10.0.0.2"}, skipped: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var existing []*discoveryv1.EndpointSlice
			if tc.before != "" {
				existing = before(tc.before)
			}
			p := mirror(endpoints(tc.subsets), existing, 2)
			for what, pair := range map[string][2][]string{"create": {show(p.create), tc.create}, "update": {show(p.update), tc.update}, "delete": {show(p.delete), tc.delete}} {
				if !slices.Equal(pair[0], pair[1]) {
					t.Errorf("%s %q, want %q", what, pair[0], pair[1])
				}
			}
			if p.invalid != tc.invalid || p.skipped != tc.skipped {
				t.Errorf("%d invalid, %d skipped", p.invalid, p.skipped)
			}
		})
	}
	e, old := endpoints(http), before(http)
	if old[0].Labels["l"] != "1" || old[0].Annotations["a"] != "1" || len(old[0].Annotations) != 1 {
		t.Errorf("metadata: %+v", old[0].ObjectMeta)
	}
	e.Labels["l"] = "2"
	if p := mirror(e, old, 2); len(p.update) != 1 || p.update[0].Labels["l"] != "2" {
		t.Errorf("a changed label: %+v", p)
	}
	e = endpoints(http)
	e.UID = "another"
	if p := mirror(e, old, 2); len(p.update) != 1 || p.update[0].OwnerReferences[0].UID != "another" {
		t.Errorf("another owner: %+v", p)
	}
}

func TestCount(t *testing.T) {
	made := func(ready string, notReady string) []*discoveryv1.EndpointSlice {
		e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc", UID: "u"}}
		s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Port: 80, Protocol: corev1.ProtocolTCP}}}
		for _, ip := range strings.Fields(ready) {
			s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: ip})
		}
		for _, ip := range strings.Fields(notReady) {
			s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{IP: ip})
		}
		e.Subsets = []corev1.EndpointSubset{s}
		return mirror(e, nil, 100).create
	}
	var p plan
	p.count(made("10.0.0.1 10.0.0.2 10.0.0.3", ""), made("10.0.0.1 10.0.0.4 fd00::1", "10.0.0.2"))
	if p.added != 2 || p.updated != 1 || p.removed != 1 {
		t.Errorf("%+v", p)
	}
}
