package volumeexpand

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestWantsMore(t *testing.T) {
	for _, tc := range []struct {
		phase      corev1.PersistentVolumeClaimPhase
		want, have string
		more       bool
	}{
		{corev1.ClaimBound, "2G", "1G", true},
		{corev1.ClaimBound, "1G", "1G", false},
		{corev1.ClaimBound, "1G", "2G", false},
		{corev1.ClaimPending, "2G", "1G", false},
	} {
		c := &corev1.PersistentVolumeClaim{}
		c.Spec.Resources.Requests = corev1.ResourceList{"storage": resource.MustParse(tc.want)}
		c.Status.Phase, c.Status.Capacity = tc.phase, corev1.ResourceList{"storage": resource.MustParse(tc.have)}
		if got := wantsMore(c); got != tc.more {
			t.Errorf("%+v: %t", tc, got)
		}
	}
}

func TestMigrated(t *testing.T) {
	ebs := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}}}}
	if plugin, driver, err := migrated(ebs); plugin != "kubernetes.io/aws-ebs" || driver != "ebs.csi.aws.com" || err != nil {
		t.Errorf("%s, %s, %v", plugin, driver, err)
	}
	if _, driver, err := migrated(&corev1.PersistentVolume{}); driver != "" || err != nil {
		t.Errorf("%s, %v", driver, err)
	}
}
