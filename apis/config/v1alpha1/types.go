package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GroupVersion and Kind are what the file must say it is.
const (
	GroupVersion = "config.leme.dev/v1alpha1"
	Kind         = "Cluster"
)

// Cluster describes a cluster on this machine. Every field may be left out.
type Cluster struct {
	metav1.TypeMeta `json:",inline"`

	// Name is the cluster's name and that of its context in the user's kubeconfig. Default: leme.
	Name string `json:"name,omitempty"`
	// DataDir holds everything of the cluster. Default: /var/lib/leme.
	DataDir string `json:"dataDir,omitempty"`
	// Networking is where the cluster's addresses come from.
	Networking Networking `json:"networking,omitempty"`
	// Etcd points to an etcd that runs already. Default: one inside leme.
	Etcd Etcd `json:"etcd,omitempty"`
	// Components changes how single components run, by name: kube-apiserver,
	// kube-controller-manager, kube-scheduler, kubelet, kube-proxy.
	Components map[string]Component `json:"components,omitempty"`
	// Node describes the machine as a node.
	Node Node `json:"node,omitempty"`
	// Nodes is how many nodes the cluster starts with: this machine, and further ones
	// within it, each in namespaces of its own. Default: 1. `leme node` adds and removes
	// nodes later.
	Nodes int `json:"nodes,omitempty"`
	// RuntimeDir holds containerd, runc and the CNI plugins. Default: the directory
	// runtime beside the leme program, or /usr/lib/leme/runtime.
	RuntimeDir string `json:"runtimeDir,omitempty"`
	// ImagesDir holds OCI archives of the images that are served without a registry.
	// Default: the directory images beside the leme program, or /usr/lib/leme/images.
	ImagesDir string `json:"imagesDir,omitempty"`
}

// Networking is where addresses come from. A range or port that is left out is
// chosen free when the cluster first starts, and kept.
type Networking struct {
	// PodCIDR is the range of pod addresses. Default: 10.244.0.0/16 or the next one free.
	PodCIDR string `json:"podCIDR,omitempty"`
	// ServiceCIDR is the range of Service addresses. Default: 10.96.0.0/16 or the next one free.
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// NodeCIDR is the range of the addresses of further nodes. Default: 10.64.0.0/24 or
	// the next one free.
	NodeCIDR string `json:"nodeCIDR,omitempty"`
	// DNSDomain is the cluster's domain. Default: cluster.local.
	DNSDomain string `json:"dnsDomain,omitempty"`
	// APIServerPort is the port of the API server. Default: 6443 or the next one free.
	APIServerPort int `json:"apiServerPort,omitempty"`
	// NodeIP is the address of this machine that the cluster uses. Default: the one
	// that leads to the default route.
	NodeIP string `json:"nodeIP,omitempty"`
}

// Etcd points to an etcd cluster. Its data is the user's: `leme down` leaves it.
type Etcd struct {
	// Servers are the client URLs.
	Servers []string `json:"servers,omitempty"`
	// CAFile, CertFile and KeyFile authenticate https servers and this client to them.
	CAFile   string `json:"caFile,omitempty"`
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// Component changes how one component runs.
type Component struct {
	// Binary runs the component from this program instead of inside leme; the
	// original's program is one that works.
	Binary string `json:"binary,omitempty"`
	// ExtraArgs are added to the arguments, as in --name=value.
	ExtraArgs []Arg `json:"extraArgs,omitempty"`
}

// Arg is one flag of a component.
type Arg struct {
	// Name is the flag's name, without dashes.
	Name string `json:"name"`
	// Value is its value.
	Value string `json:"value"`
}

// Node describes the machine as a node.
type Node struct {
	// Name is the node's name. Default: the host's name in lower case.
	Name string `json:"name,omitempty"`
	// Labels are put on the node when it registers.
	Labels map[string]string `json:"labels,omitempty"`
	// Taints are put on the node when it registers. Default: none.
	Taints []corev1.Taint `json:"taints,omitempty"`
}
