// Command kube-proxy makes the addresses of Services lead to their endpoints.
package main

import (
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/proxy"
)

func main() {
	component.Command{Name: "kube-proxy", Options: proxy.NewOptions(), Doc: `kube-proxy makes the addresses of Services lead to their endpoints.

It programs nftables on the node that it runs on: cluster IPs, node ports, external and
load balancer addresses. It is configured by flags or a KubeProxyConfiguration file (--config).`}.Main()
}
