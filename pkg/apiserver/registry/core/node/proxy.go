package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/kubelet"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/proxy"
)

// Proxy returns nodes/proxy: to the kubelet, or to another port of the node.
func Proxy(nodes *generic.Store[*corev1.Node], kubelets *kubelet.Connector, transport http.RoundTripper, maxBytesPerSec int64) proxy.Storage[*corev1.NodeProxyOptions] {
	return proxy.Storage[*corev1.NodeProxyOptions]{
		NewOptions: func() *corev1.NodeProxyOptions { return &corev1.NodeProxyOptions{} },
		Path:       func(o *corev1.NodeProxyOptions) string { return o.Path },
		Locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, err := proxy.Split("node", id)
			if err != nil {
				return nil, nil, err
			}
			if _, err := nodes.Get(ctx, name, &metav1.GetOptions{}); err != nil {
				return nil, nil, err
			}
			c, err := kubelets.Connection(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			host, kubeletPort, err := net.SplitHostPort(c.Host)
			if err != nil {
				return nil, nil, apierrors.NewInternalError(fmt.Errorf("address of node %s: %w", name, err))
			}
			if port == "" || port == kubeletPort {
				return &url.URL{Scheme: "https", Host: c.Host}, c.Transport, nil
			}
			if err := proxy.Allowed(host); err != nil {
				return nil, nil, err
			}
			return proxy.Location(scheme, host, port), transport, nil
		},
		MaxBytesPerSec: maxBytesPerSec,
	}
}
