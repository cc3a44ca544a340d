package cluster

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

func TestArgs(t *testing.T) {
	s := testState(t, "/var/lib/leme")
	s.Config.Node.Labels = map[string]string{"b": "2", "a": "1"}
	s.Config.Components = map[string]v1alpha1.Component{"kube-scheduler": {ExtraArgs: []v1alpha1.Arg{{Name: "v", Value: "4"}}}}
	all := args("/var/lib/leme", s, "192.0.2.7")
	maps.Copy(all, nodeArgs("/var/lib/leme", firstNode(s, "192.0.2.7", nil)))
	for component, want := range map[string][]string{
		"kube-apiserver": {
			"--advertise-address=192.0.2.7", "--secure-port=6443", "--authorization-mode=Node,RBAC",
			"--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=/var/lib/leme/pki/etcd/ca.crt",
			"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		},
		"kube-controller-manager": {
			"--kubeconfig=/var/lib/leme/kubeconfig/kube-controller-manager.conf", "--use-service-account-credentials=true",
			"--cluster-cidr=10.244.0.0/16", "--secure-port=10257", "--leader-elect=false",
		},
		"kube-scheduler": {"--kubeconfig=/var/lib/leme/kubeconfig/kube-scheduler.conf", "--secure-port=10259", "--v=4"},
		"kubelet": {
			"--config=/var/lib/leme/config/kubelet.yaml", "--hostname-override=node", "--node-ip=192.0.2.7",
			"--root-dir=/var/lib/leme/kubelet", "--node-labels=a=1,b=2",
		},
		"kube-proxy": {"--config=/var/lib/leme/config/kube-proxy.yaml", "--hostname-override=node"},
	} {
		for _, arg := range want {
			if !slices.Contains(all[component], arg) {
				t.Errorf("%s lacks %s: %v", component, arg, all[component])
			}
		}
		seen := map[string]bool{}
		for _, arg := range all[component] {
			name, _, _ := strings.Cut(arg, "=")
			if seen[name] {
				t.Errorf("%s has %s twice", component, name)
			}
			seen[name] = true
		}
	}
	if slices.ContainsFunc(all["kube-proxy"], func(a string) bool { return strings.HasPrefix(a, "--nftables-table") }) {
		t.Error("kube-proxy has a flag that the original lacks")
	}
	s.ProxyTable = "leme-1-proxy"
	if !slices.Contains(nodeArgs("/var/lib/leme", firstNode(s, "192.0.2.7", nil))["kube-proxy"], "--nftables-table=leme-1-proxy") {
		t.Error("kube-proxy of a second cluster has no table of its own")
	}
}

func TestArgsExternalEtcd(t *testing.T) {
	s := testState(t, "/var/lib/leme")
	s.Config.Etcd = v1alpha1.Etcd{Servers: []string{"https://192.0.2.1:2379", "https://192.0.2.2:2379"}, CAFile: "/etc/etcd/ca.crt"}
	got := args("/var/lib/leme", s, "192.0.2.7")["kube-apiserver"]
	for _, arg := range []string{"--etcd-servers=https://192.0.2.1:2379,https://192.0.2.2:2379", "--etcd-cafile=/etc/etcd/ca.crt"} {
		if !slices.Contains(got, arg) {
			t.Errorf("lacks %s: %v", arg, got)
		}
	}
	if slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, "--etcd-certfile") }) {
		t.Error("has a client certificate that nobody gave it")
	}
}
