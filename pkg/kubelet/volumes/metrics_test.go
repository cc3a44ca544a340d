package volumes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

func TestMetrics(t *testing.T) {
	m := manager(t, &world{})
	registry := metrictest.New(m)
	pod := podWith(corev1.Volume{Name: "dir", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: t.TempDir()}}},
		corev1.Volume{Name: "map", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}}})
	for range 2 {
		if _, err := m.Mount(t.Context(), pod); err == nil {
			t.Fatal("mounted what is not there")
		}
	}
	operation := func(plugin, operation, status string) string {
		return `storage_operation_duration_seconds{migrated="false",operation_name="` + operation + `",status="` + status + `",volume_plugin="kubernetes.io/` + plugin + `"}`
	}
	volumes := func(plugin, state string) string {
		return `volume_manager_total_volumes{plugin_name="kubernetes.io/` + plugin + `",state="` + state + `_state_of_world"}`
	}
	registry.Expect(t, map[string]float64{
		operation("host-path", "volume_mount", "success"): 2, operation("configmap", "volume_mount", "fail-unknown"): 2,
		`volume_operation_total_seconds{operation_name="overall_volume_mount",plugin_name="kubernetes.io/host-path"}`: 1,
		volumes("host-path", "desired"): 1, volumes("host-path", "actual"): 1, volumes("configmap", "desired"): 1, volumes("configmap", "actual"): 0,
	})
	if err := m.Unmount(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	registry.Expect(t, map[string]float64{operation("host-path", "volume_unmount", "success"): 1})
	for key := range registry.Read(t) {
		if key == volumes("host-path", "desired") || key == operation("configmap", "volume_unmount", "success") {
			t.Errorf("%s after the pod's end", key)
		}
	}
}
