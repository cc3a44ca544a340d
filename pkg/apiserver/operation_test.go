package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	encryptionconfigcontroller "k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/component-base/metrics/testutil"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// second is another server for the objects of a cluster.
type second struct {
	kubernetes.Interface
	config *rest.Config
	stop   context.CancelFunc
	ended  chan error
}

// startSecond starts a further server, with certificates of its own, on the cluster's etcd
// unless the flags name another one. Its files are in dir.
func startSecond(t *testing.T, c *testcluster.Cluster, dir string, flags ...string) *second {
	t.Helper()
	cert, key, err := component.SelfSigned("localhost", net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flags { // of which the last one counts
		if given, ok := strings.CutPrefix(f, "--tls-cert-file="); ok {
			if cert, err = os.ReadFile(given); err != nil {
				t.Fatal(err)
			}
		}
	}
	account, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string { return write(t, filepath.Join(dir, name), text) }
	flags = append([]string{
		"--bind-address=127.0.0.1", "--tls-cert-file=" + file("server.crt", string(cert)), "--tls-private-key-file=" + file("server.key", string(key)),
		"--token-auth-file=" + file("tokens.csv", `admin,admin,,"system:masters"`), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("sa.key", string(account)), "--service-account-signing-key-file=" + filepath.Join(dir, "sa.key"),
	}, flags...)
	if !slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--etcd-servers=") }) {
		flags = append(flags, "--etcd-servers="+c.Etcd.Endpoints()[0])
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &second{stop: stop, ended: make(chan error, 1), config: &rest.Config{BearerToken: "admin", QPS: -1}}
	s.config.CAData = cert
	var runner component.Runner
	for range 5 { // a port that was free is not ours yet
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		s.config.Host = "https://127.0.0.1:" + strconv.Itoa(port)
		if runner, err = component.New(ctx, "kube-apiserver", apiserver.NewOptions(), append(flags, "--secure-port="+strconv.Itoa(port))); err == nil {
			break
		}
	}
	if err != nil {
		stop()
		t.Fatal(err)
	}
	go func() { s.ended <- runner.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-s.ended; err != nil {
			t.Errorf("the second server: %v", err)
		}
	})
	if s.Interface, err = kubernetes.NewForConfig(s.config); err != nil {
		t.Fatal(err)
	}
	last := ""
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	eventually(t, "the second server to be ready", func(ctx context.Context) bool {
		last = get(ctx, s, "/readyz?verbose")
		return strings.Contains(last, "readyz check passed")
	})
	return s
}

// get returns what is under a path, or the error.
func get(ctx context.Context, client kubernetes.Interface, path string) string {
	data, err := client.Discovery().RESTClient().Get().RequestURI(path).DoRaw(ctx)
	if err != nil {
		return "error: " + err.Error() + ": " + string(data)
	}
	return string(data)
}

// TestSeveralServers wants both servers behind the Service, until one of them stops, and
// the one that stops to say so before it does.
func TestSeveralServers(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--advertise-address=192.0.2.1"))
	client := c.Client(t)
	s := startSecond(t, c, t.TempDir(), "--advertise-address=192.0.2.2", "--shutdown-delay-duration=2s")
	eventually(t, "both servers are endpoints", servers(client, "192.0.2.1", "192.0.2.2"))
	// Both have the same name on one machine, by which they are known.
	leases, err := client.CoordinationV1().Leases("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: "apiserver.kubernetes.io/identity=kube-apiserver"})
	if err != nil || len(leases.Items) != 1 || !strings.HasPrefix(leases.Items[0].Name, "apiserver-") || *leases.Items[0].Spec.LeaseDurationSeconds != 3600 {
		t.Errorf("leases of servers %+v, %v", leases.Items, err)
	}
	if cm, err := s.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "kube-apiserver-legacy-service-account-token-tracking", metav1.GetOptions{}); err != nil {
		t.Error(err)
	} else if _, err := time.Parse(time.DateOnly, cm.Data["since"]); err != nil {
		t.Error(err)
	}

	s.stop()
	eventually(t, "the server is no longer ready", func(ctx context.Context) bool {
		return strings.Contains(get(ctx, s, "/readyz"), "[-]shutdown failed")
	})
	if got := get(t.Context(), s, "/livez"); got != "ok" {
		t.Errorf("/livez while the server waits for its clients to go: %s", got)
	}
	if _, err := s.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a request meanwhile: %v", err)
	}
	err = <-s.ended
	s.ended <- err
	eventually(t, "the first server alone is an endpoint", servers(client, "192.0.2.1"))
}

// servers reports whether the API servers' Service leads to these addresses.
func servers(client kubernetes.Interface, want ...string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		slice, err := client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			return false
		}
		var got []string
		for _, e := range slice.Endpoints {
			got = append(got, e.Addresses...)
		}
		return slices.Equal(got, want)
	}
}

// TestCountedServers wants servers without leases behind the Service, until they stop.
func TestCountedServers(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"))
	client := c.Client(t)
	start := func(address string) *second {
		return startSecond(t, c, t.TempDir(), "--advertise-address="+address, "--endpoint-reconciler-type=master-count", "--apiserver-count=2")
	}
	a, b := start("192.0.2.2"), start("192.0.2.3")
	eventually(t, "both servers are endpoints", servers(client, "192.0.2.2", "192.0.2.3"))
	b.stop()
	eventually(t, "the first of them alone is an endpoint", servers(client, "192.0.2.2"))
	a.stop()
	eventually(t, "there are no endpoints", servers(client))
}

// TestHealthAndMetrics wants the names that monitoring knows.
func TestHealthAndMetrics(t *testing.T) {
	client := testcluster.Start(t, testcluster.WithAPIServerFlags("--enable-logs-handler")).Client(t)
	for path, checks := range map[string]string{
		"/livez":   "ping log etcd poststarthook/start-system-namespaces-controller poststarthook/rbac/bootstrap-roles",
		"/healthz": "ping log etcd autoregister-completion poststarthook/bootstrap-controller poststarthook/scheduling/bootstrap-system-priority-classes",
		"/readyz": "ping log etcd etcd-readiness informer-sync shutdown poststarthook/generic-apiserver-start-informers poststarthook/priority-and-fairness-config-consumer " +
			"poststarthook/priority-and-fairness-config-producer poststarthook/start-cluster-authentication-info-controller poststarthook/start-kube-apiserver-identity-lease-controller " +
			"poststarthook/start-kube-apiserver-identity-lease-garbage-collector poststarthook/start-legacy-token-tracking-controller poststarthook/start-service-ip-repair-controllers " +
			"poststarthook/start-kubernetes-service-cidr-controller poststarthook/start-apiextensions-controllers poststarthook/crd-informer-synced poststarthook/storage-object-count-tracker-hook poststarthook/storage-readiness " +
			"poststarthook/start-kube-aggregator-informers poststarthook/apiservice-status-remote-available-controller",
	} {
		text := get(t.Context(), client, path+"?verbose")
		for _, check := range strings.Fields(checks) {
			if !strings.Contains(text, "[+]"+check+" ok") {
				t.Errorf("%s lacks %s", path, check)
			}
			if got := get(t.Context(), client, path+"/"+check); got != "ok" {
				t.Errorf("%s/%s: %s", path, check, got)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	}
	if got := get(t.Context(), client, "/readyz?exclude=etcd&verbose"); !strings.Contains(got, "[+]etcd excluded: ok") {
		t.Errorf("an excluded check: %s", got)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	all := metrics(t, client)
	for _, name := range strings.Fields(`
		apiserver_request_total apiserver_request_duration_seconds_bucket apiserver_request_sli_duration_seconds_bucket apiserver_response_sizes_bucket
		apiserver_current_inflight_requests apiserver_flowcontrol_dispatched_requests_total apiserver_flowcontrol_nominal_limit_seats apiserver_longrunning_requests
		apiserver_storage_objects apiserver_resource_objects apiserver_storage_size_bytes etcd_request_duration_seconds_bucket etcd_requests_total
		apiserver_cache_list_total apiserver_watch_cache_initializations_total apiserver_watch_events_total
		apiserver_admission_controller_admission_duration_seconds_bucket apiserver_admission_step_admission_duration_seconds_summary
		apiserver_audit_event_total apiserver_client_certificate_expiration_seconds_bucket
		authentication_attempts authenticated_user_requests authentication_duration_seconds_bucket authorization_attempts_total authorization_duration_seconds_bucket
		aggregator_unavailable_apiservice apiextensions_apiserver_validation_ratcheting_seconds_bucket
		kubernetes_build_info kubernetes_feature_enabled rest_client_requests_total workqueue_adds_total process_start_time_seconds go_goroutines`) {
		if !strings.Contains(all, "\n"+name+"{") && !strings.Contains(all, "\n"+name+" ") {
			t.Errorf("no metric %s", name)
		}
	}
	for path, want := range map[string]string{
		"/flagz": "enable-logs-handler", "/statusz": "1.37", "/": `"/logs"`, "/debug/pprof/goroutine?debug=1": "goroutine profile", "/metrics/slis": "kubernetes_healthcheck",
	} {
		if got := get(t.Context(), client, path); strings.HasPrefix(got, "error: ") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// TestNativeHistograms wants exponential buckets beside the others where nothing else is asked for.
func TestNativeHistograms(t *testing.T) {
	c := testcluster.Start(t)
	took := func(config *rest.Config) *dto.MetricFamily {
		transport, err := rest.TransportFor(config)
		if err != nil {
			t.Fatal(err)
		}
		families, err := testutil.ScrapeMetricsProto(config.Host+"/metrics", &http.Client{Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		return families["apiserver_request_duration_seconds"]
	}
	testutil.AssertHasNativeHistogram(t, took(c.Config), nil)
	if h := took(c.Config).Metric[0].Histogram; len(h.Bucket) == 0 {
		t.Errorf("no classic buckets: %v", h)
	}

	t.Cleanup(func() {
		if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{"NativeHistograms": true}); err != nil {
			t.Error(err)
		}
	})
	s := startSecond(t, c, t.TempDir(), "--feature-gates=NativeHistograms=false", "--endpoint-reconciler-type=none")
	if h := took(s.config).Metric[0].Histogram; h.Schema != nil || len(h.Bucket) == 0 {
		t.Errorf("a server without native histograms: %v", h)
	}
	testutil.AssertHasNativeHistogram(t, took(c.Config), nil)
	if got, err := s.Discovery().RESTClient().Delete().AbsPath("/metrics").DoRaw(t.Context()); err != nil || string(got) != "metrics reset\n" {
		t.Errorf("DELETE /metrics: %s, %v", got, err)
	}
}

// TestAuditWebhook wants the events of a policy's rules, and no others, at a webhook.
func TestAuditWebhook(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var events []auditv1.Event
	hook := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		events = append(events, list.Items...)
	}))
	defer hook.Close()
	policy := write(t, filepath.Join(dir, "policy.yaml"), `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver"]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, verbs: [create], resources: [{group: "", resources: [configmaps]}], namespaces: [default]}
`)
	client := testcluster.Start(t, testcluster.WithAPIServerFlags("--audit-policy-file="+policy, "--audit-webhook-mode=blocking",
		"--audit-webhook-config-file="+write(t, filepath.Join(dir, "kubeconfig"), kubeconfigOf(hook)))).Client(t)
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"k": "seen"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "unseen"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "c", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	mu.Lock()
	defer mu.Unlock()
	for _, e := range events {
		if e.User.Username != "admin" {
			continue
		}
		got = append(got, fmt.Sprintf("%s %s %s %s %d %t %t", e.Level, e.Stage, e.Verb, e.ObjectRef.Resource, e.ResponseStatus.Code, e.RequestObject != nil, e.ResponseObject != nil))
	}
	want := []string{"RequestResponse ResponseComplete create configmaps 201 true true", "Metadata ResponseComplete create secrets 201 false false"}
	if !slices.Equal(got, want) {
		t.Errorf("audit events %q, want %q", got, want)
	}
}

// vault is a KMS whose encryption anybody could undo.
type vault struct{}

func (vault) Status(context.Context) (*kmsservice.StatusResponse, error) {
	return &kmsservice.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "key-1"}, nil
}

func (vault) Encrypt(_ context.Context, _ string, data []byte) (*kmsservice.EncryptResponse, error) {
	return &kmsservice.EncryptResponse{Ciphertext: []byte(base64.StdEncoding.EncodeToString(data)), KeyID: "key-1"}, nil
}

func (vault) Decrypt(_ context.Context, _ string, r *kmsservice.DecryptRequest) ([]byte, error) {
	return base64.StdEncoding.DecodeString(string(r.Ciphertext))
}

// TestEncryption looks into etcd, for what is encrypted by a key, by a KMS, and not at all.
func TestEncryption(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "kms.sock")
	kms := kmsservice.NewGRPCService(socket, 10*time.Second, vault{})
	go func() { _ = kms.ListenAndServe() }()
	defer kms.Shutdown()
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))
	configuration := fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{secretbox: {keys: [{name: one, secret: %s}]}}, {identity: {}}]
- resources: [configmaps, widgets.example.com]
  providers: [{kms: {apiVersion: v2, name: vault, endpoint: "unix://%s"}}, {identity: {}}]
`, key, socket)
	config := write(t, filepath.Join(dir, "encryption.yaml"), configuration)
	defer func(d time.Duration) { encryptionconfigcontroller.EncryptionConfigFileChangePollDuration = d }(encryptionconfigcontroller.EncryptionConfigFileChangePollDuration)
	encryptionconfigcontroller.EncryptionConfigFileChangePollDuration = 100 * time.Millisecond
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--encryption-provider-config="+config, "--encryption-provider-config-automatic-reload"))
	client := c.Client(t)
	stored := func(path string) string {
		r, err := c.Etcd.Get(t.Context(), "/registry/"+path)
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%s: %d values, %v", path, len(r.Kvs), err)
		}
		return string(r.Kvs[0].Value)
	}
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "hidden"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"k": "hidden"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "plain"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for path, prefix := range map[string]string{
		"secrets/default/s": "k8s:enc:secretbox:v1:one:", "configmaps/default/c": "k8s:enc:kms:v2:vault:", "serviceaccounts/default/plain": "k8s\x00",
	} {
		if got := stored(path); !strings.HasPrefix(got, prefix) || strings.Contains(got, "hidden") {
			t.Errorf("%s is stored as %.60q", path, got)
		}
	}
	// From etcd, not from a cache.
	s := startSecond(t, c, t.TempDir(), "--encryption-provider-config="+config)
	if secret, err := s.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{}); err != nil || string(secret.Data["k"]) != "hidden" {
		t.Errorf("the secret: %v, %v", secret.Data, err)
	}
	if cm, err := s.CoreV1().ConfigMaps("default").Get(t.Context(), "c", metav1.GetOptions{}); err != nil || cm.Data["k"] != "hidden" {
		t.Errorf("the config map: %v, %v", cm.Data, err)
	}
	if got := get(t.Context(), client, "/healthz/kms-providers"); got != "ok" {
		t.Errorf("/healthz/kms-providers: %s", got)
	}

	write(t, config, strings.Replace(configuration, "keys: [", "keys: [{name: two, secret: "+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("l"), 32))+"}, ", 1))
	n := 0
	eventually(t, "another key is in use", func(ctx context.Context) bool {
		n++
		name := "s" + strconv.Itoa(n)
		_, err := client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err == nil && strings.HasPrefix(stored("secrets/default/"+name), "k8s:enc:secretbox:v1:two:")
	})
	if secret, err := client.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{}); err != nil || string(secret.Data["k"]) != "hidden" {
		t.Errorf("a secret by the old key: %v, %v", secret.Data, err)
	}
}

// TestCertificatesAreReadAgain exchanges the server's certificate while it runs.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	s := startSecond(t, testcluster.Start(t), dir, "--endpoint-reconciler-type=none")
	cert, key, err := component.SelfSigned("exchanged", net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "server.key"), string(key))
	write(t, filepath.Join(dir, "server.crt"), string(cert))
	address := strings.TrimPrefix(s.config.Host, "https://")
	eventually(t, "the new certificate is shown", func(context.Context) bool {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // whose it is, is what is asked
		if err != nil {
			return false
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName == "exchanged"
	})
}
