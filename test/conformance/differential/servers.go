package main

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
	// token is that of a client that may do everything.
	token = "differential"
	// startTimeout is how long a server may take to start on a busy machine.
	startTimeout = 2 * time.Minute
)

// server is a running kube-apiserver.
type server struct {
	name   string // in reports
	port   string
	client *http.Client
	etcd   string // URL
}

func (s *server) url(path string) string { return "https://127.0.0.1:" + s.port + path }

// processes are what a run has started.
type processes struct {
	dir     string // for keys, data and logs
	running []*exec.Cmd
}

// start starts a program that is ended with the run, its output in a file.
func (p *processes) start(name, binary string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
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

// stop ends them all, the last one first.
func (p *processes) stop() {
	for len(p.running) > 0 {
		cmd := p.running[len(p.running)-1]
		p.running = p.running[:len(p.running)-1]
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// startEtcd starts an etcd and returns its URL.
func (p *processes) startEtcd(name, binary string) (string, error) {
	client, err := freePort()
	if err != nil {
		return "", err
	}
	peer, err := freePort()
	if err != nil {
		return "", err
	}
	url, peerURL := "http://127.0.0.1:"+client, "http://127.0.0.1:"+peer
	_, err = p.start(name, binary, "--data-dir="+filepath.Join(p.dir, name), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	return url, err
}

// startServer starts a kube-apiserver and waits until it is ready.
func (p *processes) startServer(ctx context.Context, name, binary, etcd string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(p.dir, name) }
	_, err = p.start(name, binary,
		"--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+port, "--advertise-address=192.0.2.1",
		"--tls-cert-file="+file("server.crt"), "--tls-private-key-file="+file("server.key"),
		"--client-ca-file="+file("server.crt"), "--token-auth-file="+file("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+file("sa.key"), "--service-account-signing-key-file="+file("sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--enable-admission-plugins=NodeRestriction")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, port: port, etcd: etcd, client: &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: workers, // the process that was just started
		},
	}}
	return s, s.waitReady(ctx)
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		answer, err := s.send(ctx, Request{Method: http.MethodGet, Path: "/readyz?verbose"})
		if err == nil && answer.Code == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s is not ready; see its log", s.name), err, errors.New(string(answer.Raw)))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// writeKeys writes what the servers are given: a certificate and its key, a key for
// the tokens of service accounts, and the token of the client.
func writeKeys(dir string) error {
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(signer)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"server.crt": certificate,
		"server.key": key,
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: keyutil.ECPrivateKeyBlockType, Bytes: der}),
		"tokens.csv": []byte(token + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// readAll reads a body up to a size that no honest answer has.
func readAll(r io.Reader) ([]byte, error) {
	const limit = 64 << 20
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && len(data) > limit {
		err = errors.New("the answer is larger than 64 MiB")
	}
	return data, err
}
