package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// A Getter finds the objects that a token names. It answers NotFound only if the
// object truly does not exist: a token may be used before a cache has seen what
// it is bound to.
type Getter interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Node(ctx context.Context, name string) (*corev1.Node, error)
}

// NewGetter looks into the informers' caches first and asks the server for what
// is not there. Secrets, which few tokens need, it does not cache.
func NewGetter(client kubernetes.Interface, informers informers.SharedInformerFactory) Getter {
	core := informers.Core().V1()
	return &getter{
		client:          client,
		serviceAccounts: core.ServiceAccounts().Lister(),
		pods:            core.Pods().Lister(),
		nodes:           core.Nodes().Lister(),
	}
}

type getter struct {
	client          kubernetes.Interface
	serviceAccounts corelisters.ServiceAccountLister
	pods            corelisters.PodLister
	nodes           corelisters.NodeLister
}

func (g *getter) ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	if sa, err := g.serviceAccounts.ServiceAccounts(namespace).Get(name); !apierrors.IsNotFound(err) {
		return sa, err
	}
	return g.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (g *getter) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return g.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (g *getter) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	if pod, err := g.pods.Pods(namespace).Get(name); !apierrors.IsNotFound(err) {
		return pod, err
	}
	return g.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (g *getter) Node(ctx context.Context, name string) (*corev1.Node, error) {
	if node, err := g.nodes.Get(name); !apierrors.IsNotFound(err) {
		return node, err
	}
	return g.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}
