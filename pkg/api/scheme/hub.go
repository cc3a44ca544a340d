package scheme

import (
	"fmt"
	"reflect"
	"slices"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/leme-k8s/leme/pkg/api/autoscaling"
	"github.com/leme-k8s/leme/pkg/api/events"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

var metaPackage = reflect.TypeFor[metav1.ObjectMeta]().PkgPath()

// ownHub registers the version's own types as the group's hub, but for the
// options and events that every version shares.
func (v version) ownHub(s *runtime.Scheme) error { return ownHubBut(v.GroupVersion)(s) }

// ownHubBut is ownHub for a version some kinds of which have another one as their hub.
func ownHubBut(gv schema.GroupVersion, others ...string) register {
	return func(s *runtime.Scheme) error {
		for kind, t := range s.KnownTypes(gv) {
			if t.PkgPath() == metaPackage || slices.Contains(others, kind) {
				continue
			}
			if err := addHub(s, internal(gv.Group).WithKind(kind), reflect.New(t).Interface().(runtime.Object)); err != nil {
				return err
			}
		}
		return nil
	}
}

func addHub(s *runtime.Scheme, gvk schema.GroupVersionKind, obj runtime.Object) error {
	s.AddKnownTypeWithName(gvk, obj)
	return s.AddConversionFunc(obj, obj, copyObject)
}

// copyObject converts between a type and itself, for who has both objects: admission,
// which shows webhooks and policies a version of what will be stored. They share
// what they point to.
func copyObject(in, out any, _ conversion.Scope) error {
	kind := out.(runtime.Object).GetObjectKind()
	gvk := kind.GroupVersionKind()
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(in).Elem())
	kind.SetGroupVersionKind(gvk)
	return nil
}

// moves complete a copied object with the fields that have other places in a version than
// in the hub. Nil: there are none.
type moves struct {
	toHub, fromHub func(in, out runtime.Object)
}

// join makes a version share the hub of its group: kinds that have one already are
// converted to it, the others are their own hub. The fields of the former have the same
// names and meanings as the hub's, but for what the moves do.
func join(gv schema.GroupVersion, m moves) register {
	return func(s *runtime.Scheme) error {
		for kind, t := range s.KnownTypes(gv) {
			if t.PkgPath() == metaPackage {
				continue
			}
			gvk, obj := internal(gv.Group).WithKind(kind), reflect.New(t).Interface().(runtime.Object)
			var err error
			if s.Recognizes(gvk) {
				err = joinKind(s, gvk, obj, m)
			} else {
				err = addHub(s, gvk, obj)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
		return nil
	}
}

// joinKind converts between obj and its hub, whose defaults it gets.
func joinKind(s *runtime.Scheme, hub schema.GroupVersionKind, obj runtime.Object, m moves) error {
	one, err := s.New(hub)
	if err != nil {
		return err
	}
	toHub := func(in, out any, _ conversion.Scope) error {
		copyFields(in, out, m.toHub)
		s.Default(out.(runtime.Object))
		return nil
	}
	if err := s.AddConversionFunc(obj, one, toHub); err != nil {
		return err
	}
	fromHub := func(in, out any, _ conversion.Scope) error {
		copyFields(in, out, m.fromHub)
		return nil
	}
	if err := s.AddConversionFunc(one, obj, fromHub); err != nil {
		return err
	}
	return s.AddConversionFunc(obj, obj, copyObject)
}

// copyFields makes out of the fields that in has under the same names, and completes it.
func copyFields(in, out any, complete func(in, out runtime.Object)) {
	kind := out.(runtime.Object).GetObjectKind()
	gvk := kind.GroupVersionKind()
	reflect.ValueOf(out).Elem().SetZero()
	rules.CopyFields(in, out)
	kind.SetGroupVersionKind(gvk)
	if complete != nil {
		complete(in.(runtime.Object), out.(runtime.Object))
	}
}

// podCertificates have more fields in v1beta1 than in v1.
var podCertificates = []string{"PodCertificateRequest", "PodCertificateRequestList"}

// certificatesV1beta1Hub makes v1beta1 the hub of podCertificates.
func certificatesV1beta1Hub(s *runtime.Scheme) error {
	if err := join(certificatesv1beta1.SchemeGroupVersion, moves{})(s); err != nil {
		return err
	}
	return joinKinds(s, certificatesv1.SchemeGroupVersion, podCertificates...)
}

// joinKinds converts between some kinds of a version and their hubs, which have the same fields.
func joinKinds(s *runtime.Scheme, gv schema.GroupVersion, kinds ...string) error {
	for _, kind := range kinds {
		obj, err := s.New(gv.WithKind(kind))
		if err != nil {
			return err
		}
		if err := joinKind(s, internal(gv.Group).WithKind(kind), obj, moves{}); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

// schedulingV1beta1Hub leaves Workloads and PodGroups to v1alpha3, with the types of which their rules are published.
func schedulingV1beta1Hub(s *runtime.Scheme) error {
	return joinKinds(s, schedulingv1beta1.SchemeGroupVersion, "PriorityClass", "PriorityClassList")
}

// schedulingV1alpha3Hub makes v1alpha3 the hub of all its kinds.
func schedulingV1alpha3Hub(s *runtime.Scheme) error {
	if err := ownHubBut(schedulingv1alpha3.SchemeGroupVersion)(s); err != nil {
		return err
	}
	return joinKinds(s, schedulingv1beta1.SchemeGroupVersion, "Workload", "WorkloadList", "PodGroup", "PodGroupList")
}

// coreHub adds to core/v1 the options of connecting subresources, which arrive as
// query parameters.
func coreHub(s *runtime.Scheme) error {
	if err := (version{GroupVersion: corev1.SchemeGroupVersion}).ownHub(s); err != nil {
		return err
	}
	return addQueryConversions(s,
		&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{}, &corev1.PodPortForwardOptions{},
		&corev1.PodProxyOptions{}, &corev1.NodeProxyOptions{}, &corev1.ServiceProxyOptions{})
}

// eventsHub makes core/v1 Event the hub of events.k8s.io too: both groups show the
// same stored objects.
func eventsHub(s *runtime.Scheme) error {
	s.AddKnownTypes(internal(events.GroupName), &corev1.Event{}, &corev1.EventList{})
	return events.AddConversions(s)
}

// autoscalingV1Hub leaves autoscalers to autoscaling/v2. Scale is of this version alone.
func autoscalingV1Hub(s *runtime.Scheme) error {
	if err := addHub(s, internal(autoscaling.GroupName).WithKind("Scale"), &autoscalingv1.Scale{}); err != nil {
		return err
	}
	return autoscaling.AddConversions(s)
}
