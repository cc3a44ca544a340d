package pods

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	critest "k8s.io/cri-api/pkg/apis/testing"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// TestMetrics runs one pod of the API, refuses another, and has the first end.
func TestMetrics(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	pod := sizedPod("a", 0)
	pod.CreationTimestamp = metav1.Now()
	client, next := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), cri, images, client)
	m.Pressure = func(pod *v1.Pod) error {
		if pod.Name == "refused" {
			return errors.New("no room")
		}
		return nil
	}
	registry := metrictest.New(m)
	registry.Expect(t, map[string]float64{
		"kubelet_running_pods": 0, `kubelet_desired_pods{static=""}`: 0, `kubelet_desired_pods{static="true"}`: 0,
		`kubelet_working_pods{config="runtime_only",lifecycle="sync",static="unknown"}`: 0, `kubelet_restarted_pods_total{static="true"}`: 0,
	})
	ctx, _ := start(t, m)
	m.set(ctx, pod)
	get := func() *v1.Pod {
		p, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	componenttest.Eventually(t, "it runs", func() bool { return get().Status.Phase == v1.PodRunning })
	refused := sizedPod("refused", 0)
	m.set(ctx, refused)
	m.set(ctx, get()) // the API says that it runs
	registry.Expect(t, map[string]float64{
		"kubelet_running_pods": 1, `kubelet_running_containers{container_state="running"}`: 1,
		`kubelet_desired_pods{static=""}`: 2, `kubelet_active_pods{static=""}`: 1,
		`kubelet_working_pods{config="desired",lifecycle="sync",static=""}`: 1,
		`kubelet_admission_rejections_total{reason="Evicted"}`:              1,
		"kubelet_started_pods_total":                                        1, "kubelet_started_pods_errors_total": 0, "kubelet_started_user_namespaced_pods_total": 0,
		`kubelet_started_containers_total{container_type="container"}`: 1,
		`kubelet_pod_worker_duration_seconds{operation_type="create"}`: 1,
		"kubelet_pod_worker_start_duration_seconds":                    1, "kubelet_pod_start_duration_seconds": 1, "kubelet_pod_start_total_duration_seconds": 1,
		"kubelet_pod_start_sli_duration_seconds": 1, "kubelet_containers_per_pod_count": 2, "kubelet_mirror_pods": 0, "kubelet_managed_ephemeral_containers": 0,
	})
	m.set(ctx, get())
	registry.Expect(t, map[string]float64{"kubelet_pod_start_total_duration_seconds": 1})

	deleted := get()
	deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds, deleted.ResourceVersion = ptr.To(metav1.Now()), ptr.To[int64](0), next()
	m.set(ctx, deleted)
	componenttest.Eventually(t, "nothing runs", func() bool { return registry.Read(t)["kubelet_running_pods"] == 0 })
}

// TestComesBack removes the file of a static pod and puts it back while the pod still ends: it begins anew.
func TestComesBack(t *testing.T) {
	dir := t.TempDir()
	manifests := filepath.Join(dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	slow := slowRuntime{RuntimeService: cri, release: make(chan struct{}), slow: func(string) bool { return true }}
	m, _ := fakeManager(t, dir, slow, images, nil)
	m.StaticPodPath = manifests
	registry := metrictest.New(m)
	file := filepath.Join(manifests, "p.yaml")
	write := func() {
		if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: kube-system}\nspec: {hostNetwork: true, containers: [{name: c, image: image}]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	working := func(config, lifecycle string) bool {
		return registry.Read(t)[`kubelet_working_pods{config="`+config+`",lifecycle="`+lifecycle+`",static="true"}`] == 1
	}
	write()
	start(t, m)
	running := func() bool {
		pod, ok := m.PodByName("kube-system", "p-node")
		return ok && pod.Status.Phase == v1.PodRunning && working("desired", "sync")
	}
	componenttest.Eventually(t, "it runs", running)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	componenttest.Eventually(t, "it ends", func() bool { return working("orphan", "terminating") })
	write()
	componenttest.Eventually(t, "it is wanted again", func() bool {
		all := m.all()
		if len(all) != 1 {
			return false
		}
		all[0].mu.Lock()
		defer all[0].mu.Unlock()
		return all[0].next != nil
	})
	close(slow.release)
	componenttest.Eventually(t, "it runs again", running)
	registry.Expect(t, map[string]float64{`kubelet_restarted_pods_total{static="true"}`: 1})
}

// TestSwept finds a pod that has left nothing but volumes.
func TestSwept(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	m, _ := fakeManager(t, t.TempDir(), cri, images, nil)
	m.Volumes.(*fakeVolumes).set("left", true)
	m.synced[sourceAPI], m.synced[sourceFile] = true, true
	registry := metrictest.New(m)
	start(t, m)
	componenttest.Eventually(t, "it is cleaned up after", func() bool { return registry.Read(t)["kubelet_orphan_pod_cleaned_volumes"] == 1 })
	registry.Expect(t, map[string]float64{"kubelet_orphan_pod_cleaned_volumes": 1, "kubelet_orphan_pod_cleaned_volumes_errors": 0, "kubelet_orphaned_runtime_pods_total": 0})
}

func TestStartup(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return created.Add(time.Duration(s * float64(time.Second))) }
	pod := func(change ...func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c"}}}}
		p.Status.Phase = v1.PodPending
		for _, c := range change {
			c(p)
		}
		return p
	}
	started := func(p *v1.Pod) {
		p.Status.Phase = v1.PodRunning
		p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}
	}
	waited := func(p *v1.Pod) {
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse}}
	}
	claims := func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{}}}}
	}
	for name, c := range map[string]struct {
		seen         []*v1.Pod // a second after each other
		pulling      time.Duration
		initializing time.Duration
		total, sli   float64 // 0: not told
	}{
		"starts":                      {seen: []*v1.Pod{pod(), pod(), pod(started)}, total: 3, sli: 3},
		"is told once":                {seen: []*v1.Pod{pod(), pod(started), pod(started)}, total: 2, sli: 2},
		"pulls and initializes":       {seen: []*v1.Pod{pod(), pod(), pod(), pod(), pod(started)}, pulling: time.Second, initializing: 1500 * time.Millisecond, total: 5, sli: 2.5},
		"ran before":                  {seen: []*v1.Pod{pod(started), pod(started)}},
		"began before":                {seen: []*v1.Pod{pod(func(p *v1.Pod) { p.Status.StartTime = &metav1.Time{Time: created} }), pod(started)}},
		"had to wait for a node":      {seen: []*v1.Pod{pod(waited), pod(started)}},
		"had to wait, as seen later":  {seen: []*v1.Pod{pod(), pod(waited), pod(started)}},
		"needs what is not of a node": {seen: []*v1.Pod{pod(claims), pod(claims, started)}, total: 2},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMetrics()
			registry := metrictest.New()
			registry.MustRegister(m.startTotal, m.startSLI)
			s := startupOf(c.seen[0], at(1))
			s.pulling = c.pulling
			for i, p := range c.seen[1:] {
				s.heard(m, p, c.initializing, at(float64(i+2)))
			}
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				want := map[string]float64{"kubelet_pod_start_total_duration_seconds": c.total, "kubelet_pod_start_sli_duration_seconds": c.sli}[f.GetName()]
				h := f.Metric[0].GetHistogram()
				if h.GetSampleSum() != want || (h.GetSampleCount() == 1) != (want != 0) {
					t.Errorf("%s: %v in %d, want %v", f.GetName(), h.GetSampleSum(), h.GetSampleCount(), want)
				}
			}
		})
	}
}

func TestInitializing(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	pod := &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{{Name: "i"}, {Name: "side", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)}}}}
	state := &runtime.State{Containers: []runtime.Container{
		{Name: "i", State: runtime.Exited, StartedAt: at(1), FinishedAt: at(3)}, {Name: "i", State: runtime.Exited, StartedAt: at(4), FinishedAt: at(5)},
		{Name: "i", State: runtime.Running, StartedAt: at(6)}, {Name: "side", State: runtime.Exited, StartedAt: at(1), FinishedAt: at(9)}, {Name: "c", State: runtime.Running},
	}}
	if got := initializing(pod, state); got != 3*time.Second {
		t.Errorf("%s", got)
	}
}

func TestLabels(t *testing.T) {
	for reason, want := range map[string]string{"OutOfcpu": "OutOfcpu", "OutOfpods": "OutOfpods", "OutOfexample.com/gpu": "OutOfExtendedResources", "NodePorts": "NodePorts"} {
		if got := rejectionReason(reason); got != want {
			t.Errorf("%s: %s", reason, got)
		}
	}
	for priority, want := range map[int32]string{2_000_001_000: "system-critical", 100_000: "high", 99_999: "medium", 0: "normal", -1: "low", -1000: "very-low"} {
		if got := priorityBucket(&v1.Pod{Spec: v1.PodSpec{Priority: &priority}}); got != want {
			t.Errorf("%d: %s", priority, got)
		}
	}
	if got := priorityBucket(&v1.Pod{}); got != "normal" {
		t.Errorf("none: %s", got)
	}
}

// TestHookMetrics: a hook over HTTPS that is answered in the clear is made so, and a sleep may be cut short.
func TestHookMetrics(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	m, _ := fakeManager(t, t.TempDir(), cri, images, nil)
	registry := metrictest.New(m)
	pod := sizedPod("a", 0)
	w := newWorker(m, pod)
	get := &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Scheme: v1.URISchemeHTTPS, Host: address.Hostname(), Port: intstr.Parse(address.Port()), Path: "/"}}
	if err := w.hook(t.Context(), pod, &pod.Spec.Containers[0], "id", get); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.hook(ended, pod, &pod.Spec.Containers[0], "id", &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 3600}}); err == nil {
		t.Error("slept")
	}
	registry.Expect(t, map[string]float64{"kubelet_lifecycle_handler_http_fallbacks_total": 1, "kubelet_sleep_action_terminated_early_total": 1})
}
