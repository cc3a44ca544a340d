package bootstrap

import (
	"net"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestCounted(t *testing.T) {
	for name, c := range map[string]struct {
		have, own string
		count     int
		want      string
	}{
		"the first":                   {"", "a", 1, "a"},
		"there already":               {"a b", "b", 2, "a b"},
		"one more":                    {"a c", "b", 3, "a b c"},
		"fewer than there should be":  {"a b", "b", 4, "a b"},
		"in place of the only other":  {"a", "b", 1, "b"},
		"in place of the next":        {"a b c d", "a", 3, "a c d"},
		"the last, in place of first": {"a b c", "d", 3, "b c d"},
		"too many by far":             {"a b c d e", "d", 2, "c d"},
		"in no order":                 {"c a", "b", 3, "a b c"},
	} {
		have := strings.Fields(c.have)
		if got := counted(have, c.own, c.count); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %v", name, got)
		}
		if !slices.Equal(have, strings.Fields(c.have)) {
			t.Errorf("%s: what was given is now %v", name, have)
		}
	}
}

// TestCountedEndpoints wants servers that are counted to come and go as endpoints.
func TestCountedEndpoints(t *testing.T) {
	client := fake.NewClientset()
	server := func(address string) *APIService {
		return &APIService{Client: client, ClusterIP: net.ParseIP("10.0.0.1"), Address: net.ParseIP(address), Port: 6443, Count: 2}
	}
	expect := func(when string, want ...string) {
		t.Helper()
		endpoints, err := client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		slice, err := client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var got, sliced []string
		for _, s := range endpoints.Subsets {
			for _, a := range s.Addresses {
				got = append(got, a.IP)
			}
		}
		for _, e := range slice.Endpoints {
			sliced = append(sliced, e.Addresses...)
		}
		if !slices.Equal(got, want) || !slices.Equal(sliced, want) {
			t.Errorf("%s: Endpoints %v, EndpointSlice %v, want %v", when, got, sliced, want)
		}
		if len(want) == 0 && (len(endpoints.Subsets) > 0 || len(slice.Ports) > 0) {
			t.Errorf("%s: ports without addresses: %v, %v", when, endpoints.Subsets, slice.Ports)
		}
	}
	a, b, c := server("192.0.2.1"), server("192.0.2.2"), server("192.0.2.3")
	for _, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"the first leaves before it came", a.Leave, nil},
		{"the first comes", func() error { return a.keep(t.Context()) }, []string{"192.0.2.1"}},
		{"the second comes", func() error { return b.keep(t.Context()) }, []string{"192.0.2.1", "192.0.2.2"}},
		{"a third takes the place of the first", func() error { return c.keep(t.Context()) }, []string{"192.0.2.2", "192.0.2.3"}},
		{"the third leaves", c.Leave, []string{"192.0.2.2"}},
		{"the second leaves", b.Leave, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		expect(step.name, step.want...)
	}
}

// TestLeftAlone wants no endpoints of a server that has neither leases nor a count.
func TestLeftAlone(t *testing.T) {
	client := fake.NewClientset()
	a := &APIService{Client: client, ClusterIP: net.ParseIP("10.0.0.1"), Address: net.ParseIP("192.0.2.1"), Port: 6443}
	if err := a.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Leave(); err != nil {
		t.Fatal(err)
	}
	if s, err := client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}); err != nil || s.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("the Service: %v, %v", s, err)
	}
	if _, err := client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("Endpoints: %v", err)
	}
}
