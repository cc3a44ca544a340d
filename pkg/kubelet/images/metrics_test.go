package images

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

func TestMetrics(t *testing.T) {
	records, err := NewRecords(t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := providers(t, providersConfig, `"cacheKeyType": "Moon"`)
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{Images: &service{there: map[string]bool{"there:1": true}}, Recorder: record.NewFakeRecorder(100), Records: records, Providers: p, Secrets: secrets{}})
	registry := metrictest.New(m)
	asked := func(policy, present, pull string) string {
		return `kubelet_image_manager_ensure_image_requests_total{present_locally="` + present + `",pull_policy="` + policy + `",pull_required="` + pull + `"}`
	}
	for _, req := range []struct {
		image  string
		policy corev1.PullPolicy
		ok     bool
	}{
		{"there:1", corev1.PullIfNotPresent, true}, {"new:1", corev1.PullIfNotPresent, true}, {"there:1", corev1.PullAlways, true}, {"private.io/x:1", corev1.PullAlways, false},
		{"there:1", corev1.PullNever, true}, {"nowhere:1", corev1.PullNever, false}, {"a.example.com/x:1", corev1.PullAlways, true},
	} {
		if _, err := m.Ensure(t.Context(), request(req.image, req.policy)); (err == nil) != req.ok {
			t.Errorf("%s, %s: %v", req.image, req.policy, err)
		}
	}
	registry.Expect(t, map[string]float64{
		asked("ifnotpresent", "true", "false"): 1, asked("ifnotpresent", "false", "true"): 1, asked("always", "unknown", "true"): 3,
		asked("never", "true", "false"): 1, asked("never", "false", "unknown"): 1,
		`kubelet_image_pull_duration_seconds{image_size_in_bytes="0-10MB"}`: 3,
		"kubelet_imagemanager_ondisk_pullintents":                           0, "kubelet_imagemanager_ondisk_pulledrecords": 3,
		`kubelet_credential_provider_plugin_duration{plugin_name="plugin"}`: 1, `kubelet_credential_provider_plugin_errors_total{plugin_name="plugin"}`: 1,
		`kubelet_credential_provider_config_info{hash="` + p.hash + `"}`: 1,
	})
}

func TestSizeBucket(t *testing.T) {
	for size, want := range map[uint64]string{0: "N/A", 1: "0-10MB", 10 << 20: "0-10MB", 15 << 20: "10MB-100MB", 500 << 20: "100MB-500MB", 15 << 30: "10GB-20GB", 200 << 30: "GT100GB"} {
		if got := sizeBucket(size); got != want {
			t.Errorf("%d: %s, want %s", size, got, want)
		}
	}
}
