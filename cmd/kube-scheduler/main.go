// Command kube-scheduler finds a node for each pod that has none.
package main

import (
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/scheduler"
)

func main() {
	component.Command{
		Name: "kube-scheduler",
		Doc: `kube-scheduler finds a node for each pod that has none.

It filters and scores the nodes through the plugins of the pod's profile and binds the
pod to the best one. It is configured by a KubeSchedulerConfiguration file (--config).`,
		Options: scheduler.NewOptions(),
		Room:    128 << 20, // deciding about a pod, binding it and telling about it make much garbage
	}.Main()
}
