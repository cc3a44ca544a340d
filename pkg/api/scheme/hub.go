package scheme

import (
	"encoding/json"
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/leme-k8s/leme/pkg/api/autoscaling"
	"github.com/leme-k8s/leme/pkg/api/events"
)

var metaPackage = reflect.TypeFor[metav1.ObjectMeta]().PkgPath()

// ownHub registers the version's own types as the group's hub, but for the
// options and events that every version shares.
func (v version) ownHub(s *runtime.Scheme) error {
	for kind, t := range s.KnownTypes(v.GroupVersion) {
		if t.PkgPath() == metaPackage {
			continue
		}
		if err := addHub(s, internal(v.Group).WithKind(kind), reflect.New(t).Interface().(runtime.Object)); err != nil {
			return err
		}
	}
	return nil
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

// join makes a version share the hub of its group: kinds that have one already are
// converted to it, the others are their own hub. The fields of the former have the same
// names and meanings as the hub's.
func join(gv schema.GroupVersion) register {
	return func(s *runtime.Scheme) error {
		for kind, t := range s.KnownTypes(gv) {
			if t.PkgPath() == metaPackage {
				continue
			}
			gvk, obj := internal(gv.Group).WithKind(kind), reflect.New(t).Interface().(runtime.Object)
			var err error
			if s.Recognizes(gvk) {
				err = joinKind(s, gv.WithKind(kind), gvk, obj)
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

// joinKind converts between obj, whose kind is gvk, and its hub. What has no defaults of
// its own gets the hub's, and is selected by the hub's fields.
func joinKind(s *runtime.Scheme, gvk, hub schema.GroupVersionKind, obj runtime.Object) error {
	one, err := s.New(hub)
	if err != nil {
		return err
	}
	toHub := func(in, out any, scope conversion.Scope) error {
		if err := copyFields(in, out, scope); err != nil {
			return err
		}
		s.Default(out.(runtime.Object))
		return nil
	}
	if err := s.AddConversionFunc(obj, one, toHub); err != nil {
		return err
	}
	if err := s.AddConversionFunc(one, obj, copyFields); err != nil {
		return err
	}
	if err := s.AddConversionFunc(obj, obj, copyObject); err != nil {
		return err
	}
	return s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
		kinds, _, err := s.ObjectKinds(one)
		if err != nil {
			return "", "", err
		}
		for _, k := range kinds {
			if k.Version != runtime.APIVersionInternal {
				return s.ConvertFieldLabel(k, label, value)
			}
		}
		return s.ConvertFieldLabel(hub, label, value)
	})
}

// copyFields copies what both types have, by the names that fields have in JSON. It is
// for kinds of which there are few objects.
func copyFields(in, out any, _ conversion.Scope) error {
	kind := out.(runtime.Object).GetObjectKind()
	gvk := kind.GroupVersionKind()
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	reflect.ValueOf(out).Elem().SetZero()
	if err := json.Unmarshal(data, out); err != nil {
		return err
	}
	kind.SetGroupVersionKind(gvk)
	return nil
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
