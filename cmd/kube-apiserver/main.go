// Command kube-apiserver serves the Kubernetes API from etcd.
package main

import (
	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/component"
)

func main() {
	component.Main("kube-apiserver",
		"kube-apiserver checks, stores and serves the objects of a cluster. All other components meet through it.",
		apiserver.NewOptions())
}
