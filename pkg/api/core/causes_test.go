package core

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TestCauses wants what is wrong to be said of the fields of which the original says it, and of no other.
func TestCauses(t *testing.T) {
	claim := func(size string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", ResourceVersion: "1"}}
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		c.Spec.VolumeMode = new(corev1.PersistentVolumeFilesystem)
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
		if change != nil {
			change(c)
		}
		return c
	}
	bound := func(c *corev1.PersistentVolumeClaim) {
		c.Status.Phase, c.Status.Capacity = corev1.ClaimBound, corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	}
	from := func(group string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: &group, Kind: "K", Name: "n"}
		}
	}
	class := func(name, current *string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			bound(c)
			c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName = name, current
		}
	}
	allocated := func(name corev1.ResourceName) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Status.AllocatedResources = corev1.ResourceList{name: resource.MustParse("1")}
		}
	}
	volume := func(v corev1.VolumeSource) field.ErrorList {
		var r report
		r.volumes([]corev1.Volume{{Name: "v", VolumeSource: v}}, "", field.NewPath("volumes"))
		return r.errs
	}
	const size, apiGroup, vac = "spec.resources.requests.storage", "spec.dataSourceRef.apiGroup", "spec.volumeAttributesClassName"
	for name, tc := range map[string]struct {
		errs field.ErrorList
		want []string
	}{
		"more storage":              {ValidatePersistentVolumeClaimUpdate(claim("3Gi", bound), claim("2Gi", bound)), nil},
		"less, and more than it is": {ValidatePersistentVolumeClaimUpdate(claim("3Gi", bound), claim("4Gi", bound)), nil},
		"as much as it is":          {ValidatePersistentVolumeClaimUpdate(claim("2Gi", bound), claim("4Gi", bound)), []string{size}},
		"less for one without any":  {ValidatePersistentVolumeClaimUpdate(claim("1Gi", nil), claim("4Gi", nil)), []string{"spec"}},
		"another resource": {ValidatePersistentVolumeClaimUpdate(claim("2Gi", func(c *corev1.PersistentVolumeClaim) {
			bound(c)
			c.Spec.Resources.Requests["x"] = resource.MustParse("1")
		}), claim("2Gi", bound)), []string{"spec"}},
		"no class any more":       {ValidatePersistentVolumeClaimUpdate(claim("2Gi", class(nil, nil)), claim("2Gi", class(new("a"), nil))), nil},
		"no class that it has":    {ValidatePersistentVolumeClaimUpdate(claim("2Gi", class(nil, new("a"))), claim("2Gi", class(new("a"), new("a")))), []string{vac}},
		"a group that is none":    {ValidatePersistentVolumeClaim(claim("2Gi", from("A"))), []string{apiGroup}},
		"a group in place of one": {ValidatePersistentVolumeClaimUpdate(claim("2Gi", from("A")), claim("2Gi", from("a"))), []string{"spec"}},
		"storage allocated":       {ValidatePersistentVolumeClaimStatusUpdate(claim("2Gi", allocated("storage")), claim("2Gi", nil)), nil},
		"memory allocated":        {ValidatePersistentVolumeClaimStatusUpdate(claim("2Gi", allocated("memory")), claim("2Gi", nil)), []string{"status.allocatedResources"}},
		"nothing allocated":       {ValidatePersistentVolumeClaimStatusUpdate(claim("2Gi", allocated("")), claim("2Gi", nil)), []string{"status.allocatedResources", "status.allocatedResources"}},

		"a claim, and a map":  {volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}, ConfigMap: &corev1.ConfigMapVolumeSource{}}), []string{"volumes[0].persistentVolumeClaim.claimName", "volumes[0].configMap"}},
		"a map, and a driver": {volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}, CSI: &corev1.CSIVolumeSource{}}), []string{"volumes[0].configMap.name", "volumes[0].csi"}},

		"responders": {ValidateEvictionResponders(&corev1.PodSpec{EvictionResponders: []corev1.EvictionResponder{{Name: "a.b/c", Priority: new(int32(2000))}, {Name: "a.b/c", Priority: new(int32(1))}}}, nil), []string{"evictionResponders[1]", "evictionResponders[1].priority"}},
	} {
		var got []string
		for _, err := range tc.errs {
			got = append(got, err.Field)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, tc.errs, tc.want)
		}
	}
}

func TestDropDisabledPodStatusFields(t *testing.T) {
	status := func() *corev1.PodStatus {
		return &corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{VolumeMounts: []corev1.VolumeMountStatus{{VolumeStatus: &corev1.VolumeStatus{}}}}}}
	}
	for name, tc := range map[string]struct {
		old  *corev1.PodStatus
		kept bool
	}{"not in use": {&corev1.PodStatus{}, false}, "in use": {status(), true}} {
		s := status()
		DropDisabledPodStatusFields(s, tc.old)
		if kept := s.InitContainerStatuses[0].VolumeMounts[0].VolumeStatus != nil; kept != tc.kept {
			t.Errorf("%s: kept %v, want %v", name, kept, tc.kept)
		}
	}
}
