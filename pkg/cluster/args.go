package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

// args are the arguments of every component, those that kubeadm gives them: a
// component gets the same whether it runs inside leme or from its own binary.
func args(d dataDir, s *State, nodeIP string) map[string][]string {
	extra := s.Config.Components
	return map[string][]string{
		"kube-apiserver":          append(apiserverArgs(d, s, nodeIP), extraArgs(extra["kube-apiserver"])...),
		"kube-controller-manager": append(controllerManagerArgs(d, s), extraArgs(extra["kube-controller-manager"])...),
		"kube-scheduler":          append(schedulerArgs(d, s), extraArgs(extra["kube-scheduler"])...),
	}
}

// nodeArgs are the arguments of the components that every node runs.
func nodeArgs(d dataDir, n *nodeSpec) map[string][]string {
	return map[string][]string{
		"kubelet":    append(kubeletArgs(d, n), extraArgs(n.Components["kubelet"])...),
		"kube-proxy": append(proxyArgs(d, n), extraArgs(n.Components["kube-proxy"])...),
	}
}

func extraArgs(c v1alpha1.Component) []string {
	var out []string
	for _, a := range c.ExtraArgs {
		out = append(out, "--"+a.Name+"="+a.Value)
	}
	return out
}

func apiserverArgs(d dataDir, s *State, nodeIP string) []string {
	out := []string{
		"--advertise-address=" + nodeIP,
		"--secure-port=" + strconv.Itoa(s.Ports.APIServer),
		"--tls-cert-file=" + d.pki("apiserver.crt"),
		"--tls-private-key-file=" + d.pki("apiserver.key"),

		"--client-ca-file=" + d.pki("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		// Without it, the server's end waits a minute for pods that watch.
		"--shutdown-send-retry-after=true",

		"--service-cluster-ip-range=" + s.ServiceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc." + s.Config.Networking.DNSDomain,
		"--service-account-key-file=" + d.pki("sa.pub"),
		"--service-account-signing-key-file=" + d.pki("sa.key"),

		"--kubelet-certificate-authority=" + d.pki("ca.crt"),
		"--kubelet-client-certificate=" + d.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + d.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",

		"--proxy-client-cert-file=" + d.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + d.pki("front-proxy-client.key"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-client-ca-file=" + d.pki("front-proxy-ca.crt"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
	}
	// Counting all kinds of objects is the most that an idle cluster would do.
	out = append(out, "--etcd-count-metric-poll-period=10m")
	e := s.Config.Etcd
	if len(e.Servers) == 0 {
		return append(out,
			fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", s.Ports.Etcd),
			"--etcd-cafile="+d.pki("etcd/ca.crt"),
			"--etcd-certfile="+d.pki("apiserver-etcd-client.crt"),
			"--etcd-keyfile="+d.pki("apiserver-etcd-client.key"))
	}
	out = append(out, "--etcd-servers="+strings.Join(e.Servers, ","))
	for _, f := range []struct{ flag, file string }{{"cafile", e.CAFile}, {"certfile", e.CertFile}, {"keyfile", e.KeyFile}} {
		if f.file != "" {
			out = append(out, "--etcd-"+f.flag+"="+f.file)
		}
	}
	return out
}

func controllerManagerArgs(d dataDir, s *State) []string {
	return append(servingArgs(d, "kube-controller-manager", s.Ports.ControllerManager),
		"--use-service-account-credentials=true",
		"--controllers=*,bootstrapsigner,tokencleaner",
		"--cluster-name="+s.Config.Name,

		"--allocate-node-cidrs=true",
		"--cluster-cidr="+s.PodCIDR,
		"--service-cluster-ip-range="+s.ServiceCIDR,

		"--cluster-signing-cert-file="+d.pki("ca.crt"),
		"--cluster-signing-key-file="+d.pki("ca.key"),
		"--root-ca-file="+d.pki("ca.crt"),
		"--service-account-private-key-file="+d.pki("sa.key"),
	)
}

func schedulerArgs(d dataDir, s *State) []string {
	return servingArgs(d, "kube-scheduler", s.Ports.Scheduler)
}

// servingArgs are common to the components that only report on themselves. There is
// one of each: an election would keep it waiting after a crash, for nothing.
func servingArgs(d dataDir, name string, port int) []string {
	return []string{
		"--kubeconfig=" + d.kubeconfig(name),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--client-ca-file=" + d.pki("ca.crt"),
		"--requestheader-client-ca-file=" + d.pki("front-proxy-ca.crt"),
		"--authentication-kubeconfig=" + d.kubeconfig(name),
		"--authorization-kubeconfig=" + d.kubeconfig(name),
	}
}

func kubeletArgs(d dataDir, n *nodeSpec) []string {
	out := []string{
		"--config=" + d.config("kubelet.yaml"),
		"--kubeconfig=" + d.kubeconfig("kubelet"),
		"--hostname-override=" + n.Name,
		"--node-ip=" + n.IP,
		"--root-dir=" + d.path("kubelet"),
		"--cert-dir=" + d.path("kubelet", "pki"),
	}
	if len(n.Labels) > 0 {
		out = append(out, "--node-labels="+joinLabels(n.Labels))
	}
	return out
}

func proxyArgs(d dataDir, n *nodeSpec) []string {
	out := []string{
		"--config=" + d.config("kube-proxy.yaml"),
		"--hostname-override=" + n.Name,
	}
	if n.ProxyTable != defaultProxyTable { // the original has no such flag
		out = append(out, "--nftables-table="+n.ProxyTable)
	}
	return out
}
