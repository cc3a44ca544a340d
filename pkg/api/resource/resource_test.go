package resource

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestResourceClaim(t *testing.T) {
	apitest.Run(t, "testdata/resourceclaim.txtar", apitest.Kind[resourcev1.ResourceClaim, *resourcev1.ResourceClaim]{
		Path:        "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
		AddDefaults: AddDefaults,
		Prepare: func(c *resourcev1.ResourceClaim) {
			DropDisabledClaimFields(c, nil)
			DropDisabledClaimStatusFields(&c.Status, &resourcev1.ResourceClaimStatus{})
		},
		Create: ValidateResourceClaim,
		Update: ValidateResourceClaimUpdate,
		Status: ValidateResourceClaimStatusUpdate,
	})
}

func TestResourceClaimTemplate(t *testing.T) {
	apitest.Run(t, "testdata/resourceclaimtemplate.txtar", apitest.Kind[resourcev1.ResourceClaimTemplate, *resourcev1.ResourceClaimTemplate]{
		Path:        "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
		AddDefaults: AddDefaults,
		Create:      ValidateResourceClaimTemplate,
		Update:      ValidateResourceClaimTemplateUpdate,
	})
}

func TestDeviceClass(t *testing.T) {
	apitest.Run(t, "testdata/deviceclass.txtar", apitest.Kind[resourcev1.DeviceClass, *resourcev1.DeviceClass]{
		Path:        "/apis/resource.k8s.io/v1/deviceclasses",
		AddDefaults: AddDefaults,
		Create:      ValidateDeviceClass,
		Update:      ValidateDeviceClassUpdate,
	})
}

func TestDeviceTaintRule(t *testing.T) {
	apitest.Run(t, "testdata/devicetaintrule.txtar", apitest.Kind[resourcev1.DeviceTaintRule, *resourcev1.DeviceTaintRule]{
		Path:        "/apis/resource.k8s.io/v1/devicetaintrules",
		AddDefaults: AddDefaults,
		Create:      ValidateDeviceTaintRule,
		Update:      ValidateDeviceTaintRuleUpdate,
		Status:      ValidateDeviceTaintRuleStatusUpdate,
	})
}

func TestResourceSlice(t *testing.T) {
	apitest.Run(t, "testdata/resourceslice.txtar", apitest.Kind[resourcev1.ResourceSlice, *resourcev1.ResourceSlice]{
		Path:        "/apis/resource.k8s.io/v1/resourceslices",
		AddDefaults: AddDefaults,
		Prepare:     func(s *resourcev1.ResourceSlice) { DropDisabledSliceFields(&s.Spec, nil) },
		Create:      ValidateResourceSlice,
		Update:      ValidateResourceSliceUpdate,
	})
}

func TestResourcePoolStatusRequest(t *testing.T) {
	apitest.Run(t, "testdata/resourcepoolstatusrequest.txtar", apitest.Kind[resourcev1alpha3.ResourcePoolStatusRequest, *resourcev1alpha3.ResourcePoolStatusRequest]{
		Path:        "/apis/resource.k8s.io/v1alpha3/resourcepoolstatusrequests",
		AddDefaults: AddDefaults,
		Prepare: func(r *resourcev1alpha3.ResourcePoolStatusRequest) {
			DropDisabledPoolRequestFields(r, nil)
		},
		Create: ValidateResourcePoolStatusRequest,
		Update: ValidateResourcePoolStatusRequestUpdate,
		Status: ValidateResourcePoolStatusRequestStatusUpdate,
	})
}
