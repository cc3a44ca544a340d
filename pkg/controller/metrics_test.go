package controller_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
)

// moved are the metrics of single controllers, under the names that dashboards ask for, that what is done here and
// in the tests before moves, each with labels that it then has.
var moved = map[string]map[string]string{
	"workqueue_adds_total": {"name": "resourcequota_primary"},

	"job_controller_job_syncs_total":                                           {"completion_mode": "NonIndexed", "result": "success", "action": "pods_created"},
	"job_controller_job_sync_duration_seconds":                                 {"completion_mode": "NonIndexed", "result": "success", "action": "pods_created"},
	"job_controller_jobs_finished_total":                                       {"completion_mode": "NonIndexed", "result": "succeeded", "reason": "CompletionsReached"},
	"job_controller_job_pods_finished_total":                                   {"completion_mode": "NonIndexed", "result": "succeeded"},
	"job_controller_job_finished_indexes_total":                                {"status": "succeeded", "backoffLimit": "global"},
	"job_controller_job_pods_creation_total":                                   {"reason": "new", "status": "succeeded"},
	"job_controller_pod_failures_handled_by_failure_policy_total":              {"action": "FailJob"},
	"job_controller_terminated_pods_tracking_finalizer_total":                  {"event": "delete"},
	"job_controller_jobs_by_external_controller_total":                         {"controller_name": "example.com/other"},
	"cronjob_controller_job_creation_skew_duration_seconds":                    {},
	"replicaset_controller_sorting_deletion_age_ratio":                         {},
	"ttl_after_finished_controller_job_deletion_duration_seconds":              {},
	"node_collector_zone_size":                                                 {"zone": ""},
	"node_collector_zone_health":                                               {"zone": ""},
	"node_collector_evictions_total":                                           {"zone": ""},
	"node_collector_update_node_health_duration_seconds":                       {},
	"taint_eviction_controller_pod_deletions_total":                            {},
	"taint_eviction_controller_pod_deletion_duration_seconds":                  {},
	"ephemeral_volume_controller_create_total":                                 {},
	"pod_gc_collector_force_delete_pods_total":                                 {"reason": "unscheduled"},
	"horizontal_pod_autoscaler_controller_reconciliations_total":               {"action": "none", "error": "internal"},
	"horizontal_pod_autoscaler_controller_reconciliation_duration_seconds":     {"action": "none", "error": "internal"},
	"horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers":      {},
	"horizontal_pod_autoscaler_controller_metric_computation_total":            {"metric_type": "Resource"},
	"horizontal_pod_autoscaler_controller_metric_computation_duration_seconds": {"metric_type": "Resource"},
	"statefulset_controller_statefulset_max_unavailable":                       {"pod_management_policy": "OrderedReady", "statefulset_name": "metrics"},
	"statefulset_controller_statefulset_unavailable_replicas":                  {"pod_management_policy": "OrderedReady", "statefulset_name": "metrics"},
	"dynamic_resource_allocation_resourceclaim_creates_total":                  {"status": "success", "admin_access": "false", "owner_api_group": "", "owner_api_kind": "Pod"},
	"dynamic_resource_allocation_resource_claims":                              {"allocated": "false", "admin_access": "false", "source": ""},
	"pv_collector_total_pv_count":                                              {"plugin_name": "kubernetes.io/csi:metrics.example.com", "volume_mode": "Filesystem"},
	"pv_collector_unbound_pv_count":                                            {"storage_class": "metrics"},
	"pv_collector_unbound_pvc_count":                                           {"storage_class": "metrics"},
	"endpoint_slice_controller_syncs":                                          {"result": "success"},
	"endpoint_slice_controller_num_endpoint_slices":                            {},
	"endpoint_slice_mirroring_controller_changes":                              {"operation": "create"},
	"endpoint_slice_mirroring_controller_endpoints_added_per_sync":             {},
	"endpoint_slice_mirroring_controller_endpoints_sync_duration":              {},
	"endpoint_slice_mirroring_controller_endpoints_desired":                    {},
	"endpoint_slice_mirroring_controller_num_endpoint_slices":                  {},
	"endpoint_slice_mirroring_controller_desired_endpoint_slices":              {},
}

// What controllers do is known by the names that dashboards ask for. It comes after the other tests, some of whose
// doings are looked for.
func testMetrics(t *testing.T, shared *cluster) {
	c := shared.in(t)
	ctx := t.Context()
	create := func(_ any, err error) {
		t.Helper()
		c.must(err)
	}
	meta := metav1.ObjectMeta{Name: "metrics", Namespace: c.ns}
	for name, mode := range map[string]batchv1.CompletionMode{"metrics": batchv1.NonIndexedCompletion, "metrics-indexed": batchv1.IndexedCompletion} {
		create(c.cs.BatchV1().Jobs(c.ns).Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{
			Completions: ptr.To[int32](1), CompletionMode: &mode, TTLSecondsAfterFinished: ptr.To[int32](0), Template: endingTemplate(controllertest.Succeed),
		}}, metav1.CreateOptions{}))
	}
	create(c.cs.BatchV1().Jobs(c.ns).Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "metrics-policy"}, Spec: batchv1.JobSpec{
		Template: endingTemplate(controllertest.Fail), PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionFailJob, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
		}}},
	}}, metav1.CreateOptions{}))
	create(c.cs.BatchV1().Jobs(c.ns).Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "metrics-managed"}, Spec: batchv1.JobSpec{
		Template: endingTemplate(controllertest.Fail), ManagedBy: ptr.To("example.com/other"),
	}}, metav1.CreateOptions{}))
	create(c.cs.AppsV1().StatefulSets(c.ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{ // of which no pod can come
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"set": "metrics"}}, Template: unscheduled(map[string]string{"set": "metrics"}),
	}}, metav1.CreateOptions{}))
	endpoints := []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.9.9.9"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}
	create(c.cs.CoreV1().Services(c.ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "metrics-copied"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	create(c.cs.CoreV1().Endpoints(c.ns).Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "metrics-copied"}, Subsets: endpoints}, metav1.CreateOptions{}))
	create(c.cs.AutoscalingV2().HorizontalPodAutoscalers(c.ns).Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "nobody"}, MaxReplicas: 2,
	}}, metav1.CreateOptions{}))
	create(c.cs.ResourceV1().ResourceClaims(c.ns).Create(ctx, &resourcev1.ResourceClaim{ObjectMeta: meta, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
		Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c"}}},
	}}}, metav1.CreateOptions{}))
	create(c.cs.CoreV1().Services(c.ns).Create(ctx, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	create(c.cs.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "metrics"}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: "metrics", Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "metrics.example.com", VolumeHandle: "h"}},
	}}, metav1.CreateOptions{}))
	// This one asks for a claim, waits for ever, and then for its finalizer.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "metrics", Finalizers: []string{"example.com/held"}}, Spec: template("v1", nil).Spec}
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("metrics"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: size}},
	}}}}}
	create(c.cs.CoreV1().Pods(c.ns).Create(ctx, pod, metav1.CreateOptions{}))
	c.eventually("the claim of a pod", func(ctx context.Context) (bool, string) {
		_, err := c.cs.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, "metrics-v", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	c.must(c.cs.CoreV1().Pods(c.ns).Delete(ctx, pod.Name, metav1.DeleteOptions{}))

	c.eventually("metrics that move", func(context.Context) (bool, string) {
		families := scrape(t, c.metrics)
		var missing []string
		for name, labels := range moved {
			if total(families[name], labels) <= 0 {
				missing = append(missing, name)
			}
		}
		return len(missing) == 0, strings.Join(missing, ", ")
	})
	families, err := testutil.ScrapeMetricsProto(c.metrics, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}})
	c.must(err)
	testutil.AssertHasNativeHistogram(t, families["replicaset_controller_sorting_deletion_age_ratio"], nil)
	c.retry(func(ctx context.Context) error {
		pod, err := c.cs.CoreV1().Pods(c.ns).Get(ctx, pod.Name, metav1.GetOptions{})
		c.must(err)
		pod.Finalizers = nil
		_, err = c.cs.CoreV1().Pods(c.ns).Update(ctx, pod, metav1.UpdateOptions{})
		return err
	})
}

// unscheduled is a template of pods that wait for ever.
func unscheduled(labels map[string]string) corev1.PodTemplateSpec {
	t := template("v1", labels)
	t.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
	return t
}

// scrape reads what a component tells of itself.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return families
}

// total adds up what has been counted with these labels and any others.
func total(f *dto.MetricFamily, labels map[string]string) (sum float64) {
	for _, m := range f.GetMetric() {
		found := map[string]string{}
		for _, l := range m.GetLabel() {
			found[l.GetName()] = l.GetValue()
		}
		matches := true
		for name, value := range labels {
			got, has := found[name]
			matches = matches && has && got == value
		}
		if matches {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}
