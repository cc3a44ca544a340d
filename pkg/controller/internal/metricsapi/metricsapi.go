// Package metricsapi reads values of metrics from the APIs that are aggregated for them: resource, custom and external
// metrics.
package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

// defaultWindow is over how long a metric is averaged that does not say so.
const defaultWindow = time.Minute

// A Reading is one value of a metric, in thousandths.
type Reading struct {
	Value int64
	At    time.Time
	// Window is over how long it is an average.
	Window time.Duration
}

// Readings are those of pods, by name.
type Readings map[string]Reading

// Metrics is where the values of metrics come from.
type Metrics interface {
	// Resource returns what pods use of a resource; what one of their containers uses, if that is named.
	Resource(ctx context.Context, namespace string, pods labels.Selector, resource corev1.ResourceName, container string) (Readings, error)
	// Pods returns a metric of each pod.
	Pods(namespace string, pods labels.Selector, m autoscalingv2.MetricIdentifier) (Readings, error)
	// Object returns a metric of one object.
	Object(namespace string, o autoscalingv2.CrossVersionObjectReference, m autoscalingv2.MetricIdentifier) (int64, error)
	// External returns the values of a metric of something outside of the cluster.
	External(namespace string, m autoscalingv2.MetricIdentifier) ([]int64, error)
	// Refresh forgets which versions of the metrics APIs are served.
	Refresh()
}

// New returns the metrics of the aggregated APIs for resource, custom and external metrics.
func New(cfg *rest.Config, mapper meta.RESTMapper, disco discovery.DiscoveryInterface) (Metrics, error) {
	resource, err := resourceclient.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("building the client of resource metrics: %w", err)
	}
	external, err := external_metrics.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("building the client of external metrics: %w", err)
	}
	available := custom_metrics.NewAvailableAPIsGetter(disco)
	return &served{resource, custom_metrics.NewForConfig(cfg, mapper, available), external, available}, nil
}

type served struct {
	resource  resourceclient.PodMetricsesGetter
	custom    custom_metrics.CustomMetricsClient
	external  external_metrics.ExternalMetricsClient
	available custom_metrics.AvailableAPIsGetter
}

// Refresh implements Metrics.
func (s *served) Refresh() { s.available.Invalidate() }

// Resource implements Metrics.
func (s *served) Resource(ctx context.Context, namespace string, pods labels.Selector, resource corev1.ResourceName, container string) (Readings, error) {
	list, err := s.resource.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: pods.String()})
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	all := Readings{}
	for _, m := range list.Items {
		if value, ok := usage(m.Containers, resource, container); ok {
			all[m.Name] = Reading{value, m.Timestamp.Time, m.Window.Duration}
		}
	}
	return all, nil
}

// usage adds up what the containers of a pod use, or says what the named one uses. Without
// the value of one, there is none of the pod.
func usage(containers []metricsv1beta1.ContainerMetrics, resource corev1.ResourceName, container string) (int64, bool) {
	sum, found := int64(0), false
	for _, c := range containers {
		if container != "" && c.Name != container {
			continue
		}
		q, ok := c.Usage[resource]
		if !ok {
			return 0, false
		}
		sum, found = sum+q.MilliValue(), true
	}
	return sum, found
}

// Pods implements Metrics.
func (s *served) Pods(namespace string, pods labels.Selector, m autoscalingv2.MetricIdentifier) (Readings, error) {
	selector, err := metav1.LabelSelectorAsSelector(m.Selector)
	if err != nil {
		return nil, err
	}
	list, err := s.custom.NamespacedMetrics(namespace).GetForObjects(schema.GroupKind{Kind: "Pod"}, pods, m.Name, selector)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	all := Readings{}
	for _, v := range list.Items {
		window := defaultWindow
		if v.WindowSeconds != nil {
			window = time.Duration(*v.WindowSeconds) * time.Second
		}
		all[v.DescribedObject.Name] = Reading{v.Value.MilliValue(), v.Timestamp.Time, window}
	}
	return all, nil
}

// Object implements Metrics.
func (s *served) Object(namespace string, o autoscalingv2.CrossVersionObjectReference, m autoscalingv2.MetricIdentifier) (int64, error) {
	selector, err := metav1.LabelSelectorAsSelector(m.Selector)
	if err != nil {
		return 0, err
	}
	from := s.custom.NamespacedMetrics(namespace)
	kind, name := schema.FromAPIVersionAndKind(o.APIVersion, o.Kind).GroupKind(), o.Name
	if kind == corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind() {
		from, name = s.custom.RootScopedMetrics(), namespace
	}
	v, err := from.GetForObject(kind, name, m.Name, selector)
	if err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return v.Value.MilliValue(), nil
}

// External implements Metrics.
func (s *served) External(namespace string, m autoscalingv2.MetricIdentifier) ([]int64, error) {
	selector, err := metav1.LabelSelectorAsSelector(m.Selector)
	if err != nil {
		return nil, err
	}
	list, err := s.external.NamespacedMetrics(namespace).List(m.Name, selector)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from external metrics API")
	}
	values := make([]int64, len(list.Items))
	for i := range list.Items {
		values[i] = list.Items[i].Value.MilliValue()
	}
	return values, nil
}
