package bench

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
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"
)

// Server is an API server and its etcd, each in a process of its own.
type Server struct {
	// Config reaches it as an administrator, without a limit.
	Config *clientrest.Config
	// Process is the API server's.
	Process *os.Process

	dir     string
	started []*exec.Cmd
}

// StartServer starts the API server at path, with more arguments than it needs anyway.
func StartServer(ctx context.Context, path string, args ...string) (_ *Server, err error) {
	s := &Server{}
	if s.dir, err = os.MkdirTemp("", "leme-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.makeCertificates(); err != nil {
		return nil, err
	}
	etcdPort, peerPort, port := FreePort(), FreePort(), FreePort()
	etcdURL, peerURL := fmt.Sprintf("http://127.0.0.1:%d", etcdPort), fmt.Sprintf("http://127.0.0.1:%d", peerPort)
	if _, err = s.Start(ctx, filepath.Join(*Bin, "runtime", "etcd"), "--data-dir="+filepath.Join(s.dir, "data"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL, "--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL, "--quota-backend-bytes=8589934592"); err != nil {
		return nil, err
	}
	if s.Process, err = s.Start(ctx, path, append([]string{"--etcd-servers=" + etcdURL, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + s.File("server.crt"), "--tls-private-key-file=" + s.File("server.key"), "--client-ca-file=" + s.File("ca.crt"),
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC",
		"--service-account-key-file=" + s.File("ca.key"), "--service-account-signing-key-file=" + s.File("ca.key"),
		"--disable-admission-plugins=ServiceAccount"}, args...)...); err != nil {
		return nil, err
	}
	s.Config = &clientrest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", port), QPS: -1, TLSClientConfig: clientrest.TLSClientConfig{
		CAFile: s.File("ca.crt"), CertFile: s.File("admin.crt"), KeyFile: s.File("admin.key"),
	}}
	return s, s.awaitReady(ctx, path)
}

// File returns where a file of the server is: its certificates, and its processes' logs.
func (s *Server) File(name string) string { return filepath.Join(s.dir, name) }

// Start starts a program whose output goes to a file, and which ends with the server.
func (s *Server) Start(ctx context.Context, path string, args ...string) (*os.Process, error) {
	log, err := os.Create(s.File(filepath.Base(path) + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.started = append(s.started, cmd)
	return cmd.Process, nil
}

// Kubeconfig writes a file that reaches the server as an administrator.
func (s *Server) Kubeconfig() (string, error) {
	tls, file := s.Config.TLSClientConfig, s.File("kubeconfig")
	return file, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: s.Config.Host, CertificateAuthority: tls.CAFile}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificate: tls.CertFile, ClientKey: tls.KeyFile}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, file)
}

// StartComponent starts a component that reports on itself on a port of its own, which the returned config reaches.
func (s *Server) StartComponent(ctx context.Context, path, kubeconfig string, args ...string) (*os.Process, *clientrest.Config, error) {
	port := FreePort()
	process, err := s.Start(ctx, path, append([]string{"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--tls-cert-file=" + s.File("server.crt"), "--tls-private-key-file=" + s.File("server.key")}, args...)...)
	config := clientrest.CopyConfig(s.Config)
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", port)
	return process, config, err
}

// Stop ends what was started, last first, and removes its data.
func (s *Server) Stop() error {
	for _, cmd := range slices.Backward(s.started) {
		_ = cmd.Process.Kill() // nothing of it is kept
		_ = cmd.Wait()
	}
	return os.RemoveAll(s.dir)
}

// LogOf returns the end of what a program has written.
func (s *Server) LogOf(path string) string {
	log, err := os.ReadFile(s.File(filepath.Base(path) + ".log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-2000):])
}

func (s *Server) awaitReady(ctx context.Context, path string) error {
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(3 * time.Minute); ; {
		err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready: %w\n%s", err, s.LogOf(path))
		}
		if err := Pause(ctx); err != nil {
			return err
		}
	}
}

// Profile takes a processor profile of a component, which config reaches, into a file while f runs.
func Profile(ctx context.Context, config *clientrest.Config, file string, f func() error) error {
	taken := make(chan error, 1)
	go func() { taken <- fetch(ctx, config, "/debug/pprof/profile?seconds=5", file) }()
	return errors.Join(f(), <-taken)
}

// HeapProfile takes a profile of what is in use on the heap of a component, which config reaches, into a file.
func HeapProfile(ctx context.Context, config *clientrest.Config, file string) error {
	return fetch(ctx, config, "/debug/pprof/heap?gc=1", file)
}

// fetch writes what a component answers into a file.
func fetch(ctx context.Context, config *clientrest.Config, path, file string) error {
	hc, err := clientrest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// FreePort returns a port of this machine that nobody listens on.
func FreePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // a machine without a loopback interface
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// makeCertificates writes a CA, and what it has signed for the server and an administrator.
func (s *Server) makeCertificates() error {
	var ca *x509.Certificate
	var caKey crypto.Signer
	for i, c := range []struct {
		name     string
		template x509.Certificate
	}{
		{"ca", x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}},
		{"server", x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}},
		{"admin", x509.Certificate{
			Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := c.template
		template.SerialNumber = big.NewInt(int64(i + 1))
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		if ca == nil {
			ca, caKey = &template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, &template, ca, key.Public(), caKey)
		if err != nil {
			return err
		}
		if i == 0 {
			if ca, err = x509.ParseCertificate(der); err != nil {
				return err
			}
		}
		keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(s.File(c.name+".key"), keyPEM, 0o600),
			os.WriteFile(s.File(c.name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)); err != nil {
			return err
		}
	}
	return nil
}
