// Command kubelet runs the pods of a Kubernetes node.
package main

import (
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/kubelet"
)

func main() {
	component.Command{Name: "kubelet", Options: kubelet.NewOptions(), Doc: "The kubelet runs the pods that are bound to its node, through a container runtime that speaks CRI, " +
		"and reports on them and on the node to the API server."}.Main()
}
