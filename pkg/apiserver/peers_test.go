package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestPeers wants a server that does not serve a version to pass requests for it on to one that does, in the
// name of who sent them.
func TestPeers(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.SetHostnameFuncForTests(host) }) // from which servers have their IDs

	dir := t.TempDir()
	certFile, keyFile := peerCertificate(t, dir)
	flags := []string{
		"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile,
		"--proxy-client-cert-file=" + certFile, "--proxy-client-key-file=" + keyFile,
		"--requestheader-client-ca-file=" + certFile, "--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--peer-ca-file=" + certFile, "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
	}
	c := testcluster.Start(t)
	start := func(name string, more ...string) *second {
		server.SetHostnameFuncForTests(name)
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		return startSecond(t, c, d, slices.Concat(flags, more)...)
	}
	newer := start("newer")
	older := start("older", "--runtime-config=apps/v1=false")

	var address string
	eventually(t, "the lease of the newer server to say where it is", func(ctx context.Context) bool {
		leases, err := older.CoordinationV1().Leases("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/hostname"})
		if err != nil {
			return false
		}
		for _, l := range leases.Items {
			address = l.Annotations[corev1.AnnotationPeerAdvertiseAddress]
			if "https://"+address == newer.config.Host {
				return true
			}
		}
		return false
	})
	var last string
	eventually(t, "the older server to pass on requests", func(ctx context.Context) bool {
		last = get(ctx, older, "/apis/apps/v1/namespaces/default/deployments")
		return strings.Contains(last, `"DeploymentList"`)
	})
	if _, err := older.AppsV1().Deployments("default").Get(t.Context(), "none", metav1.GetOptions{}); err == nil || !strings.Contains(err.Error(), `deployments.apps "none" not found`) {
		t.Errorf("a Deployment that there is not: %v", err)
	}
	if got := get(t.Context(), older, "/apis/nothing.example.com/v1/things"); !strings.Contains(got, "could not find the requested resource") {
		t.Errorf("what nobody serves: %s", got)
	}
	for _, check := range []string{"peer-endpoint-reconciler-controller", "mixed-version-proxy-handler", "local-discovery-cache-sync", "peer-discovery-workers"} {
		if got := get(t.Context(), older, "/readyz/poststarthook/"+check); got != "ok" {
			t.Errorf("%s: %s", check, got)
		}
	}
}

// peerCertificate writes a certificate for servers and clients, which is its own CA.
func peerCertificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, DNSNames: []string{"kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "peer.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, filepath.Join(dir, "peer.key"), string(text))
}
