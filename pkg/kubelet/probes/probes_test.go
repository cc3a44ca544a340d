package probes

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
	utilexec "k8s.io/utils/exec"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "kube-probe/1.37" || r.Header.Get("X-A") != "b" || r.Host != "example.com" || r.Header.Get("Accept") != "*/*" {
			http.Error(w, "unexpected headers", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.Handle("/local", http.RedirectHandler("/error", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler("http://example.invalid/", http.StatusFound))
	container := &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}
	for path, tc := range map[string]struct {
		outcome Outcome
		output  string
	}{
		"/ok":     {Success, ""},
		"/error":  {Failure, "HTTP probe failed with statuscode: 503"},
		"/local":  {Failure, "HTTP probe failed with statuscode: 503"},
		"/away":   {Warning, "Probe terminated redirects"},
		"/absent": {Failure, "HTTP probe failed with statuscode: 404"},
	} {
		probe := &v1.Probe{TimeoutSeconds: 5, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{
			Path: path, Port: intstr.FromString("web"), HTTPHeaders: []v1.HTTPHeader{{Name: "X-A", Value: "b"}, {Name: "Host", Value: "example.com"}},
		}}}
		outcome, output, err := attempt(t.Context(), nil, probe, container, "id", "127.0.0.1")
		if err != nil || outcome != tc.outcome || !strings.Contains(output, tc.output) {
			t.Errorf("%s: %s %q %v", path, outcome, output, err)
		}
	}
	tcp := &v1.Probe{TimeoutSeconds: 5, ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}}
	if outcome, output, err := attempt(t.Context(), nil, tcp, container, "id", "127.0.0.1"); outcome != Success || err != nil {
		t.Errorf("tcp: %s %q %v", outcome, output, err)
	}
	server.Close()
	if outcome, _, _ := attempt(t.Context(), nil, tcp, container, "id", "127.0.0.1"); outcome != Failure {
		t.Errorf("tcp on a closed port: %s", outcome)
	}
}

func TestExec(t *testing.T) {
	probe := &v1.Probe{TimeoutSeconds: 1, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"a"}}}}
	for name, tc := range map[string]struct {
		err     error
		outcome Outcome
		unknown bool
	}{
		"success": {nil, Success, false},
		"failure": {utilexec.CodeExitError{Err: errors.New("exit 1"), Code: 1}, Failure, false},
		"unknown": {errors.New("the runtime is away"), "", true},
	} {
		exec := func(context.Context, string, []string, time.Duration) (string, error) { return "out", tc.err }
		outcome, _, err := attempt(t.Context(), exec, probe, &v1.Container{}, "id", "")
		if outcome != tc.outcome || (err != nil) != tc.unknown {
			t.Errorf("%s: %s %v", name, outcome, err)
		}
	}
}

// TestManager follows a container from its start over readiness to its death, in a bubble of time.
func TestManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started, ready, alive atomic.Bool
		alive.Store(true)
		exec := func(_ context.Context, _ string, command []string, _ time.Duration) (string, error) {
			ok := map[string]*atomic.Bool{"startup": &started, "readiness": &ready, "liveness": &alive}[command[0]].Load()
			if !ok {
				return "no", utilexec.CodeExitError{Err: errors.New("exit 1"), Code: 1}
			}
			return "", nil
		}
		probe := func(name string, period, failures int32) *v1.Probe {
			return &v1.Probe{
				ProbeHandler:  v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{name}}},
				PeriodSeconds: period, FailureThreshold: failures, SuccessThreshold: 1, TimeoutSeconds: 1,
			}
		}
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "uid"}, Spec: v1.PodSpec{Containers: []v1.Container{{
			Name: "c", StartupProbe: probe("startup", 1, 60), ReadinessProbe: probe("readiness", 10, 1), LivenessProbe: probe("liveness", 5, 3),
		}}}}
		var changes atomic.Int32
		m := NewManager(exec, record.NewFakeRecorder(1000), func(types.UID) { changes.Add(1) })
		registry := metrictest.New(m)
		state := &runtime.State{Containers: []runtime.Container{{ID: "c1", Name: "c", State: runtime.Running, StartedAt: time.Now()}}}
		m.Sync(t.Context(), pod, state, []string{"10.0.0.1"}, false)
		expect := func(after time.Duration, want Results) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := m.Results("c1"); got != want {
				t.Errorf("after %s: got %+v, want %+v", after, got, want)
			}
		}
		expect(20*time.Second, Results{})
		started.Store(true)
		ready.Store(true)
		// Readiness is asked as soon as the container has started, not at its next turn.
		expect(1100*time.Millisecond, Results{Started: true, Ready: true})
		alive.Store(false)
		expect(9*time.Second, Results{Started: true, Ready: true})
		expect(8*time.Second, Results{Started: true, Ready: true, Dead: true})
		if n := changes.Load(); n != 3 {
			t.Errorf("told of %d changes, want 3", n)
		}
		told := registry.Read(t)
		for key, want := range map[string]float64{
			`prober_probe_total{container="c",namespace="n",pod="p",pod_uid="uid",probe_type="Startup",result="failed"}`:       21,
			`prober_probe_total{container="c",namespace="n",pod="p",pod_uid="uid",probe_type="Startup",result="successful"}`:   1,
			`prober_probe_total{container="c",namespace="n",pod="p",pod_uid="uid",probe_type="Readiness",result="successful"}`: 2,
			`prober_probe_total{container="c",namespace="n",pod="p",pod_uid="uid",probe_type="Liveness",result="failed"}`:      3,
			`prober_probe_duration_seconds{container="c",namespace="n",pod="p",probe_type="Startup"}`:                          22,
		} {
			if told[key] != want {
				t.Errorf("%s is %v, not %v", key, told[key], want)
			}
		}
		m.Forget("uid")
		if left := registry.Read(t); len(left) != 0 {
			t.Errorf("forgotten, but counted: %v", left)
		}
		if got := m.Results("c1"); got != (Results{}) {
			t.Errorf("forgotten, but %+v", got)
		}
	})
}
