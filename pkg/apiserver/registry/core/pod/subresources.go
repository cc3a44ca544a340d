package pod

import (
	"context"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/kubelet"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Dependencies are what the subresources of pods need.
type Dependencies struct {
	// Kubelets leads to the kubelet of a node.
	Kubelets interface {
		Connection(ctx context.Context, node string) (*kubelet.Connection, error)
	}
	// Authorizer is asked again before a stream into a container is opened.
	Authorizer authorizer.UnconditionalAuthorizer
	// Budgets reads and updates the disruption budgets that evictions count against.
	Budgets policyclient.PodDisruptionBudgetsGetter
	// Proxy is the way to the addresses of pods.
	Proxy http.RoundTripper
	// MaxBytesPerSec throttles each stream; 0 does not.
	MaxBytesPerSec int64
}

// Subresources returns the subresources of pods, and bindings.
func Subresources(pods *Store, d Dependencies) generic.Storage {
	s := streams{pods: pods, d: d}
	statusStore := pods.Status(status)
	return generic.Storage{
		"bindings":                 bindings{podBinding{pods}},
		"pods/binding":             podBinding{pods},
		"pods/status":              statusStore,
		"pods/ephemeralcontainers": pods.Part(ephemeralContainers),
		"pods/resize":              pods.Part(resize),
		"pods/eviction":            eviction{pods: pods, status: statusStore, budgets: d.Budgets},
		"pods/log":                 logs{pods, d.Kubelets.Connection},
		"pods/exec":                exec{s},
		"pods/attach":              attach{s},
		"pods/portforward":         portForward{s},
		"pods/proxy":               newProxy(pods, d),
	}
}

// get returns a pod.
func get(ctx context.Context, pods *Store, name string) (*corev1.Pod, error) {
	obj, err := pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}
