package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/testutil"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	criremote "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/leme-k8s/leme/pkg/component"
)

// fakeRuntime is a container runtime with one container, "id", in one sandbox, "box".
type fakeRuntime struct {
	cri.RuntimeService // what a test does not expect to be called panics
	streams            streaming.Server
}

func (r *fakeRuntime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if req.Cmd[0] == "missing" {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return r.streams.GetExec(req)
}

func (r *fakeRuntime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return r.streams.GetAttach(req)
}

func (r *fakeRuntime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return r.streams.GetPortForward(req)
}

func (r *fakeRuntime) ExecSync(_ context.Context, id string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	return fmt.Appendf(nil, "%s ran %q", id, cmd), nil, nil
}

func (r *fakeRuntime) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{State: runtimeapi.ContainerState_CONTAINER_EXITED}}, nil
}

func (r *fakeRuntime) CheckpointContainer(context.Context, *runtimeapi.CheckpointContainerRequest) error {
	return status.Error(codes.Unimplemented, "unknown method CheckpointContainer")
}

func (r *fakeRuntime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return []*runtimeapi.Container{{Id: "id", Image: &runtimeapi.ImageSpec{Image: "img"}, Labels: map[string]string{
		"io.kubernetes.pod.uid": "uid", "io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "ns", "io.kubernetes.container.name": "main"}},
		{Id: "foreign"}}, nil
}

// inside is what runs in the container: it echoes.
type inside struct{}

func (inside) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, _ io.WriteCloser, tty bool, _ <-chan criremote.TerminalSize) error {
	fmt.Fprintf(out, "%s %q tty=%v: ", id, cmd, tty)
	_, err := io.Copy(out, in)
	return err
}

func (i inside) Attach(ctx context.Context, id string, in io.Reader, out, e io.WriteCloser, tty bool, r <-chan criremote.TerminalSize) error {
	return i.Exec(ctx, id, []string{"attach"}, in, out, e, tty, r)
}

func (inside) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := fmt.Fprintf(stream, "port %d", port)
	return err
}

// node is the one pod, and who may do what.
type node struct {
	logs    string
	allowed map[string]bool // subresources, for user "reader"
	asked   []string
}

func (n *node) pod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"}}
	p.Spec.Containers = []corev1.Container{{Name: "main"}, {Name: "waits"}}
	return p
}
func (n *node) Pods() []*corev1.Pod { return []*corev1.Pod{n.pod()} }
func (n *node) PodByName(namespace, name string) (*corev1.Pod, bool) {
	return n.pod(), namespace == "ns" && name == "pod"
}
func (n *node) ContainerID(uid types.UID, c string) (string, bool) {
	return "id", uid == "uid" && c == "main"
}
func (n *node) SandboxID(uid types.UID) (string, bool) { return "box", uid == "uid" }
func (n *node) ContainerLog(_ types.UID, c string, previous bool) (string, string, error) {
	if c == "waits" {
		return "", "", errors.New(`container "waits" in pod "pod" is waiting to start: ContainerCreating`)
	}
	if previous {
		return "", "", errors.New(`previous terminated container "main" in pod "pod" not found`)
	}
	return n.logs, "id", nil
}

func (n *node) Summary(_ context.Context, only bool) (*stats.Summary, error) {
	return &stats.Summary{Node: stats.NodeStats{NodeName: fmt.Sprint("n", only)}}, nil
}
func (n *node) Resource(context.Context) metrics.Gatherer   { return metrics.NewKubeRegistry() }
func (n *node) Containers(context.Context) metrics.Gatherer { return metrics.NewKubeRegistry() }

func (n *node) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	switch token := r.Header.Get("Authorization"); token {
	case "":
		return nil, false, nil
	case "Bearer broken":
		return nil, false, errors.New("broken")
	default:
		return &authenticator.Response{User: &user.DefaultInfo{Name: strings.TrimPrefix(token, "Bearer ")}}, true, nil
	}
}

func (n *node) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	n.asked = append(n.asked, a.GetVerb()+" "+a.GetResource()+"/"+a.GetSubresource()+" "+a.GetName())
	if a.GetUser().GetName() == "admin" || n.allowed[a.GetSubresource()] {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// TestNativeHistograms wants them at /metrics but where the configuration switches them off.
func TestNativeHistograms(t *testing.T) {
	component.CountNatively(true)
	h := metrics.NewHistogram(&metrics.HistogramOpts{Name: "kubelet_server_test_seconds", Help: "h", Buckets: []float64{1}})
	legacyregistry.MustRegister(h)
	h.Observe(0.5)
	for _, gates := range []map[string]bool{nil, {"NativeHistograms": false}} {
		n := &node{}
		s := &Server{metrics: newMetrics(), cfg: Config{Kubelet: &kubeletconfig.KubeletConfiguration{FeatureGates: gates}, Auth: Auth{Authenticator: n, Authorizer: n}, Stats: n}}
		srv := httptest.NewServer(s.Handler())
		families, err := testutil.ScrapeMetricsProto(srv.URL+"/metrics", &http.Client{Transport: transport.NewBearerAuthRoundTripper("admin", http.DefaultTransport)})
		srv.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := families["kubelet_server_test_seconds"].Metric[0].Histogram; (got.Schema != nil) != (gates == nil) || len(got.Bucket) != 1 {
			t.Errorf("with the gates %v: %v", gates, got)
		}
	}
}

func start(t *testing.T) (*httptest.Server, *node) {
	t.Helper()
	n := &node{logs: filepath.Join(t.TempDir(), "0.log"), allowed: map[string]bool{}}
	rt := &fakeRuntime{}
	var handler http.Handler
	streams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(streams.Close)
	base, err := url.Parse(streams.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := streaming.DefaultConfig
	cfg.BaseURL = base
	if rt.streams, err = streaming.NewServer(cfg, inside{}); err != nil {
		t.Fatal(err)
	}
	handler = rt.streams
	s := &Server{metrics: newMetrics(), cfg: Config{NodeName: "node", RootDir: t.TempDir(), Kubelet: &kubeletconfig.KubeletConfiguration{MaxPods: 7},
		Auth: Auth{Authenticator: n, Authorizer: n}, Pods: n, Stats: n, Runtime: rt,
		Checks: []Check{{"syncloop", func(*http.Request) error { return nil }}}}}
	srv := httptest.NewTLSServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv, n
}

func do(t *testing.T, srv *httptest.Server, method, path, who string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAttributes(t *testing.T) {
	for _, tc := range []struct{ method, path, want string }{
		{"GET", "/pods", "get pods,proxy"},
		{"GET", "/runningpods/", "get pods,proxy"},
		{"GET", "/healthz/ping", "get healthz,proxy"},
		{"GET", "/configz", "get configz,proxy"},
		{"GET", "/stats/summary", "get stats"},
		{"GET", "/metrics/resource", "get metrics"},
		{"GET", "/logs/syslog", "get log"},
		{"POST", "/checkpoint/ns/pod/c", "create checkpoint"},
		{"POST", "/exec/ns/pod/c", "create proxy"},
		{"GET", "/exec/ns/pod/c", "get proxy"},
		{"GET", "/containerLogs/ns/pod/c", "get proxy"},
		{"GET", "/podsother", "get proxy"},
	} {
		var subs []string
		as := Attributes(&user.DefaultInfo{Name: "u"}, "node", tc.method, tc.path)
		for _, a := range as {
			subs = append(subs, a.Subresource)
		}
		if got := as[0].Verb + " " + strings.Join(subs, ","); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.method, tc.path, got, tc.want)
		}
	}
}

func TestAccess(t *testing.T) {
	srv, n := start(t)
	n.allowed["pods"] = true
	for _, tc := range []struct {
		who, path string
		code      int
	}{
		{"", "/pods", 401}, {"broken", "/pods", 401}, {"reader", "/pods", 200}, {"reader", "/configz", 403}, {"admin", "/configz", 200},
		{"reader", "/exec/ns/pod/main?command=x&output=1", 403}, {"", "/healthz", 401},
	} {
		if code, body := do(t, srv, "GET", tc.path, tc.who); code != tc.code {
			t.Errorf("%s asks for %s: %d %s, want %d", tc.who, tc.path, code, body, tc.code)
		}
	}
	want := []string{"get nodes/pods node", "get nodes/configz node", "get nodes/proxy node", "get nodes/configz node", "get nodes/proxy node"}
	if d := cmp.Diff(want, n.asked); d != "" {
		t.Error(d)
	}
}

func TestReads(t *testing.T) {
	srv, n := start(t)
	line := func(at, stream, tag, text string) string {
		return "2026-01-01T10:00:0" + at + ".000000000Z " + stream + " " + tag + " " + text + "\n"
	}
	content := line("1", "stdout", "P", "o") + line("1", "stdout", "F", "ne") + line("2", "stderr", "F", "two") + line("3", "stdout", "F", "three")
	if err := os.WriteFile(n.logs, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		code int
		want string
	}{
		{"/containerLogs/ns/pod/main", 200, "one\ntwo\nthree\n"},
		{"/containerLogs/ns/pod/main?tailLines=1", 200, "three\n"},
		{"/containerLogs/ns/pod/main?tailLines=0", 200, ""},
		{"/containerLogs/ns/pod/main?limitBytes=5", 200, "one\nt"},
		{"/containerLogs/ns/pod/main?sinceTime=2026-01-01T10:00:02Z", 200, "two\nthree\n"},
		{"/containerLogs/ns/pod/main?timestamps=true&tailLines=2", 200, "2026-01-01T10:00:03.000000000Z three\n"},
		{"/containerLogs/ns/pod/main?stream=Stderr", 200, "two\n"},
		{"/containerLogs/ns/pod/main?follow=true", 200, "one\ntwo\nthree\n"}, // the container has ended
		{"/containerLogs/ns/pod/main?previous=true", 400, "previous terminated container \"main\" in pod \"pod\" not found\n"},
		{"/containerLogs/ns/pod/waits", 400, "container \"waits\" in pod \"pod\" is waiting to start: ContainerCreating\n"},
		{"/containerLogs/ns/pod/none", 404, "container \"none\" not found in pod \"pod\"\n"},
		{"/containerLogs/ns/none/main", 404, "pod \"none\" does not exist\n"},
		{"/containerLogs/ns/pod/main?tailLines=-1", 422, "tailLines: -1 is too small\n"},
		{"/containerLogs/ns/pod/main?sinceSeconds=x", 422, "sinceSeconds: \"x\" is not a number\n"},
		{"/healthz", 200, "ok"},
		{"/healthz/syncloop", 200, "ok"},
		{"/metrics/probes", 200, ""},
		{"/no/such", 404, "404 page not found\n"},
	} {
		code, body := do(t, srv, "GET", tc.path, "admin")
		if strings.Contains(tc.path, "timestamps") {
			want := "2026-01-01T10:00:02.000000000Z two\n2026-01-01T10:00:03.000000000Z three\n"
			if code != 200 || body != want {
				t.Errorf("%s: %d %q, want %q", tc.path, code, body, want)
			}
			continue
		}
		if code != tc.code || body != tc.want {
			t.Errorf("%s: %d %q, want %d %q", tc.path, code, body, tc.code, tc.want)
		}
	}

	var list corev1.PodList
	_, body := do(t, srv, "GET", "/runningpods/", "admin")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != "pod" || list.Items[0].Spec.Containers[0].Name != "main" {
		t.Errorf("running pods: %s, %v", body, err)
	}
	if _, body := do(t, srv, "GET", "/pods", "admin"); !strings.Contains(body, `"kind":"PodList"`) || !strings.Contains(body, `"uid":"uid"`) {
		t.Errorf("pods: %s", body)
	}
	if _, body := do(t, srv, "GET", "/configz", "admin"); !strings.Contains(body, `{"kubeletconfig":{`) || !strings.Contains(body, `"maxPods":7`) {
		t.Errorf("configz: %s", body)
	}
	if _, body := do(t, srv, "GET", "/stats/summary?only_cpu_and_memory=true", "admin"); !strings.Contains(body, `"nodeName":"ntrue"`) {
		t.Errorf("summary: %s", body)
	}
	if _, body := do(t, srv, "POST", "/run/ns/pod/main?cmd=ls+-l", "admin"); body != `id ran ["ls" "-l"]` {
		t.Errorf("run: %s", body)
	}
	if code, body := do(t, srv, "POST", "/checkpoint/ns/pod/main", "admin"); code != 404 || !strings.Contains(body, "the container runtime cannot do it") {
		t.Errorf("checkpoint: %d %s", code, body)
	}
}

func TestStreams(t *testing.T) {
	srv, _ := start(t)
	config := &rest.Config{Host: srv.URL, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	for _, tc := range []struct{ path, want string }{
		{"/exec/ns/pod/main?command=cat&command=-n&input=1&output=1", `id ["cat" "-n"] tty=false: hello`},
		{"/exec/ns/pod/uid/main?command=sh&input=1&output=1&error=1&tty=1", `id ["sh"] tty=true: hello`},
		{"/attach/ns/pod/main?input=1&output=1", `id ["attach"] tty=false: hello`},
	} {
		u, err := url.Parse(srv.URL + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		spdyExec, err := remotecommand.NewSPDYExecutor(config, "POST", u)
		if err != nil {
			t.Fatal(err)
		}
		wsExec, err := remotecommand.NewWebSocketExecutor(config, "GET", u.String())
		if err != nil {
			t.Fatal(err)
		}
		for name, e := range map[string]remotecommand.Executor{"SPDY": spdyExec, "WebSocket": wsExec} {
			var out bytes.Buffer
			o := remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Tty: strings.Contains(tc.path, "tty")}
			if err := e.StreamWithContext(t.Context(), o); err != nil {
				t.Errorf("%s %s: %v", name, tc.path, err)
			}
			if out.String() != tc.want {
				t.Errorf("%s %s: %q, want %q", name, tc.path, out.String(), tc.want)
			}
		}
	}
	for path, want := range map[string]int{
		"/exec/ns/pod/none?command=x&output=1":       404,
		"/exec/ns/pod/other-uid/main?command=x":      404,
		"/exec/ns/pod/main?command=x":                400,
		"/exec/ns/pod/main?command=missing&output=1": 404,
		"/exec/ns/pod/main?command=x&output=1":       500, // no upgrade
	} {
		if code, body := do(t, srv, "POST", path, "admin"); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}

	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL + "/portForward/ns/pod")
	if err != nil {
		t.Fatal(err)
	}
	forward(t, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u))
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, config)
	if err != nil {
		t.Fatal(err)
	}
	forward(t, tunnel)
}

func forward(t *testing.T, dialer httpstream.Dialer) {
	t.Helper()
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(dialer, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "port 80" {
		t.Errorf("forwarded %q, %v", b, err)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	n := &node{}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	pair := cert.TLS.Certificates[0]
	cert.Close()
	healthy := false
	zero := int32(0)
	s, err := New(Config{Kubelet: &kubeletconfig.KubeletConfiguration{Address: "127.0.0.1", HealthzPort: &zero}, Auth: Auth{n, n}, Pods: n, Stats: n,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
		Checks: []Check{{"syncloop", func(*http.Request) error {
			if healthy {
				return nil
			}
			return errors.New("stuck")
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Port() == 0 || s.HealthAddr() != "" {
		t.Errorf("port %d, health at %q", s.Port(), s.HealthAddr())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func() int {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/healthz", s.Port()), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer admin")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := get(); code != 500 {
		t.Errorf("while stuck: %d", code)
	}
	healthy = true
	if code := get(); code != 200 {
		t.Errorf("when healthy: %d", code)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Kubelet: &kubeletconfig.KubeletConfiguration{ReadOnlyPort: 10255}}); err == nil || !strings.Contains(err.Error(), "readOnlyPort") {
		t.Errorf("read-only port: %v", err)
	}
}
