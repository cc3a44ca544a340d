package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	utilproxy "k8s.io/apiserver/pkg/util/proxy"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/proxy"
)

// Proxy returns services/proxy: to one of the pods behind a Service.
func Proxy(services *Store, pods rest.Getter, slices discoveryclient.EndpointSlicesGetter, families []corev1.IPFamily, transport http.RoundTripper, maxBytesPerSec int64) proxy.Storage[*corev1.ServiceProxyOptions] {
	l := locator{services: services, pods: pods, slices: slices, family: families[0]}
	return proxy.Storage[*corev1.ServiceProxyOptions]{
		NewOptions: func() *corev1.ServiceProxyOptions { return &corev1.ServiceProxyOptions{} },
		Path:       func(o *corev1.ServiceProxyOptions) string { return o.Path },
		Locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			location, err := l.locate(ctx, id)
			return location, transport, err
		},
		MaxBytesPerSec: maxBytesPerSec,
	}
}

type locator struct {
	services *Store
	pods     rest.Getter
	slices   discoveryclient.EndpointSlicesGetter
	family   corev1.IPFamily
}

func (l locator) locate(ctx context.Context, id string) (*url.URL, error) {
	scheme, name, port, err := proxy.Split("service", id)
	if err != nil {
		return nil, err
	}
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		if port, err = l.portName(ctx, name, int32(number)); err != nil {
			return nil, err
		}
	}
	namespace := request.NamespaceValue(ctx)
	list, err := l.slices.EndpointSlices(namespace).List(ctx, metav1.ListOptions{
		LabelSelector:   labels.Set{discoveryv1.LabelServiceName: name}.String(),
		ResourceVersion: "0",
	})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if len(list.Items) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	var all []*discoveryv1.EndpointSlice
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	host, err := utilproxy.RandomEndpoint(name, all, port, l.family, func(e *discoveryv1.Endpoint) bool {
		err := l.isPod(ctx, namespace, e)
		if err != nil {
			klog.FromContext(ctx).Info("Not proxying to an endpoint", "service", klog.KRef(namespace, name), "endpoint", e.Addresses, "reason", err.Error())
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: scheme, Host: host}, nil
}

// portName is what the port of a number is called: endpoints know it by name.
func (l locator) portName(ctx context.Context, name string, number int32) (string, error) {
	obj, err := l.services.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, p := range obj.(*corev1.Service).Spec.Ports {
		if p.Port == number {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
}

// isPod makes sure that an endpoint is the address of a pod of the namespace:
// anybody can write endpoints that lead anywhere.
func (l locator) isPod(ctx context.Context, namespace string, e *discoveryv1.Endpoint) error {
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
		return errors.New("it names no pod")
	}
	if e.TargetRef.Namespace != namespace {
		return errors.New("its pod is in another namespace")
	}
	obj, err := l.pods.Get(ctx, e.TargetRef.Name, &metav1.GetOptions{})
	if err != nil {
		return err
	}
	if ips := obj.(*corev1.Pod).Status.PodIPs; !slices.ContainsFunc(ips, func(ip corev1.PodIP) bool { return ip.IP == e.Addresses[0] }) {
		return errors.New("its pod has another address")
	}
	return nil
}
