package certificates

import (
	"context"
	"crypto"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// ClientConfig says how the kubelet is known to the API server.
type ClientConfig struct {
	// Kubeconfig is the kubelet's own (--kubeconfig). If it is missing or its
	// certificate has expired, Bootstrap writes it.
	Kubeconfig string
	// BootstrapKubeconfig has credentials that are good for asking for others (--bootstrap-kubeconfig).
	BootstrapKubeconfig string
	// Dir is where certificates are kept (--cert-dir).
	Dir      string
	NodeName string
	// Rotate renews the certificate before it expires (rotateCertificates).
	Rotate bool
}

// pairName is the original's name for the files of the client certificate.
const pairName = "kubelet-client"

// Bootstrap makes sure that the kubelet has a kubeconfig of its own: if it has none
// that works, it asks the API server for a certificate, waits until that is signed,
// and writes one. It tries until ctx is done.
func Bootstrap(ctx context.Context, cfg ClientConfig) error {
	if cfg.BootstrapKubeconfig == "" {
		return nil
	}
	logger := klog.FromContext(ctx)
	if err := usableKubeconfig(cfg.Kubeconfig, time.Now()); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		logger.Info("Getting a new client certificate", "because", err.Error())
	}
	bootstrap, err := load(cfg.BootstrapKubeconfig)
	if err != nil {
		return fmt.Errorf("--bootstrap-kubeconfig: %w", err)
	}
	for {
		err := bootstrapOnce(ctx, cfg, bootstrap)
		if err == nil {
			return nil
		}
		logger.Info("Could not get a client certificate, trying again", "err", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("--bootstrap-kubeconfig: %w", err)
		case <-time.After(time.Second):
		}
	}
}

func bootstrapOnce(ctx context.Context, cfg ClientConfig, bootstrap *rest.Config) error {
	client, err := kubernetes.NewForConfig(bootstrap)
	if err != nil {
		return err
	}
	// The key outlives an interrupted attempt, so that the request that somebody may
	// have approved meanwhile is found again.
	pending := filepath.Join(cfg.Dir, pairName+".key.tmp")
	keyPEM, _, err := keyutil.LoadOrGenerateKeyFile(pending)
	if err != nil {
		return err
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", pending, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%s: no key that can sign", pending)
	}
	subject := nodeSubject(cfg.NodeName)
	request, err := cert.MakeCSR(key, &subject, nil, nil)
	if err != nil {
		return err
	}
	name, err := requestName(key.Public(), cfg.NodeName)
	if err != nil {
		return err
	}
	reqName, reqUID, err := csr.RequestCertificateWithContext(ctx, client, request, name, certificatesv1.KubeAPIServerClientKubeletSignerName, nil,
		certificate.DefaultKubeletClientGetUsages(parsed), key)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	klog.FromContext(ctx).Info("Waiting for the client certificate to be signed", "csr", reqName)
	certPEM, err := csr.WaitForCertificate(waiting, client, reqName, reqUID)
	if err != nil {
		if !wait.Interrupted(err) { // denied or failed: ask for another, with another key
			err = errors.Join(err, os.Remove(pending))
		}
		return err
	}
	store, err := certificate.NewFileStoreWithLogger(klog.FromContext(ctx).V(3), pairName, cfg.Dir, cfg.Dir, "", "")
	if err != nil {
		return err
	}
	if _, err := store.Update(certPEM, keyPEM); err != nil {
		return err
	}
	if err := writeKubeconfig(cfg.Kubeconfig, bootstrap, store.CurrentPath()); err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	return os.Remove(pending)
}

// requestName is the same for the same key and node.
func requestName(public crypto.PublicKey, node string) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha512.Sum512_256(append(der, node...))
	return "node-csr-" + base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func load(file string) (*rest.Config, error) {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: file}, nil).ClientConfig()
}

func usableKubeconfig(file string, now time.Time) error {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	cfg, err := load(file)
	if err != nil {
		return err
	}
	certPEM := cfg.CertData
	if len(certPEM) == 0 && cfg.CertFile != "" {
		if certPEM, err = os.ReadFile(cfg.CertFile); err != nil {
			return fmt.Errorf("the client certificate of %s: %w", file, err)
		}
	}
	if len(certPEM) == 0 {
		return nil // it has another way to say who it is
	}
	certs, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return fmt.Errorf("the client certificate of %s: %w", file, err)
	}
	if now.After(certs[0].NotAfter) {
		return fmt.Errorf("the client certificate of %s expired at %s", file, certs[0].NotAfter)
	}
	return nil
}

func writeKubeconfig(file string, from *rest.Config, pem string) error {
	ca := from.CAData
	if len(ca) == 0 && from.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(from.CAFile); err != nil {
			return err
		}
	}
	const cluster, user, context = "default-cluster", "default-auth", "default-context"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{cluster: {Server: from.Host, InsecureSkipTLSVerify: from.Insecure,
			CertificateAuthorityData: ca, TLSServerName: from.ServerName, DisableCompression: from.DisableCompression}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {ClientCertificate: pem, ClientKey: pem}},
		Contexts:       map[string]*clientcmdapi.Context{context: {Cluster: cluster, AuthInfo: user, Namespace: "default"}},
		CurrentContext: context,
	}, file)
}

// Client is the kubelet's way to the API server.
type Client struct {
	// Config stays valid when the certificate is renewed: client-go reads the file
	// again and closes connections made with the old one.
	Config *rest.Config

	manager certificate.Manager
	failed  *metrics.Counter // attempts to renew it
}

// NewClient loads the kubelet's kubeconfig, which Bootstrap may have written.
func NewClient(ctx context.Context, cfg ClientConfig) (*Client, error) {
	c, err := load(cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if !cfg.Rotate || len(c.CertData) == 0 && c.CertFile == "" {
		return &Client{Config: c}, nil // nothing to rotate without a certificate
	}
	store, err := certificate.NewFileStoreWithLogger(klog.FromContext(ctx).V(3), pairName, cfg.Dir, cfg.Dir, c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("--cert-dir: %w", err)
	}
	if err := adopt(store, c); err != nil {
		return nil, fmt.Errorf("rotateCertificates: %w", err)
	}
	failed := newClientErrors()
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn:      func(*tls.Certificate) (kubernetes.Interface, error) { return kubernetes.NewForConfig(c) },
		Template:         &x509.CertificateRequest{Subject: nodeSubject(cfg.NodeName)},
		SignerName:       certificatesv1.KubeAPIServerClientKubeletSignerName,
		GetUsages:        certificate.DefaultKubeletClientGetUsages,
		CertificateStore: store,
		Ctx:              &ctx,

		CertificateRenewFailure: failed,
	})
	if err != nil {
		return nil, fmt.Errorf("rotateCertificates: %w", err)
	}
	return &Client{Config: c, manager: manager, failed: failed}, nil
}

// adopt makes the store's current file the one that the configuration reads, with
// the configuration's certificate in it if it had none that is newer.
func adopt(store certificate.FileStore, c *rest.Config) error {
	current, err := os.ReadFile(store.CurrentPath())
	if err == nil && newer(current, c) {
		c.CertFile, c.KeyFile, c.CertData, c.KeyData = store.CurrentPath(), store.CurrentPath(), nil, nil
		return nil
	}
	if c.CertFile == store.CurrentPath() {
		return nil
	}
	if err := rest.LoadTLSFiles(c); err != nil {
		return err
	}
	if _, err := store.Update(c.CertData, c.KeyData); err != nil {
		return err
	}
	c.CertFile, c.KeyFile, c.CertData, c.KeyData = store.CurrentPath(), store.CurrentPath(), nil, nil
	return nil
}

// newer says whether a certificate expires later than the configuration's, or whether that cannot be read.
func newer(pem []byte, c *rest.Config) bool {
	mine, err := cert.ParseCertsPEM(pem)
	if err != nil {
		return false
	}
	other := c.CertData
	if len(other) == 0 {
		if other, err = os.ReadFile(c.CertFile); err != nil {
			return true
		}
	}
	theirs, err := cert.ParseCertsPEM(other)
	return err != nil || !mine[0].NotAfter.Before(theirs[0].NotAfter)
}

// Run renews the certificate in time until ctx is done.
func (c *Client) Run(ctx context.Context) {
	if c.manager != nil {
		c.manager.Start()
		defer c.manager.Stop()
	}
	<-ctx.Done()
}
