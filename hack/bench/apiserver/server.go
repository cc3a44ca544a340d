package main

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
	"time"

	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// server is an API server and its etcd, each in a process of its own.
type server struct {
	name   string
	config *clientrest.Config
	dir    string
	api    *exec.Cmd
	etcd   *exec.Cmd
}

func startServer(ctx context.Context, name, path string) (_ *server, err error) {
	s := &server{name: name}
	if s.dir, err = os.MkdirTemp("", "leme-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if err := s.makeCertificates(); err != nil {
		return nil, err
	}
	etcdPort, peerPort, port := freePort(), freePort(), freePort()
	etcdURL, peerURL := fmt.Sprintf("http://127.0.0.1:%d", etcdPort), fmt.Sprintf("http://127.0.0.1:%d", peerPort)
	if s.etcd, err = s.start(ctx, filepath.Join(*bench.Bin, "runtime", "etcd"), "--data-dir="+filepath.Join(s.dir, "data"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL, "--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL, "--quota-backend-bytes=8589934592"); err != nil {
		return nil, err
	}
	if s.api, err = s.start(ctx, path, "--etcd-servers="+etcdURL, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file="+s.file("server.crt"), "--tls-private-key-file="+s.file("server.key"), "--client-ca-file="+s.file("ca.crt"),
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC",
		"--service-account-key-file="+s.file("ca.key"), "--service-account-signing-key-file="+s.file("ca.key"),
		"--disable-admission-plugins=ServiceAccount"); err != nil {
		return nil, err
	}
	s.config = &clientrest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", port), QPS: -1, TLSClientConfig: clientrest.TLSClientConfig{
		CAFile: s.file("ca.crt"), CertFile: s.file("admin.crt"), KeyFile: s.file("admin.key"),
	}}
	return s, s.awaitReady(ctx)
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

// start starts a program whose output goes to a file.
func (s *server) start(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(s.file(filepath.Base(path) + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// stop ends both and removes their data.
func (s *server) stop() error {
	for _, cmd := range []*exec.Cmd{s.api, s.etcd} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Kill() // nothing of it is kept
			_ = cmd.Wait()
		}
	}
	return os.RemoveAll(s.dir)
}

func (s *server) awaitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(3 * time.Minute); ; {
		err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(s.file("kube-apiserver.log"))
			return fmt.Errorf("not ready: %w\n%s", err, log[max(0, len(log)-2000):])
		}
		if err := bench.Pause(ctx); err != nil {
			return err
		}
	}
}

// usage is what the API server's process has used and uses.
func (s *server) usage() (bench.Usage, error) { return bench.ProcessUsage(s.api.Process.Pid) }

// profile takes a processor profile of the API server while f runs.
func (s *server) profile(ctx context.Context, name string, f func() error) error {
	if *profiles == "" {
		return f()
	}
	hc, err := clientrest.HTTPClientFor(s.config)
	if err != nil {
		return err
	}
	taken := make(chan error, 1)
	go func() {
		taken <- func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.Host+"/debug/pprof/profile?seconds=5", nil)
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
			return os.WriteFile(filepath.Join(*profiles, s.name+"-"+name+".pprof"), data, 0o600)
		}()
	}()
	return errors.Join(f(), <-taken)
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // a machine without a loopback interface
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// makeCertificates writes a CA, and what it has signed for the server and an administrator.
func (s *server) makeCertificates() error {
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
		if err := errors.Join(os.WriteFile(s.file(c.name+".key"), keyPEM, 0o600),
			os.WriteFile(s.file(c.name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)); err != nil {
			return err
		}
	}
	return nil
}
