package main

import (
	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/cluster"
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller"
	"github.com/leme-k8s/leme/pkg/kubelet"
	"github.com/leme-k8s/leme/pkg/proxy"
	"github.com/leme-k8s/leme/pkg/scheduler"
)

// components are what `leme up` runs inside its own process.
var components = cluster.Components{
	"kube-apiserver":          func() component.Options { return apiserver.NewOptions() },
	"kube-controller-manager": func() component.Options { return controller.NewOptions() },
	"kube-scheduler":          func() component.Options { return scheduler.NewOptions() },
	"kubelet":                 func() component.Options { return kubelet.NewOptions() },
	"kube-proxy":              func() component.Options { return proxy.NewOptions() },
}
