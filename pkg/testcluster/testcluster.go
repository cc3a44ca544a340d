// Package testcluster starts a control plane inside a Go test: an etcd and an API
// server, in this process, with everything that a real one checks, defaults and
// authorizes.
//
//	func TestMyController(t *testing.T) {
//		c := testcluster.Start(t)
//		client := kubernetes.NewForConfigOrDie(c.Config)
//		…
//	}
//
// Each call starts a cluster of its own, which ends with its test.
package testcluster

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/pkg/apiserver"
	"github.com/leme-k8s/leme/pkg/component"
)

// startTimeout is how long a cluster may take to start on a busy machine.
const startTimeout = time.Minute

// Cluster is a running control plane.
type Cluster struct {
	// Config is that of a client that may do everything.
	Config *rest.Config
	// Etcd reads what the API server has stored.
	Etcd *clientv3.Client
	// EtcdURL is where etcd listens.
	EtcdURL string
}

// Start starts a control plane and waits until it is ready. Flags are added to
// those of its kube-apiserver, whose authorization mode is RBAC.
func Start(t testing.TB, flags ...string) *Cluster {
	t.Helper()
	dir := t.TempDir()
	c := &Cluster{}
	c.startEtcd(t, filepath.Join(dir, "etcd"))
	c.startServer(t, dir, flags)
	return c
}

// Client returns a client that may do everything.
func (c *Cluster) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	return client
}

func (c *Cluster) startEtcd(t testing.TB, dir string) {
	t.Helper()
	client, peer := localURL(t), localURL(t)
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "panic" // it reports its own end as an error
	config.UnsafeNoFsync = true
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatalf("testcluster: starting etcd: %v", err)
	}
	t.Cleanup(etcd.Close)
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(startTimeout):
		t.Fatal("testcluster: etcd did not become ready")
	}
	c.EtcdURL = client.String()
	c.Etcd, err = clientv3.New(clientv3.Config{Endpoints: []string{c.EtcdURL}, DialTimeout: startTimeout})
	if err != nil {
		t.Fatalf("testcluster: etcd client: %v", err)
	}
	t.Cleanup(func() { c.Etcd.Close() })
}

func (c *Cluster) startServer(t testing.TB, dir string, flags []string) {
	t.Helper()
	p, err := newPKI(dir)
	if err != nil {
		t.Fatalf("testcluster: certificates: %v", err)
	}
	// A port that was free is not ours yet: try again when somebody was faster.
	var runner component.Runner
	var port int
	ctx, cancel := context.WithCancel(context.Background())
	for range 5 {
		port = freePort(t)
		args := append([]string{
			"--etcd-servers=" + c.EtcdURL,
			"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
			"--tls-cert-file=" + p.path("server.crt"), "--tls-private-key-file=" + p.path("server.key"),
			"--client-ca-file=" + p.path("ca.crt"),
			"--service-cluster-ip-range=10.96.0.0/16",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + p.path("sa.pub"), "--service-account-signing-key-file=" + p.path("sa.key"),
			"--authorization-mode=RBAC", "--allow-privileged=true",
		}, flags...)
		if runner, err = component.New(ctx, "kube-apiserver", apiserver.NewOptions(), args); err == nil {
			break
		}
	}
	if err != nil {
		cancel()
		t.Fatalf("testcluster: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("testcluster: kube-apiserver: %v", err)
		}
	})
	c.Config = &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", port),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: p.path("ca.crt"), CertFile: p.path("admin.crt"), KeyFile: p.path("admin.key"),
		},
		QPS: -1,
	}
	if err := c.waitReady(ended); err != nil {
		t.Fatalf("testcluster: %v", err)
	}
}

// waitReady waits for /readyz.
func (c *Cluster) waitReady(ended chan error) error {
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for {
		body, err := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(context.Background())
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kube-apiserver is not ready: %w: %s", err, body)
		}
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New("kube-apiserver ended"), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func localURL(t testing.TB) url.URL {
	return url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testcluster: looking for a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// pki is a directory with a CA and what it has signed.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func newPKI(dir string) (*pki, error) {
	p := &pki{dir: dir}
	if err := p.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}); err != nil {
		return nil, err
	}
	if err := p.issue("server", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, err
	}
	if err := p.issue("admin", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, err
	}
	key, err := p.newKey("sa")
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.path("sa.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

func (p *pki) newKey(name string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(p.path(name+".key"), data, 0o600)
}

// issue writes a key and a certificate of it; the first one is the CA.
func (p *pki) issue(name string, template *x509.Certificate) error {
	key, err := p.newKey(name)
	if err != nil {
		return err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if p.cert == nil {
		p.cert, p.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key)
	if err != nil {
		return err
	}
	if name == "ca" {
		if p.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	return os.WriteFile(p.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
