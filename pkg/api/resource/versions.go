package resource

import (
	"reflect"
	"regexp"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// FromV1beta1 completes out, an object of v1 that has what in, its v1beta1, has under the
// same names. In v1beta1, what a request asks for exactly stands in the request itself,
// and what there is to know of a device, in its basic.
func FromV1beta1(in, out runtime.Object) {
	switch in := in.(type) {
	case *resourcev1beta1.ResourceClaim:
		requestsFromV1beta1(in.Spec.Devices.Requests, out.(*resourcev1.ResourceClaim).Spec.Devices.Requests)
	case *resourcev1beta1.ResourceClaimTemplate:
		requestsFromV1beta1(in.Spec.Spec.Devices.Requests, out.(*resourcev1.ResourceClaimTemplate).Spec.Spec.Devices.Requests)
	case *resourcev1beta1.ResourceSlice:
		devicesFromV1beta1(in.Spec.Devices, out.(*resourcev1.ResourceSlice).Spec.Devices)
	case *resourcev1beta1.ResourceClaimList:
		eachItem(in.Items, out.(*resourcev1.ResourceClaimList).Items, FromV1beta1)
	case *resourcev1beta1.ResourceClaimTemplateList:
		eachItem(in.Items, out.(*resourcev1.ResourceClaimTemplateList).Items, FromV1beta1)
	case *resourcev1beta1.ResourceSliceList:
		eachItem(in.Items, out.(*resourcev1.ResourceSliceList).Items, FromV1beta1)
	}
}

// ToV1beta1 completes out, an object of v1beta1 that has what in, its v1, has under the
// same names.
func ToV1beta1(in, out runtime.Object) {
	switch in := in.(type) {
	case *resourcev1.ResourceClaim:
		requestsToV1beta1(in.Spec.Devices.Requests, out.(*resourcev1beta1.ResourceClaim).Spec.Devices.Requests)
	case *resourcev1.ResourceClaimTemplate:
		requestsToV1beta1(in.Spec.Spec.Devices.Requests, out.(*resourcev1beta1.ResourceClaimTemplate).Spec.Spec.Devices.Requests)
	case *resourcev1.ResourceSlice:
		devicesToV1beta1(in.Spec.Devices, out.(*resourcev1beta1.ResourceSlice).Spec.Devices)
	case *resourcev1.ResourceClaimList:
		eachItem(in.Items, out.(*resourcev1beta1.ResourceClaimList).Items, ToV1beta1)
	case *resourcev1.ResourceClaimTemplateList:
		eachItem(in.Items, out.(*resourcev1beta1.ResourceClaimTemplateList).Items, ToV1beta1)
	case *resourcev1.ResourceSliceList:
		eachItem(in.Items, out.(*resourcev1beta1.ResourceSliceList).Items, ToV1beta1)
	}
}

func eachItem[In, Out any, PIn object[In], POut object[Out]](in []In, out []Out, complete func(in, out runtime.Object)) {
	for i := range in {
		complete(PIn(&in[i]), POut(&out[i]))
	}
}

// object is a pointer to an API type.
type object[T any] interface {
	*T
	runtime.Object
}

func requestsFromV1beta1(in []resourcev1beta1.DeviceRequest, out []resourcev1.DeviceRequest) {
	for i := range in {
		r := in[i]
		r.Name, r.FirstAvailable = "", nil
		if reflect.ValueOf(r).IsZero() { // it has alternatives, or nothing
			continue
		}
		out[i].Exactly = &resourcev1.ExactDeviceRequest{}
		rules.CopyFields(&r, out[i].Exactly)
	}
}

func requestsToV1beta1(in []resourcev1.DeviceRequest, out []resourcev1beta1.DeviceRequest) {
	for i := range in {
		if in[i].Exactly != nil {
			rules.CopyFields(in[i].Exactly, &out[i])
		}
	}
}

func devicesFromV1beta1(in []resourcev1beta1.Device, out []resourcev1.Device) {
	for i := range in {
		if in[i].Basic != nil {
			rules.CopyFields(in[i].Basic, &out[i])
		}
	}
}

func devicesToV1beta1(in []resourcev1.Device, out []resourcev1beta1.Device) {
	for i := range in {
		out[i].Basic = &resourcev1beta1.BasicDevice{}
		rules.CopyFields(&in[i], out[i].Basic)
	}
}

var (
	exactPath = regexp.MustCompile(`(devices\.requests\[\d+\])\.exactly\.`)
	basicPath = regexp.MustCompile(`^(spec\.devices\[\d+\])\.(attributes|capacity|consumesCounters|nodeName|nodeSelector|allNodes|taints|` +
		`bindsToNode|bindingConditions|bindingFailureConditions|allowMultipleAllocations|nodeAllocatableResources)\b`)
)

// NameFields names the fields of errors as a version does. The original does so where
// rules are declared; what it checks by other means has the names of its internal types,
// which are those of v1.
func NameFields(version string, errs field.ErrorList) field.ErrorList {
	if version != resourcev1beta1.SchemeGroupVersion.Version {
		return errs
	}
	for _, e := range errs {
		if e.CoveredByDeclarative {
			e.Field = basicPath.ReplaceAllString(exactPath.ReplaceAllString(e.Field, "$1."), "$1.basic.$2")
		}
	}
	return errs
}
