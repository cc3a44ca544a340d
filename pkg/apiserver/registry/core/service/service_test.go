package service

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
)

func TestSetFamilies(t *testing.T) {
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	single, prefer, require := corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack
	selector := map[string]string{"a": "b"}
	for _, test := range []struct {
		name    string
		cluster []corev1.IPFamily
		spec    corev1.ServiceSpec
		want    []corev1.IPFamily
		policy  corev1.IPFamilyPolicy
		wantErr bool
	}{
		{"default", []corev1.IPFamily{v4, v6}, corev1.ServiceSpec{Selector: selector}, []corev1.IPFamily{v4}, single, false},
		{"prefer", []corev1.IPFamily{v6, v4}, corev1.ServiceSpec{Selector: selector, IPFamilyPolicy: &prefer}, []corev1.IPFamily{v6, v4}, prefer, false},
		{"prefer where there is one", []corev1.IPFamily{v4}, corev1.ServiceSpec{Selector: selector, IPFamilyPolicy: &prefer}, []corev1.IPFamily{v4}, prefer, false},
		{"require where there is one", []corev1.IPFamily{v4}, corev1.ServiceSpec{Selector: selector, IPFamilyPolicy: &require}, nil, require, true},
		{"of the address", []corev1.IPFamily{v4, v6}, corev1.ServiceSpec{Selector: selector, ClusterIP: "fd00::1", ClusterIPs: []string{"fd00::1"}}, []corev1.IPFamily{v6}, single, false},
		{"not on this cluster", []corev1.IPFamily{v4}, corev1.ServiceSpec{Selector: selector, IPFamilies: []corev1.IPFamily{v6}}, nil, single, true},
		{"headless without selector", []corev1.IPFamily{v4}, corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}, []corev1.IPFamily{v4, v6}, require, false},
		{"an unknown family", []corev1.IPFamily{v4}, corev1.ServiceSpec{Selector: selector, IPFamilies: []corev1.IPFamily{"x"}}, nil, single, true},
		{"no address", []corev1.IPFamily{v4}, corev1.ServiceSpec{Selector: selector, ClusterIP: "a", ClusterIPs: []string{"a"}}, nil, single, true},
		{"two families, one stack", []corev1.IPFamily{v4, v6}, corev1.ServiceSpec{Selector: selector, IPFamilyPolicy: &single, IPFamilies: []corev1.IPFamily{v4, v6}}, nil, single, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &corev1.Service{Spec: test.spec}
			err := setFamilies(s, nil, test.cluster)
			if (err != nil) != test.wantErr {
				t.Fatalf("error is %v, want one: %v", err, test.wantErr)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(test.want, s.Spec.IPFamilies); diff != "" {
				t.Error(diff)
			}
			if got := ptr.Deref(s.Spec.IPFamilyPolicy, ""); got != test.policy {
				t.Errorf("policy is %s, want %s", got, test.policy)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	for _, test := range []struct{ prefix, first, last string }{
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.254"},
		{"10.96.0.0/16", "10.96.0.1", "10.96.255.254"},
		{"192.168.1.8/29", "192.168.1.9", "192.168.1.14"},
		{"fd00::/112", "fd00::1", "fd00::ffff"},
	} {
		first, last := bounds(netip.MustParsePrefix(test.prefix))
		if first.String() != test.first || last.String() != test.last {
			t.Errorf("%s: %s to %s, want %s to %s", test.prefix, first, last, test.first, test.last)
		}
	}
}

func TestKeepAllocated(t *testing.T) {
	old := &corev1.Service{Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, ClusterIP: "10.0.0.5", ClusterIPs: []string{"10.0.0.5"},
		Ports: []corev1.ServicePort{{Name: "a", Port: 1, NodePort: 30001}, {Name: "b", Port: 2, NodePort: 30002}},
	}}
	s := &corev1.Service{Spec: corev1.ServiceSpec{
		Type:  corev1.ServiceTypeNodePort,
		Ports: []corev1.ServicePort{{Name: "a", Port: 1}, {Name: "c", Port: 3, NodePort: 30002}, {Name: "b", Port: 2}},
	}}
	core.KeepAllocated(s, old)
	if s.Spec.ClusterIP != "10.0.0.5" {
		t.Errorf("cluster IP is %q", s.Spec.ClusterIP)
	}
	var got []int32
	for _, p := range s.Spec.Ports {
		got = append(got, p.NodePort)
	}
	if diff := cmp.Diff([]int32{30001, 30002, 0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCompare(t *testing.T) {
	now := time.Now()
	service := func(name, ip string) corev1.Service {
		return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}}}
	}
	address := func(ip, owner string, age time.Duration) networkingv1.IPAddress {
		return networkingv1.IPAddress{
			ObjectMeta: metav1.ObjectMeta{Name: ip, CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "ns", Name: owner}},
		}
	}
	missing, forgotten := compare(
		[]corev1.Service{service("has", "10.0.0.1"), service("lacks", "10.0.0.2"), service("headless", "None")},
		[]networkingv1.IPAddress{
			address("10.0.0.1", "has", time.Hour),
			address("10.0.0.3", "gone", time.Hour),
			address("10.0.0.4", "coming", time.Second),
		}, now)
	if len(missing) != 1 || missing[0].Name != "10.0.0.2" {
		t.Errorf("missing: %v", missing)
	}
	if len(forgotten) != 1 || forgotten[0].Name != "10.0.0.3" {
		t.Errorf("forgotten: %v", forgotten)
	}
}
