package resource

import (
	"cmp"
	"fmt"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

var (
	metaPath   = field.NewPath("metadata")
	specPath   = field.NewPath("spec")
	statusPath = field.NewPath("status")
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(c *resourcev1.ResourceClaim) {
		setRequests(c.Spec.Devices.Requests)
		if c.Status.Allocation != nil {
			for i := range c.Status.Allocation.Devices.Results {
				setTolerations(c.Status.Allocation.Devices.Results[i].Tolerations)
			}
		}
	})
	rules.Default(s, func(t *resourcev1.ResourceClaimTemplate) { setRequests(t.Spec.Spec.Devices.Requests) })
	rules.Default(s, setPoolStatusRequest)
	rules.Default(s, func(r *resourcev1.DeviceTaintRule) { setTaint(&r.Spec.Taint) })
	rules.Default(s, func(r *resourcev1.ResourceSlice) {
		for i := range r.Spec.Devices {
			for j := range r.Spec.Devices[i].Taints {
				setTaint(&r.Spec.Devices[i].Taints[j])
			}
		}
	})
	return nil
}

// AddFieldLabels registers the field selectors that kinds of the group take besides
// those that every kind takes.
func AddFieldLabels(s *runtime.Scheme) error {
	for _, gv := range []schema.GroupVersion{resourcev1.SchemeGroupVersion, resourcev1beta2.SchemeGroupVersion, resourcev1beta1.SchemeGroupVersion} {
		gvk := gv.WithKind("ResourceSlice")
		err := s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
			switch label {
			case "metadata.name", resourcev1.ResourceSliceSelectorNodeName, resourcev1.ResourceSliceSelectorDriver, resourcev1.ResourceSliceSelectorPoolName:
				return label, value, nil
			}
			return "", "", fmt.Errorf("field label not supported for %s: %s", gvk, label)
		})
		if err != nil {
			return fmt.Errorf("field labels of %s: %w", gvk.Kind, err)
		}
	}
	return nil
}

func setRequests(requests []resourcev1.DeviceRequest) {
	for i := range requests {
		if r := requests[i].Exactly; r != nil {
			setAllocationMode(&r.AllocationMode, &r.Count)
			setTolerations(r.Tolerations)
		}
		for j := range requests[i].FirstAvailable {
			r := &requests[i].FirstAvailable[j]
			setAllocationMode(&r.AllocationMode, &r.Count)
			setTolerations(r.Tolerations)
		}
	}
}

func setAllocationMode(mode *resourcev1.DeviceAllocationMode, count *int64) {
	*mode = cmp.Or(*mode, resourcev1.DeviceAllocationModeExactCount)
	if *mode == resourcev1.DeviceAllocationModeExactCount {
		*count = cmp.Or(*count, 1)
	}
}

func setTolerations(tolerations []resourcev1.DeviceToleration) {
	for i := range tolerations {
		tolerations[i].Operator = cmp.Or(tolerations[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

func setTaint(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}
