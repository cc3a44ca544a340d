// Package priority writes into each new pod, and group of pods, the number that its PriorityClass
// stands for, and keeps PriorityClasses from having two defaults.
package priority

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "Priority"

// Plugin resolves PriorityClasses.
type Plugin struct {
	listing.Handler[schedulinglisters.PriorityClassLister]
	// groupsPreempt says that groups of pods have policies of preemption.
	groupsPreempt bool
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[schedulinglisters.PriorityClassLister] {
		return f.Scheduling().V1().PriorityClasses()
	}, admission.Create, admission.Update)}
}

// SetFeatures says which features are on.
func (p *Plugin) SetFeatures(features map[string]bool) {
	p.groupsPreempt = features[scheduling.PreemptionPolicyFeature]
}

// Admit sets the priority, class and preemption policy of a pod or a group of pods.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	switch a.GetResource().GroupResource() {
	case corev1.Resource("pods"):
		return p.admitPod(a)
	case schedulingv1.Resource("podgroups"), schedulingv1.Resource("compositepodgroups"):
		if a.GetOperation() == admission.Create {
			return p.admitGroup(a)
		}
	}
	return nil
}

// admitGroup sets the priority of a PodGroup or CompositePodGroup.
func (p *Plugin) admitGroup(a admission.Attributes) error {
	if err := p.Ready(a); err != nil {
		return err
	}
	var (
		kind   string
		name   *string
		value  **int32
		policy **schedulingv1alpha3.PreemptionPolicy
	)
	switch g := a.GetObject().(type) {
	case *schedulingv1alpha3.PodGroup:
		kind, name, value, policy = "pod group", &g.Spec.PriorityClassName, &g.Spec.Priority, &g.Spec.PreemptionPolicy
	case *schedulingv1alpha3.CompositePodGroup:
		kind, name, value, policy = "composite pod group", &g.Spec.PriorityClassName, &g.Spec.Priority, &g.Spec.PreemptionPolicy
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("expected a group of pods but got %T", g))
	}
	class, err := p.establish(a, *name)
	if err != nil {
		return err
	}
	if given := *value; given != nil && *given != class.Value {
		return admission.NewForbidden(a, fmt.Errorf("priority set in the %s (%d) must match the priority computed (%d) based on the priority class set in the spec", kind, *given, class.Value))
	}
	*name, *value = class.Name, &class.Value
	if !p.groupsPreempt {
		return nil
	}
	preemption := schedulingv1alpha3.PreemptionPolicy(preemptionOf(&class))
	if given := *policy; given != nil && *given != preemption {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in %s spec; priority admission controller computed %s from the given PriorityClass name", *given, kind, preemption))
	}
	*policy = &preemption
	return nil
}

func (p *Plugin) admitPod(a admission.Attributes) error {
	if err := p.Ready(a); err != nil {
		return err
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.Pod but got %T", a.GetObject()))
	}
	if a.GetOperation() == admission.Update {
		return keep(pod, a)
	}

	class, err := p.establish(a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	preemption := preemptionOf(&class)
	if given := pod.Spec.Priority; given != nil && *given != class.Value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *given, class.Value))
	}
	if given := pod.Spec.PreemptionPolicy; given != nil && *given != preemption {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *given, preemption))
	}
	pod.Spec.PriorityClassName, pod.Spec.Priority, pod.Spec.PreemptionPolicy = class.Name, &class.Value, &preemption
	return nil
}

// establish returns the class that an object names, or that it has without a name.
func (p *Plugin) establish(a admission.Attributes, name string) (schedulingv1.PriorityClass, error) {
	class, err := p.class(name)
	if apierrors.IsNotFound(err) {
		return class, admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
	} else if err != nil {
		return class, fmt.Errorf("failed to get PriorityClass %q: %w", name, err)
	}
	return class, nil
}

func preemptionOf(class *schedulingv1.PriorityClass) corev1.PreemptionPolicy {
	return ptr.Deref(class.PreemptionPolicy, corev1.PreemptLowerPriority)
}

// keep restores what a client that does not know these fields has left out.
func keep(pod *corev1.Pod, a admission.Attributes) error {
	old, ok := a.GetOldObject().(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.Pod but got %T", a.GetOldObject()))
	}
	if pod.Spec.Priority == nil {
		pod.Spec.Priority = old.Spec.Priority
	}
	if pod.Spec.PreemptionPolicy == nil {
		pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
	}
	return nil
}

// class returns a copy of the named class. Without a name it is the default, or
// a class of priority 0 without a name.
func (p *Plugin) class(name string) (schedulingv1.PriorityClass, error) {
	if name != "" {
		class, err := p.Lister.Get(name)
		if err != nil {
			return schedulingv1.PriorityClass{}, err
		}
		return *class, nil
	}
	classes, err := p.Lister.List(labels.Everything())
	if err != nil {
		return schedulingv1.PriorityClass{}, err
	}
	var best schedulingv1.PriorityClass
	for _, class := range classes {
		// There may be two for a moment, if they were created at once: then the lower one.
		if class.GlobalDefault && (best.Name == "" || class.Value < best.Value) {
			best = *class
		}
	}
	return best, nil
}

// Validate refuses a second default PriorityClass.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != schedulingv1.Resource("priorityclasses") || a.GetSubresource() != "" {
		return nil
	}
	class, ok := a.GetObject().(*schedulingv1.PriorityClass)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.PriorityClass but got %T", a.GetObject()))
	}
	if !class.GlobalDefault {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	current, err := p.class("")
	if err != nil {
		return fmt.Errorf("failed to get default priority class: %w", err)
	}
	if current.Name != "" && current.Name != class.Name {
		return admission.NewForbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", current.Name))
	}
	return nil
}
