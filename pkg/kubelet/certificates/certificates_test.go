package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

func TestSelfSigned(t *testing.T) {
	cfg := ServingConfig{Dir: filepath.Join(t.TempDir(), "pki"), HostName: "node", IPs: []net.IP{net.ParseIP("10.0.0.1")}}
	leaf := func() *x509.Certificate {
		t.Helper()
		s, err := NewServing(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := leaf()
	for _, name := range []string{"node", "10.0.0.1"} {
		if err := first.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if again := leaf(); !again.Equal(first) {
		t.Error("a certificate that is good was replaced")
	}
	info, err := os.Stat(filepath.Join(cfg.Dir, "kubelet.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	if err := selfSign(filepath.Join(cfg.Dir, "kubelet.crt"), filepath.Join(cfg.Dir, "kubelet.key"), "node", nil, time.Now().Add(-2*selfSigned)); err != nil {
		t.Fatal(err)
	}
	if again := leaf(); time.Now().After(again.NotAfter) {
		t.Error("an expired certificate is served")
	}
	for _, bad := range []ServingConfig{{CertFile: "/no/such"}, {CertFile: "/no/such", KeyFile: "/no/such"}} {
		if _, err := NewServing(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "tlsCertFile") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestServingTemplate(t *testing.T) {
	if servingTemplate("n", nil) != nil {
		t.Error("asked for a certificate for no address")
	}
	got := servingTemplate("n", []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalDNS, Address: "n"}})
	if got.Subject.CommonName != "system:node:n" || len(got.DNSNames) != 1 || len(got.IPAddresses) != 1 {
		t.Errorf("%+v", got)
	}
}

// authority signs what it is asked to sign.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

func (a *authority) sign(t *testing.T, request []byte, until time.Time) []byte {
	t.Helper()
	block, _ := pem.Decode(request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestServingFromCluster gets a serving certificate signed.
func TestServingFromCluster(t *testing.T) {
	ca := newAuthority(t)
	client := fake.NewClientset()
	// The object tracker has no signer: every request is signed as it is created.
	client.PrependReactor("create", "certificatesigningrequests", func(action clienttesting.Action) (bool, runtime.Object, error) {
		csr := action.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		csr.Name, csr.UID = "csr-1", "uid"
		csr.Status.Certificate = ca.sign(t, csr.Spec.Request, time.Now().Add(time.Hour))
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := NewServing(ctx, ServingConfig{Bootstrap: true, Dir: t.TempDir(), NodeName: "n", Client: client,
		Addresses: func() []corev1.NodeAddress {
			return []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}
		}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(nil); err == nil {
		t.Error("there is a certificate before one was signed")
	}
	registry := metrictest.New(s)
	registry.Expect(t, map[string]float64{servingTTL: math.Inf(1), "kubelet_server_expiration_renew_errors": 0, "kubelet_certificate_manager_server_rotation_seconds": 0})
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	var got *tls.Certificate
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		got, err = s.Get(nil)
		return err == nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := got.Leaf.VerifyHostname("10.0.0.1"); err != nil {
		t.Error(err)
	}
	if left := registry.Read(t)[servingTTL]; left <= 0 || left > 3600 {
		t.Errorf("good for %v s", left)
	}
	cancel()
	<-ended
}

// apiServer serves just enough of the certificates API over HTTP.
func apiServer(t *testing.T, ca *authority) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	var stored *certificatesv1.CertificateSigningRequest
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodPost:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
			csr, ok := obj.(*certificatesv1.CertificateSigningRequest)
			if !ok {
				t.Errorf("%T, %v", obj, err)
				return
			}
			csr.UID = "uid"
			csr.TypeMeta = metav1.TypeMeta{Kind: "CertificateSigningRequest", APIVersion: "certificates.k8s.io/v1"}
			csr.ResourceVersion = "1"
			csr.Status.Certificate = ca.sign(t, csr.Spec.Request, time.Now().Add(time.Hour))
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
			stored = csr
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(csr)
		case r.URL.Query().Get("watch") != "":
			b, _ := json.Marshal(stored)
			_ = json.NewEncoder(w).Encode(metav1.WatchEvent{Type: string(watch.Added), Object: runtime.RawExtension{Raw: b}})
			// Who watches from the beginning is told where that ends.
			b, _ = json.Marshal(&certificatesv1.CertificateSigningRequest{TypeMeta: stored.TypeMeta,
				ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}})
			_ = json.NewEncoder(w).Encode(metav1.WatchEvent{Type: string(watch.Bookmark), Object: runtime.RawExtension{Raw: b}})
		default:
			_ = json.NewEncoder(w).Encode(&certificatesv1.CertificateSigningRequestList{ListMeta: metav1.ListMeta{ResourceVersion: "1"},
				TypeMeta: metav1.TypeMeta{Kind: "CertificateSigningRequestList", APIVersion: "certificates.k8s.io/v1"}, Items: []certificatesv1.CertificateSigningRequest{*stored}})
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestBootstrap(t *testing.T) {
	ca := newAuthority(t)
	srv := apiServer(t, ca)
	dir := t.TempDir()
	bootstrap := filepath.Join(dir, "bootstrap.kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: srv.URL,
			CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {Token: "abcdef.0123456789abcdef"}},
		Contexts:  map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "x"}, bootstrap); err != nil {
		t.Fatal(err)
	}
	cfg := ClientConfig{Kubeconfig: filepath.Join(dir, "kubeconfig"), BootstrapKubeconfig: bootstrap, Dir: filepath.Join(dir, "pki"), NodeName: "n", Rotate: true}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	patient, done := context.WithTimeout(t.Context(), 10*time.Second)
	defer done()
	if err := Bootstrap(patient, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "kubelet-client.key.tmp")); !os.IsNotExist(err) {
		t.Error("the pending key is still there")
	}
	c, err := NewClient(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(cfg.Dir, "kubelet-client-current.pem")
	if c.Config.CertFile != current || c.Config.KeyFile != current || c.Config.BearerToken != "" || c.Config.Host != srv.URL {
		t.Errorf("%s %s %s", c.Config.CertFile, c.Config.KeyFile, c.Config.Host)
	}
	told := metrictest.New(c).Read(t)
	if left, ok := told[clientTTL]; !ok || left <= 0 || left > 3600 || told["kubelet_certificate_manager_client_expiration_renew_errors"] != 0 {
		t.Errorf("of the client's certificate there is told %v", told)
	}
	pair, err := tls.LoadX509KeyPair(current, current)
	if err != nil || pair.Leaf.Subject.CommonName != "system:node:n" || pair.Leaf.Subject.Organization[0] != "system:nodes" {
		t.Errorf("%v, %v", pair.Leaf.Subject, err)
	}
	// It is not done again while the certificate is good, and is when it is not.
	srv.Close()
	if err := Bootstrap(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if err := usableKubeconfig(cfg.Kubeconfig, time.Now().Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its time: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	cfg.Kubeconfig = filepath.Join(dir, "other")
	if err := Bootstrap(short, cfg); err == nil || !strings.Contains(err.Error(), "--bootstrap-kubeconfig") {
		t.Errorf("without an API server: %v", err)
	}
}

func TestClientAdoptsInlineCertificate(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: nodeSubject("n")}, key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := ca.sign(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), time.Now().Add(time.Hour))
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:  map[string]*clientcmdapi.Cluster{"c": {Server: "https://127.0.0.1:1"}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificateData: certPEM, ClientKeyData: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})}},
		Contexts:  map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "x"}, file); err != nil {
		t.Fatal(err)
	}
	for _, rotate := range []bool{false, true, true} {
		c, err := NewClient(t.Context(), ClientConfig{Kubeconfig: file, Dir: dir, NodeName: "n", Rotate: rotate})
		if err != nil {
			t.Fatal(err)
		}
		if rotate != (c.Config.CertFile == filepath.Join(dir, "kubelet-client-current.pem")) || rotate != (len(c.Config.CertData) == 0) {
			t.Errorf("rotate %v: file %q", rotate, c.Config.CertFile)
		}
	}
}
