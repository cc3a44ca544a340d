package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k8s.io/component-base/metrics/testutil"
	"k8s.io/cri-client/pkg/fake"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

// wanted are the metrics that dashboards and alerts (kubernetes-mixin, kube-prometheus) ask of a kubelet, or that are stable, as far as one shows
// them that has no API server and runs one pod: their types and labels, and for which path.
var wanted = map[string][]string{
	"/metrics": {
		"go_goroutines gauge",
		"kubelet_active_pods gauge static",
		"kubelet_admission_rejections_total counter reason",
		"kubelet_cgroup_version gauge",
		"kubelet_container_log_filesystem_used_bytes gauge container namespace pod uid",
		"kubelet_containers_per_pod_count histogram",
		"kubelet_desired_pods gauge static",
		"kubelet_evented_pleg_connection_error_count counter",
		"kubelet_evented_pleg_connection_latency_seconds histogram",
		"kubelet_evented_pleg_connection_success_count counter",
		"kubelet_http_inflight_requests gauge long_running method path server_type",
		"kubelet_http_requests_duration_seconds histogram long_running method path server_type",
		"kubelet_http_requests_total counter long_running method path server_type",
		"kubelet_image_garbage_collected_total counter reason",
		"kubelet_image_manager_ensure_image_requests_total counter present_locally pull_policy pull_required",
		"kubelet_image_pull_duration_seconds histogram image_size_in_bytes",
		"kubelet_image_volume_mounted_errors_total counter",
		"kubelet_image_volume_mounted_succeed_total counter",
		"kubelet_image_volume_requested_total counter",
		"kubelet_imagemanager_ondisk_pulledrecords gauge",
		"kubelet_imagemanager_ondisk_pullintents gauge",
		"kubelet_lifecycle_handler_http_fallbacks_total counter",
		"kubelet_managed_ephemeral_containers gauge",
		"kubelet_metrics_provider gauge provider",
		"kubelet_mirror_pods gauge",
		"kubelet_node_name gauge node",
		"kubelet_node_startup_duration_seconds gauge",
		"kubelet_node_startup_post_registration_duration_seconds gauge",
		"kubelet_node_startup_pre_kubelet_duration_seconds gauge",
		"kubelet_node_startup_pre_registration_duration_seconds gauge",
		"kubelet_node_startup_registration_duration_seconds gauge",
		"kubelet_orphan_pod_cleaned_volumes gauge",
		"kubelet_orphan_pod_cleaned_volumes_errors gauge",
		"kubelet_orphaned_runtime_pods_total counter",
		"kubelet_pleg_last_seen_seconds gauge",
		"kubelet_pleg_relist_duration_seconds histogram",
		"kubelet_pleg_relist_interval_seconds histogram",
		"kubelet_pod_in_progress_resizes gauge",
		"kubelet_pod_start_duration_seconds histogram",
		"kubelet_pod_start_sli_duration_seconds histogram",
		"kubelet_pod_start_total_duration_seconds histogram",
		"kubelet_pod_status_sync_duration_seconds histogram",
		"kubelet_pod_worker_duration_seconds histogram operation_type",
		"kubelet_pod_worker_start_duration_seconds histogram",
		"kubelet_restarted_pods_total counter static",
		"kubelet_run_podsandbox_duration_seconds histogram runtime_handler",
		"kubelet_running_containers gauge container_state",
		"kubelet_running_pods gauge",
		"kubelet_runtime_operations_duration_seconds histogram operation_type",
		"kubelet_runtime_operations_total counter operation_type",
		"kubelet_sleep_action_terminated_early_total counter",
		"kubelet_started_containers_total counter container_type",
		"kubelet_started_pods_errors_total counter",
		"kubelet_started_pods_total counter",
		"kubelet_started_user_namespaced_pods_errors_total counter",
		"kubelet_started_user_namespaced_pods_total counter",
		"kubelet_working_pods gauge config lifecycle static",
		"kubernetes_feature_enabled gauge name stage",
		"kubernetes_build_info gauge build_date compiler git_commit git_tree_state git_version go_version major minor platform",
		"process_cpu_seconds_total counter",
		"process_resident_memory_bytes gauge",
		"process_start_time_seconds gauge",
		"storage_operation_duration_seconds histogram migrated operation_name status volume_plugin",
		"volume_manager_total_volumes gauge plugin_name state",
		"volume_operation_total_seconds histogram operation_name plugin_name",
	},
	"/metrics/probes": {
		"prober_probe_duration_seconds histogram container namespace pod probe_type",
		"prober_probe_total counter container namespace pod pod_uid probe_type result",
		"process_start_time_seconds gauge",
	},
}

// TestMetrics runs a kubelet on a fake runtime, with one pod that it runs and one that it refuses, and reads all that it tells.
// It does so in a process with mounts and a network of its own, as a kubelet changes both.
func TestMetrics(t *testing.T) {
	const inside = "LEME_TEST_METRICS"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMetrics$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"/var/log", dir} {
		if err := unix.Mount("tmpfs", hidden, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cri := fake.NewFakeRemoteRuntime()
	cri.ImageService.SetFakeImageSize(1)
	cri.ImageService.SetFakeImages([]string{"image:1"})
	endpoint := "unix://" + filepath.Join(dir, "cri.sock")
	if err := cri.Start(endpoint); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cri.Stop)

	for name, content := range map[string]string{
		"config.yaml": fmt.Sprintf(`
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
healthzPort: 0
oomScoreAdj: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
containerRuntimeEndpoint: %s
staticPodPath: %s/static
podLogsDir: %s/logs
evictionHard: {memory.available: 1Mi}
`, endpoint, dir, dir),
		"static/runs.yaml": `
apiVersion: v1
kind: Pod
metadata: {name: runs, namespace: default}
spec:
  hostNetwork: true
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, image: "image:1", imagePullPolicy: Always, volumeMounts: [{name: v, mountPath: /v}], readinessProbe: {exec: {command: [x]}, periodSeconds: 1}}
`,
		"static/refused.yaml": `
apiVersion: v1
kind: Pod
metadata: {name: refused, namespace: default}
spec: {hostNetwork: true, nodeSelector: {no: such}, containers: [{name: c, image: "image:1"}]}
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := component.New(t.Context(), "kubelet", NewOptions(), []string{"--config=" + filepath.Join(dir, "config.yaml"), "--root-dir=" + filepath.Join(dir, "root"),
		"--cert-dir=" + filepath.Join(dir, "pki"), "--hostname-override=node", "--node-ip=127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	read := func(path string) (map[string]*dto.MetricFamily, error) {
		resp, err := client.Get("https://127.0.0.1:10250" + path)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %d %s: %w", path, resp.StatusCode, body, err)
		}
		return testutil.TextToMetricFamilies(bytes.NewReader(body))
	}
	for path, want := range wanted {
		componenttest.EventuallyWithin(t, 2*time.Minute, "the metrics of "+path, func() (bool, string) {
			got, err := read(path)
			if err != nil {
				return false, err.Error()
			}
			missing := slices.DeleteFunc(slices.Clone(want), func(line string) bool { return slices.Contains(describe(got), line) })
			return len(missing) == 0, strings.Join(missing, "\n")
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// describe says of what types metrics are and which labels they have.
func describe(families map[string]*dto.MetricFamily) []string {
	var out []string
	for name, f := range families {
		line := name + " " + strings.ToLower(f.GetType().String())
		for _, l := range f.Metric[0].Label {
			line += " " + l.GetName()
		}
		out = append(out, line)
	}
	return out
}
