// Command kube-apiserver serves the Kubernetes API from etcd.
package main

import (
	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/component"
)

func main() {
	component.Command{
		Name:    "kube-apiserver",
		Doc:     "kube-apiserver checks, stores and serves the objects of a cluster. All other components meet through it.",
		Options: apiserver.NewOptions(),
		Room:    256 << 20, // that of a small cluster would otherwise collect after every few hundred requests; with half of it, a ninth of its time goes there
	}.Main()
}
