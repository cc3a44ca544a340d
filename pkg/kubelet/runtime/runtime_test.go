package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExpand(t *testing.T) {
	known := map[string]string{"A": "1", "B": "$(A)"}
	lookup := func(n string) (string, bool) { v, ok := known[n]; return v, ok }
	for in, want := range map[string]string{
		"":            "",
		"plain":       "plain",
		"$(A)":        "1",
		"x$(A)y$(B)z": "x1y$(A)z",
		"$(C)":        "$(C)",
		"$$(A)":       "$(A)",
		"$$$(A)":      "$1",
		"$(A":         "$(A",
		"$A":          "$A",
		"$":           "$",
		"$()":         "$()",
		"a$$":         "a$",
		"$(A)$":       "1$",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

type objects struct{}

func (objects) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if name != "s" {
		return nil, apierrors.NewNotFound(v1.Resource("secrets"), name)
	}
	return &v1.Secret{Data: map[string][]byte{"k": []byte("secret")}}, nil
}

func (objects) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if name != "c" {
		return nil, apierrors.NewNotFound(v1.Resource("configmaps"), name)
	}
	return &v1.ConfigMap{Data: map[string]string{"k": "map", "FROM": "map", "data-1": "x"}}, nil
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "env"), []byte("# comment\n\nX='1'\nY='two\nlines'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	yes := true
	ref := func(name, key string, optional *bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: optional}}
	}
	file := func(key string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: "env", Key: key}}
	}
	links := false
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"l": "label"}},
		Spec:       v1.PodSpec{EnableServiceLinks: &links, NodeName: "node"},
	}
	src := EnvSources{
		Objects: objects{}, PodIPs: []string{"10.0.0.1", "fd00::1"}, HostIPs: []string{"192.0.2.1"},
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("1Gi")},
		Volumes:     map[string]Volume{"v": {HostPath: dir}},
		Services: []*v1.Service{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "own"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.2", Ports: []v1.ServicePort{{Port: 80}}}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []v1.ServicePort{{Name: "https", Port: 443}}}},
		},
	}
	for name, tc := range map[string]struct {
		c    v1.Container
		want map[string]string
		err  string
	}{
		"values": {
			c: v1.Container{
				EnvFrom: []v1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}}},
				Env: []v1.EnvVar{
					{Name: "P_FROM", Value: "own"}, {Name: "A", Value: "$(P_k)/$(NONE)/$(KUBERNETES_SERVICE_HOST)"}, {Name: "M", ValueFrom: ref("c", "k", nil)},
					{Name: "GONE", ValueFrom: ref("gone", "k", &yes)}, {Name: "NOKEY", ValueFrom: ref("c", "gone", &yes)},
				},
			},
			want: map[string]string{"P_FROM": "own", "P_k": "map", "P_data-1": "x", "A": "map/$(NONE)/10.96.0.1", "M": "map"},
		},
		"fields": {
			c: v1.Container{Env: []v1.EnvVar{
				{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "IPS", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIPs"}}},
				{Name: "NODE", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
				{Name: "L", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['l']"}}},
				{Name: "CPU", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}},
				{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			}},
			want: map[string]string{"IP": "10.0.0.1", "IPS": "10.0.0.1,fd00::1", "NODE": "node", "L": "label", "CPU": "4", "MEM": "1024"},
		},
		"files":      {c: v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: file("X")}, {Name: "Y", ValueFrom: file("Y")}}}, want: map[string]string{"X": "1", "Y": "two\nlines"}},
		"no key":     {c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: ref("c", "gone", nil)}}}, err: "couldn't find key gone in ConfigMap n/c"},
		"no map":     {c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: ref("gone", "k", nil)}}}, err: `configmaps "gone" not found`},
		"no file":    {c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: file("Z")}}}, err: `environment variable key "Z" not found`},
		"no secrets": {c: v1.Container{EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "gone"}}}}}, err: `secrets "gone" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			vars, err := Environment(t.Context(), pod, &tc.c, src)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, v := range vars {
				if !strings.HasPrefix(v.Name, "KUBERNETES_") {
					got[v.Name] = v.Value
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestHash holds the hash to what the original writes on containers: another value would have a kubelet
// restart everything that the other one started.
func TestHash(t *testing.T) {
	c := &v1.Container{Name: "c", Image: "registry.k8s.io/pause:3.10.2", Command: []string{"does not matter"}}
	if got := Hash(c); got != 0xd7e0a3c {
		t.Errorf("got %x", got)
	}
}

func TestDNS(t *testing.T) {
	host := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(host, []byte("nameserver 192.0.2.53 # local\nsearch example.com.\noptions timeout:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := "2"
	d := DNS{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", ResolvConf: host}
	for name, tc := range map[string]struct {
		spec v1.PodSpec
		want *runtimeapi.DNSConfig
	}{
		"cluster": {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst}, &runtimeapi.DNSConfig{
			Servers: []string{"10.96.0.10"}, Searches: []string{"n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"}, Options: []string{"ndots:5"},
		}},
		"host network": {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, HostNetwork: true}, &runtimeapi.DNSConfig{
			Servers: []string{"192.0.2.53"}, Searches: []string{"example.com"}, Options: []string{"timeout:1"},
		}},
		"none": {v1.PodSpec{DNSPolicy: v1.DNSNone, DNSConfig: &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}}}, &runtimeapi.DNSConfig{
			Servers: []string{"1.1.1.1"}, Searches: []string{},
		}},
		"merged": {v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, DNSConfig: &v1.PodDNSConfig{
			Searches: []string{"more"}, Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}},
		}}, &runtimeapi.DNSConfig{
			Servers: []string{"10.96.0.10"}, Searches: []string{"n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com", "more"}, Options: []string{"ndots:2", "edns0"},
		}},
	} {
		got, warning, err := d.Config(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Spec: tc.spec})
		if err != nil || warning != "" {
			t.Fatal(err, warning)
		}
		if got.String() != tc.want.String() {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestOOMScoreAdj(t *testing.T) {
	container := func(request, limit string) v1.Container {
		c := v1.Container{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{}, Limits: v1.ResourceList{}}}
		if request != "" {
			c.Resources.Requests[v1.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			c.Resources.Limits[v1.ResourceMemory], c.Resources.Limits[v1.ResourceCPU] = resource.MustParse(limit), resource.MustParse("1")
			c.Resources.Requests[v1.ResourceCPU] = resource.MustParse("1")
		}
		return c
	}
	critical := int32(2_000_001_000)
	for name, tc := range map[string]struct {
		c        v1.Container
		priority *int32
		want     int64
	}{
		"best effort": {container("", ""), nil, 1000},
		"guaranteed":  {container("1Gi", "1Gi"), nil, -997},
		"burstable":   {container("4Gi", ""), nil, 500},
		"tiny":        {container("1", ""), nil, 999},
		"huge":        {container("8Gi", ""), nil, 3},
		"critical":    {container("", ""), &critical, -997},
	} {
		pod := &v1.Pod{Spec: v1.PodSpec{Priority: tc.priority, Containers: []v1.Container{tc.c}}}
		if got := OOMScoreAdj(pod, &pod.Spec.Containers[0], 8<<30); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
}

func TestVerifyNonRoot(t *testing.T) {
	yes, zero, user := true, int64(0), int64(1000)
	for name, tc := range map[string]struct {
		sc       v1.SecurityContext
		uid      *int64
		username string
		ok       bool
	}{
		"not asked":      {v1.SecurityContext{}, &zero, "", true},
		"image is root":  {v1.SecurityContext{RunAsNonRoot: &yes}, &zero, "", false},
		"image is not":   {v1.SecurityContext{RunAsNonRoot: &yes}, &user, "", true},
		"image has name": {v1.SecurityContext{RunAsNonRoot: &yes}, nil, "nobody", false},
		"own user":       {v1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &user}, &zero, "", true},
		"own root":       {v1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &zero}, &user, "", false},
	} {
		if err := VerifyNonRoot(&v1.Pod{}, &v1.Container{SecurityContext: &tc.sc}, tc.uid, tc.username); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := readLogTail(path), "one\ntwo\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHostsFile(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: v1.PodSpec{
		Hostname: "h", Subdomain: "sub", HostAliases: []v1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}},
	}}
	path, err := hostsFile(t.TempDir(), pod, []string{"10.0.0.1"}, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Kubernetes-managed hosts file.\n", "10.0.0.1\th.sub.n.svc.cluster.local\th\n", "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%q is missing in\n%s", want, raw)
		}
	}
}
