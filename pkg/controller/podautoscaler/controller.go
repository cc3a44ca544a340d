// Package podautoscaler gives workloads as many pods as metrics ask for.
//
//	metrics.go  where values of metrics come from
//	propose.go  how many pods a metric asks for
//	limit.go    what an autoscaler's bounds, behavior and history make of that
package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/metricsapi"
)

// Config are the settings that all autoscalers have in common.
type Config struct {
	// SyncPeriod is how often metrics are asked for.
	SyncPeriod time.Duration
	// DownscaleStabilization is for how long a higher proposal holds a target from getting smaller.
	DownscaleStabilization time.Duration
	// CPUInitialization is for how long after its start a pod's CPU may mean nothing.
	CPUInitialization time.Duration
	// InitialReadiness is for how long after its start a pod that becomes ready or not is still starting.
	InitialReadiness time.Duration
	// Tolerance is how far from one the ratio of use to target may be with nothing to do.
	Tolerance float64
}

// DefaultConfig returns what holds unless flags say otherwise.
func DefaultConfig() Config {
	return Config{
		SyncPeriod: 15 * time.Second, DownscaleStabilization: 5 * time.Minute,
		CPUInitialization: 5 * time.Minute, InitialReadiness: 30 * time.Second, Tolerance: 0.1,
	}
}

// Controller reconciles HorizontalPodAutoscalers.
type Controller struct {
	counts  *measures
	client  client.Client
	live    client.Client
	mapper  meta.RESTMapper
	metrics metricsapi.Metrics
	events  record.EventRecorder
	config  Config
	clock   clock.PassiveClock

	mu     sync.Mutex
	states map[types.NamespacedName]*state
}

// state is what is kept of an autoscaler. Its history belongs to the worker that has it.
type state struct {
	history  history
	selector labels.Selector // guarded by the controller's mutex
}

// New returns the controller.
func New(c, live client.Client, mapper meta.RESTMapper, m metricsapi.Metrics, events record.EventRecorder, config Config, registry metrics.KubeRegistry) *Controller {
	return &Controller{
		counts: newMeasures(registry, c),
		client: c, live: live, mapper: mapper, metrics: m, events: events, config: config, clock: clock.RealClock{},
		states: map[types.NamespacedName]*state{},
	}
}

// Register adds the controller to mgr. Apart from changes of an autoscaler, time wakes it.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("horizontal-pod-autoscaler-controller").WithOptions(o).
		For(&autoscalingv2.HorizontalPodAutoscaler{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).Complete(c)
}

// Reconcile scales what one autoscaler is for.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := c.client.Get(ctx, req.NamespacedName, h); err != nil {
		c.forget(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	before := h.Status.DeepCopy()
	began := c.clock.Now()
	err := c.autoscale(ctx, h, c.state(req.NamespacedName))
	c.counts.reconciliation(&h.Status, err, c.clock.Since(began))
	if err != nil {
		// Metrics come and go; the next time is as good as any.
		klog.FromContext(ctx).Info("Autoscaling failed", "err", err)
		c.metrics.Refresh()
	}
	if !equality.Semantic.DeepEqual(before, &h.Status) {
		if err := c.client.Status().Update(ctx, h); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			c.events.Event(h, corev1.EventTypeWarning, "FailedUpdateStatus", err.Error())
			return reconcile.Result{}, fmt.Errorf("updating the status: %w", err)
		}
	}
	return reconcile.Result{RequeueAfter: c.config.SyncPeriod}, nil
}

func (c *Controller) state(key types.NamespacedName) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.states[key] == nil {
		c.states[key] = &state{selector: labels.Nothing()}
	}
	return c.states[key]
}

func (c *Controller) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.states, key)
}

// autoscale looks at the target, decides, acts, and leaves what it found in h's status.
func (c *Controller) autoscale(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, s *state) error {
	now := c.clock.Now()
	set := func(t autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, format string, args ...any) {
		setCondition(h, autoscalingv2.HorizontalPodAutoscalerCondition{Type: t, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}, now)
	}
	fail := func(reason, format string, err error) error {
		c.events.Event(h, corev1.EventTypeWarning, reason, err.Error())
		set(autoscalingv2.AbleToScale, corev1.ConditionFalse, reason, format, err)
		return err
	}
	const cannotGet = "the HPA controller was unable to get the target's current scale: %v"
	object, scale, err := c.scaleOf(ctx, h)
	if err != nil {
		return fail("FailedGetScale", cannotGet, err)
	}
	set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	current := scale.Spec.Replicas
	h.Status.CurrentReplicas, h.Status.ObservedGeneration, h.Status.CurrentMetrics = current, &h.Generation, nil
	if len(s.history.proposals) == 0 {
		s.history.proposals = []change{{current, now}}
	}

	l := limits{current: current, min: ptr.Deref(h.Spec.MinReplicas, 1), max: h.Spec.MaxReplicas, behavior: h.Spec.Behavior, window: c.config.DownscaleStabilization}
	desired, why := current, ""
	var partly error
	switch byUs := isScaledToZero(h); {
	case current == 0 && !(byUs && (l.min != 0 || hasOtherMetrics(h))):
		set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	case current > l.max:
		desired, why = l.max, "Current number of replicas above Spec.MaxReplicas"
	case current != 0 && current < l.min:
		desired, why = l.min, "Current number of replicas below Spec.MinReplicas"
	default:
		selector, err := c.selector(ctx, h, scale, s, set)
		if err != nil {
			c.events.Event(h, corev1.EventTypeWarning, "FailedComputeMetricsReplicas", err.Error())
			return err
		}
		p, err := c.propose(ctx, h, scale, selector, now)
		h.Status.CurrentMetrics = p.statuses
		if p.failed {
			if p.condition.Type != "" {
				setCondition(h, p.condition, now)
			}
			c.events.Event(h, corev1.EventTypeWarning, "FailedComputeMetricsReplicas", err.Error())
			return err
		}
		partly = err
		set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from %s", p.metric)
		switch {
		case p.replicas > current:
			why = p.metric + " above target"
		case p.replicas < current:
			why = "All metrics below target"
		}
		d := s.history.decide(p.replicas, l, now)
		set(autoscalingv2.AbleToScale, corev1.ConditionTrue, d.able.reason, "%s", d.able.message)
		limited := corev1.ConditionFalse
		if d.limited {
			limited = corev1.ConditionTrue
		}
		set(autoscalingv2.ScalingLimited, limited, d.limit.reason, "%s", d.limit.message)
		desired = d.replicas
		if current == 0 && desired < l.min {
			desired = l.min
			if why == "" {
				why = "Current number of replicas below Spec.MinReplicas"
			}
		}
	}
	if desired == current {
		h.Status.DesiredReplicas = current
		return partly
	}

	if err := c.rescale(ctx, object, desired); err != nil {
		c.events.Eventf(h, corev1.EventTypeWarning, "FailedRescale", "New size: %d; reason: %s; error: %v", desired, why, err)
		set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: %v", err)
		return err
	}
	set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to %d", desired)
	c.events.Eventf(h, corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", desired, why)
	s.history.scaled(current, desired, h.Spec.Behavior, now)
	if desired == 0 && l.min == 0 && hasOtherMetrics(h) {
		set(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
	} else {
		set(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
	}
	h.Status.DesiredReplicas, h.Status.LastScaleTime = desired, &metav1.Time{Time: now}
	return partly
}

// selector returns the selector of the target's pods, which no other autoscaler may have a pod in common with.
func (c *Controller) selector(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, scale *autoscalingv1.Scale, s *state,
	set func(autoscalingv2.HorizontalPodAutoscalerConditionType, corev1.ConditionStatus, string, string, ...any),
) (labels.Selector, error) {
	fail := func(event, reason, message, condition string) error {
		c.events.Event(h, corev1.EventTypeWarning, event, message)
		set(autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, "%s", condition)
		return specError{errors.New(message)}
	}
	if scale.Status.Selector == "" {
		return nil, fail("SelectorRequired", "InvalidSelector", "selector is required", "the HPA target's scale is missing a selector")
	}
	selector, err := labels.Parse(scale.Status.Selector)
	if err != nil {
		m := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		return nil, fail("InvalidSelector", "InvalidSelector", m, m)
	}
	pods, err := c.pods(ctx, h.Namespace, selector)
	if err != nil {
		return nil, err
	}
	if others := c.rivals(client.ObjectKeyFromObject(h), s, selector, pods); len(others) > 0 {
		m := fmt.Sprintf("pods by selector %v are controlled by more than one HPA (e.g. %v)", scale.Status.Selector, append([]types.NamespacedName{client.ObjectKeyFromObject(h)}, others...))
		return nil, fail("AmbiguousSelector", "AmbiguousSelector", m, m)
	}
	return selector, nil
}

// rivals notes the selector of an autoscaler and returns another whose selector has one of the pods, if there is any.
func (c *Controller) rivals(self types.NamespacedName, s *state, selector labels.Selector, pods []*corev1.Pod) []types.NamespacedName {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.selector = selector
	for key, other := range c.states {
		if key == self || key.Namespace != self.Namespace {
			continue
		}
		for _, p := range pods {
			if other.selector.Matches(labels.Set(p.Labels)) {
				return []types.NamespacedName{key}
			}
		}
	}
	return nil
}

func (c *Controller) pods(ctx context.Context, namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	var list corev1.PodList
	err := c.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return pods, nil
}

// scaleOf returns the target, of which only the name is known, and its scale.
func (c *Controller) scaleOf(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*unstructured.Unstructured, *autoscalingv1.Scale, error) {
	ref := h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, nil, fmt.Errorf("invalid API version in scale target reference: %w", err)
	}
	mapping, err := c.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if err != nil {
		return nil, nil, err
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(mapping.GroupVersionKind)
	object.SetNamespace(h.Namespace)
	object.SetName(ref.Name)
	raw, err := c.getScale(ctx, object)
	if err != nil {
		return nil, nil, err
	}
	scale := &autoscalingv1.Scale{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw.Object, scale); err != nil {
		return nil, nil, fmt.Errorf("reading the scale of %s %s: %w", ref.Kind, ref.Name, err)
	}
	return object, scale, nil
}

func (c *Controller) getScale(ctx context.Context, of *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	scale := &unstructured.Unstructured{}
	scale.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	return scale, c.live.SubResource("scale").Get(ctx, of, scale)
}

func (c *Controller) rescale(ctx context.Context, object *unstructured.Unstructured, replicas int32) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		scale, err := c.getScale(ctx, object)
		if err != nil {
			return err
		}
		if err := unstructured.SetNestedField(scale.Object, int64(replicas), "spec", "replicas"); err != nil {
			return err
		}
		return c.live.SubResource("scale").Update(ctx, object, client.WithSubResourceBody(scale))
	})
}

func isScaledToZero(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, c := range h.Status.Conditions {
		if c.Type == autoscalingv2.ScaledToZero {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// hasOtherMetrics reports whether some metric has a value even without pods.
func hasOtherMetrics(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, m := range h.Spec.Metrics {
		if m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType {
			return true
		}
	}
	return false
}

func setCondition(h *autoscalingv2.HorizontalPodAutoscaler, c autoscalingv2.HorizontalPodAutoscalerCondition, now time.Time) {
	for i := range h.Status.Conditions {
		if old := &h.Status.Conditions[i]; old.Type == c.Type {
			c.LastTransitionTime = old.LastTransitionTime
			if old.Status != c.Status {
				c.LastTransitionTime = metav1.NewTime(now)
			}
			*old = c
			return
		}
	}
	c.LastTransitionTime = metav1.NewTime(now)
	h.Status.Conditions = append(h.Status.Conditions, c)
}
