package resource

import (
	"reflect"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

func TestVersions(t *testing.T) {
	node, all := "n1", true
	t.Run("requests", func(t *testing.T) {
		beta := &resourcev1beta1.ResourceClaim{}
		beta.Spec.Devices.Requests = []resourcev1beta1.DeviceRequest{
			{Name: "a", DeviceClassName: "c", Count: 2, Tolerations: []resourcev1beta1.DeviceToleration{{Key: "k"}}},
			{Name: "b", FirstAvailable: []resourcev1beta1.DeviceSubRequest{{Name: "x", DeviceClassName: "c"}}},
			{Name: "c"},
		}
		want := &resourcev1.ResourceClaim{}
		want.Spec.Devices.Requests = []resourcev1.DeviceRequest{
			{Name: "a", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c", Count: 2, Tolerations: []resourcev1.DeviceToleration{{Key: "k"}}}},
			{Name: "b", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "x", DeviceClassName: "c"}}},
			{Name: "c"},
		}
		v1, back := &resourcev1.ResourceClaim{}, &resourcev1beta1.ResourceClaim{}
		rules.CopyFields(beta, v1)
		FromV1beta1(beta, v1)
		rules.CopyFields(v1, back)
		ToV1beta1(v1, back)
		if !reflect.DeepEqual(v1, want) || !reflect.DeepEqual(back, beta) {
			t.Errorf("got %+v and back %+v", v1, back)
		}
	})
	t.Run("devices", func(t *testing.T) {
		beta := &resourcev1beta1.ResourceSliceList{Items: []resourcev1beta1.ResourceSlice{{Spec: resourcev1beta1.ResourceSliceSpec{NodeName: node}}}}
		beta.Items[0].Spec.Devices = []resourcev1beta1.Device{
			{Name: "a", Basic: &resourcev1beta1.BasicDevice{AllNodes: &all, Attributes: map[resourcev1beta1.QualifiedName]resourcev1beta1.DeviceAttribute{"x": {BoolValue: &all}}}},
			{Name: "b", Basic: &resourcev1beta1.BasicDevice{}},
		}
		want := &resourcev1.ResourceSliceList{Items: []resourcev1.ResourceSlice{{Spec: resourcev1.ResourceSliceSpec{NodeName: &node}}}}
		want.Items[0].Spec.Devices = []resourcev1.Device{
			{Name: "a", AllNodes: &all, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"x": {BoolValue: &all}}},
			{Name: "b"},
		}
		v1, back := &resourcev1.ResourceSliceList{}, &resourcev1beta1.ResourceSliceList{}
		rules.CopyFields(beta, v1)
		FromV1beta1(beta, v1)
		rules.CopyFields(v1, back)
		ToV1beta1(v1, back)
		if !reflect.DeepEqual(v1, want) || !reflect.DeepEqual(back, beta) {
			t.Errorf("got %+v and back %+v", v1, back)
		}
	})
	for _, tc := range []struct {
		version, path, want string
		declared            bool
	}{
		{"v1beta1", "spec.devices.requests[1].exactly.count", "spec.devices.requests[1].count", true},
		{"v1beta1", "spec.spec.devices.requests[0].exactly.tolerations[0].key", "spec.spec.devices.requests[0].tolerations[0].key", true},
		{"v1beta1", "spec.devices[0].taints[0].effect", "spec.devices[0].basic.taints[0].effect", true},
		{"v1beta1", "spec.devices[0].name", "spec.devices[0].name", true},
		{"v1beta1", "spec.devices[0].taints[0].key", "spec.devices[0].taints[0].key", false},
		{"v1", "spec.devices[0].taints[0].effect", "spec.devices[0].taints[0].effect", true},
	} {
		if got := NameFields(tc.version, field.ErrorList{{Field: tc.path, CoveredByDeclarative: tc.declared}})[0].Field; got != tc.want {
			t.Errorf("%s in %s is %s, want %s", tc.path, tc.version, got, tc.want)
		}
	}
}
