// Command kube-controller-manager runs the controllers that turn what the API
// server stores into what the cluster does.
package main

import (
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller"
)

func main() {
	component.Command{Name: "kube-controller-manager", Options: controller.NewOptions(), Doc: `The Kubernetes controller manager watches the state of the cluster through the
API server and moves it towards the desired state: it keeps the replicas of
workloads, the endpoints of Services, the life cycle of nodes and namespaces.`}.Main()
}
