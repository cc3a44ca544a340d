package pod

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/proxy"
)

// newProxy is pods/proxy: to the address of the pod and, unless the client says
// another, its first port.
func newProxy(pods *Store, d Dependencies) proxy.Storage[*corev1.PodProxyOptions] {
	return proxy.Storage[*corev1.PodProxyOptions]{
		NewOptions: func() *corev1.PodProxyOptions { return &corev1.PodProxyOptions{} },
		Path:       func(o *corev1.PodProxyOptions) string { return o.Path },
		Locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, err := proxy.Split("pod", id)
			if err != nil {
				return nil, nil, err
			}
			p, err := get(ctx, pods, name)
			if err != nil {
				return nil, nil, err
			}
			if port == "" {
				port = firstPort(p)
			}
			ip := ""
			if len(p.Status.PodIPs) > 0 {
				ip = p.Status.PodIPs[0].IP
			}
			if err := proxy.Allowed(ip); err != nil {
				return nil, nil, err
			}
			return proxy.Location(scheme, ip, port), d.Proxy, nil
		},
		MaxBytesPerSec: d.MaxBytesPerSec,
	}
}

func firstPort(p *corev1.Pod) string {
	for _, c := range p.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}
