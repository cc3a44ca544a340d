// Package certificates gets and renews the kubelet's certificates: the one it serves
// with, and the one by which the API server knows it.
//
// Files are the original's, in --cert-dir: kubelet.crt and kubelet.key (made here),
// kubelet-server-current.pem (signed by the cluster, serverTLSBootstrap) and
// kubelet-client-current.pem (signed by the cluster, renewed if rotateCertificates).
package certificates

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"
)

// ServingConfig says where the serving certificate is from.
type ServingConfig struct {
	// CertFile and KeyFile, if given, are used as they are and read again when they change.
	CertFile, KeyFile string
	// Bootstrap asks the cluster to sign a certificate, and again before it expires.
	Bootstrap bool
	// Dir is where certificates are kept (--cert-dir).
	Dir      string
	NodeName string
	// HostName and IPs are what a certificate that is made here is for.
	HostName string
	IPs      []net.IP
	// Client asks for signatures, and Addresses are what they are for.
	Client    kubernetes.Interface
	Addresses func() []corev1.NodeAddress
}

// A Serving certificate can change while it is used.
type Serving struct {
	get func() (*tls.Certificate, error)
	run func(context.Context)
	// metrics are nil for a certificate that the cluster does not sign.
	metrics *servingMetrics
}

// Get is for tls.Config's GetCertificate.
func (s *Serving) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.get() }

// Run keeps the certificate up to date until ctx is done.
func (s *Serving) Run(ctx context.Context) { s.run(ctx) }

// NewServing finds or makes the serving certificate.
func NewServing(ctx context.Context, cfg ServingConfig) (*Serving, error) {
	switch {
	case cfg.CertFile != "" || cfg.KeyFile != "":
		return fromFiles(cfg.CertFile, cfg.KeyFile)
	case cfg.Bootstrap:
		return signed(ctx, cfg)
	}
	certFile, keyFile := filepath.Join(cfg.Dir, "kubelet.crt"), filepath.Join(cfg.Dir, "kubelet.key")
	if !usable(certFile, keyFile, time.Now()) {
		if err := selfSign(certFile, keyFile, cfg.HostName, cfg.IPs, time.Now()); err != nil {
			return nil, fmt.Errorf("--cert-dir: making a serving certificate: %w", err)
		}
	}
	return fromFiles(certFile, keyFile)
}

// fromFiles follows changes of a certificate and its key.
func fromFiles(certFile, keyFile string) (*Serving, error) {
	if certFile == "" || keyFile == "" {
		return nil, errors.New("tlsCertFile and tlsPrivateKeyFile: both must be given, or none")
	}
	content, err := dynamiccertificates.NewDynamicServingContentFromFiles("kubelet-server-cert-files", certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("tlsCertFile, tlsPrivateKeyFile: %w", err)
	}
	var mu sync.Mutex
	var lastCert, lastKey []byte
	var last *tls.Certificate
	get := func() (*tls.Certificate, error) {
		certPEM, keyPEM := content.CurrentCertKeyContent()
		mu.Lock()
		defer mu.Unlock()
		if last != nil && bytes.Equal(certPEM, lastCert) && bytes.Equal(keyPEM, lastKey) {
			return last, nil
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("serving certificate: %w", err)
		}
		last, lastCert, lastKey = &pair, certPEM, keyPEM
		return last, nil
	}
	if _, err := get(); err != nil {
		return nil, err
	}
	return &Serving{get: get, run: func(ctx context.Context) { content.Run(ctx, 1) }}, nil
}

// signed asks the cluster for a certificate as soon as the node has an address.
func signed(ctx context.Context, cfg ServingConfig) (*Serving, error) {
	if cfg.Client == nil {
		return nil, errors.New("serverTLSBootstrap: needs an API server (--kubeconfig)")
	}
	logger := klog.FromContext(ctx)
	store, err := certificate.NewFileStoreWithLogger(logger.V(3), "kubelet-server", cfg.Dir, cfg.Dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("--cert-dir: %w", err)
	}
	m := newServingMetrics()
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn:      func(*tls.Certificate) (kubernetes.Interface, error) { return cfg.Client, nil },
		GetTemplate:      func() *x509.CertificateRequest { return servingTemplate(cfg.NodeName, cfg.Addresses()) },
		SignerName:       certificatesv1.KubeletServingSignerName,
		GetUsages:        certificate.DefaultKubeletServingGetUsages,
		CertificateStore: store,
		Ctx:              &ctx,

		CertificateRotation: m.lived, CertificateRenewFailure: m.failed,
	})
	if err != nil {
		return nil, fmt.Errorf("serverTLSBootstrap: %w", err)
	}
	get := func() (*tls.Certificate, error) {
		if c := manager.Current(); c != nil {
			return c, nil
		}
		return nil, errors.New("the cluster has not signed the kubelet's serving certificate yet: see kubectl get certificatesigningrequests")
	}
	return &Serving{get: get, metrics: m, run: func(ctx context.Context) {
		manager.Start()
		<-ctx.Done()
		manager.Stop()
	}}, nil
}

// servingTemplate is what is asked for: nothing before the node has an address.
func servingTemplate(node string, addresses []corev1.NodeAddress) *x509.CertificateRequest {
	names, ips := sets.New[string](), sets.New[string]()
	for _, a := range addresses {
		if a.Address == "" {
			continue
		}
		if ip := net.ParseIP(a.Address); ip != nil {
			ips.Insert(ip.String())
		} else {
			names.Insert(a.Address)
		}
	}
	if len(ips) == 0 && len(names) == 0 {
		return nil
	}
	t := &x509.CertificateRequest{Subject: nodeSubject(node), DNSNames: sets.List(names)}
	for _, ip := range sets.List(ips) {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(ip))
	}
	return t
}

func nodeSubject(node string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}
}

// usable says whether there is a certificate of an earlier life that is still good.
func usable(certFile, keyFile string, now time.Time) bool {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return false
	}
	return pair.Leaf != nil && now.After(pair.Leaf.NotBefore) && now.Before(pair.Leaf.NotAfter)
}

// selfSigned is how long a certificate made here is good. A kubelet that starts after that makes another.
const selfSigned = 365 * 24 * time.Hour

// selfSign makes a key and a certificate that vouches for itself. Nobody verifies
// it unless told to by hand, so an elliptic curve's speed is worth more than RSA's age.
func selfSign(certFile, keyFile, host string, ips []net.IP, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("%s@%d", host, now.Unix())},
		NotBefore:    now.Add(-time.Hour).UTC(), // clocks differ
		NotAfter:     now.Add(selfSigned).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IPAddresses:           ips,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	certPEM, err := cert.EncodeCertificates(leaf)
	if err != nil {
		return err
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o755); err != nil {
		return err
	}
	if err := keyutil.WriteKey(keyFile, keyPEM); err != nil {
		return err
	}
	return cert.WriteCert(certFile, certPEM)
}
