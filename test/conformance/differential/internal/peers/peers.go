// Package peers starts what is compared, and what that needs: etcd, kube-apiserver and
// other programs, with keys of their own.
package peers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const (
	// Token is that of a client that may do everything.
	Token = "differential"
	// startTimeout is how long a server may take to start on a busy machine.
	startTimeout = 2 * time.Minute
	// connections is how many a client keeps to one server.
	connections = 64
)

// Server is a running kube-apiserver.
type Server struct {
	Name   string // in reports
	Port   string
	Client *http.Client
	Etcd   string // URL
}

// URL returns the address of a path.
func (s *Server) URL(path string) string { return "https://127.0.0.1:" + s.Port + path }

// Processes are what a run has started.
type Processes struct {
	dir     string // for keys, data and logs
	running []*exec.Cmd
}

// New makes a directory for keys, data and logs below the given one, and the keys in it.
func New(below string) (*Processes, error) {
	if err := os.MkdirAll(below, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(below, "run-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return &Processes{dir: dir}, writeKeys(dir)
}

// Path returns the path of a file of the run: ca.crt, ca.key, server.crt, server.key,
// sa.key, or one that the caller makes.
func (p *Processes) Path(name string) string { return filepath.Join(p.dir, name) }

// Remove removes the directory.
func (p *Processes) Remove() error { return os.RemoveAll(p.dir) }

// Start starts a program that is ended with the run, its output in a file.
func (p *Processes) Start(name, binary string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(p.Path(name + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.running = append(p.running, cmd)
	return cmd, nil
}

// Stop ends them all, the last one first.
func (p *Processes) Stop() {
	for len(p.running) > 0 {
		cmd := p.running[len(p.running)-1]
		p.running = p.running[:len(p.running)-1]
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// StartEtcd starts an etcd and returns its URL.
func (p *Processes) StartEtcd(name, binary string) (string, error) {
	client, err := freePort()
	if err != nil {
		return "", err
	}
	peer, err := freePort()
	if err != nil {
		return "", err
	}
	url, peerURL := "http://127.0.0.1:"+client, "http://127.0.0.1:"+peer
	_, err = p.Start(name, binary, "--data-dir="+p.Path(name), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	return url, err
}

// StartServer starts a kube-apiserver, with further flags, and waits until it is ready.
func (p *Processes) StartServer(ctx context.Context, name, binary, etcd string, flags ...string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	_, err = p.Start(name, binary, append([]string{
		"--etcd-servers=" + etcd, "--bind-address=127.0.0.1", "--secure-port=" + port, "--advertise-address=192.0.2.1",
		"--tls-cert-file=" + p.Path("server.crt"), "--tls-private-key-file=" + p.Path("server.key"),
		"--client-ca-file=" + p.Path("ca.crt"), "--token-auth-file=" + p.Path("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.Path("sa.key"), "--service-account-signing-key-file=" + p.Path("sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--enable-admission-plugins=NodeRestriction",
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	s := &Server{Name: name, Port: port, Etcd: etcd, Client: &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: connections, // the process that was just started
		},
	}}
	return s, s.waitReady(ctx)
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		body, err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s is not ready; see its log", s.Name), err, errors.New(body))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Server) ready(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL("/readyz?verbose"), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+Token)
	resp, err := s.Client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// writeKeys writes what the servers are given: a certificate and its key, one that
// signs, a key for the tokens of service accounts, and the token of the client.
func writeKeys(dir string) error {
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return err
	}
	signer, signerPEM, err := newKey()
	if err != nil {
		return err
	}
	ca, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "kubernetes"}, signer)
	if err != nil {
		return err
	}
	_, accounts, err := newKey()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"server.crt": certificate,
		"server.key": key,
		"ca.crt":     pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: ca.Raw}),
		"ca.key":     signerPEM,
		"sa.key":     accounts,
		"tokens.csv": []byte(Token + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	return key, pem.EncodeToMemory(&pem.Block{Type: keyutil.ECPrivateKeyBlockType, Bytes: der}), err
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}
