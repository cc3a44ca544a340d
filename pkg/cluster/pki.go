package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/pkg/component/files"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// backdate forgives clocks that are a little behind.
	backdate = 5 * time.Minute
)

// A leaf is a certificate that one of the authorities signs. Its files are
// <Name>.crt and <Name>.key.
type leaf struct {
	Name, CA string
	CN       string
	Orgs     []string
	Hosts    []string // DNS names and addresses; a server's
	Client   bool
}

// authorities are the certificate authorities, by the names that kubeadm gives their files.
var authorities = map[string]string{
	"ca":             "kubernetes-ca",
	"front-proxy-ca": "kubernetes-front-proxy-ca",
	"etcd/ca":        "etcd-ca",
}

// leaves are the certificates of a cluster with this node.
func leaves(s *State, nodeIP string) []leaf {
	node, domain := s.Config.Node.Name, s.Config.Networking.DNSDomain
	service, _ := nthAddress(s.ServiceCIDR, 1)
	return []leaf{
		{Name: "apiserver", CA: "ca", CN: "kube-apiserver", Hosts: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
			"localhost", node, "127.0.0.1", service, nodeIP, s.gateway().String()}},
		{Name: "apiserver-kubelet-client", CA: "ca", CN: "kube-apiserver-kubelet-client", Client: true},
		{Name: "front-proxy-client", CA: "front-proxy-ca", CN: "front-proxy-client", Client: true},
		{Name: "etcd/server", CA: "etcd/ca", CN: node, Hosts: []string{"localhost", "127.0.0.1"}, Client: true},
		{Name: "apiserver-etcd-client", CA: "etcd/ca", CN: "kube-apiserver-etcd-client", Client: true},
		kubeletServing(node, nodeIP), kubeletClient(node), proxyClient(),
		{Name: "registry", CA: "ca", CN: "leme-registry", Hosts: []string{"localhost", "127.0.0.1"}},
		{Name: "registry-client", CA: "ca", CN: "leme-containerd", Client: true},
		{Name: "admin", CA: "ca", CN: "kubernetes-admin", Orgs: []string{"system:masters"}, Client: true},
		{Name: "kube-controller-manager", CA: "ca", CN: "system:kube-controller-manager", Client: true},
		{Name: "kube-scheduler", CA: "ca", CN: "system:kube-scheduler", Client: true},
	}
}

// nodeLeaves are the certificates that a further node has of its own.
func nodeLeaves(name, ip string) []leaf {
	return []leaf{
		kubeletServing(name, ip), kubeletClient(name), proxyClient(),
		{Name: "registry-client", CA: "ca", CN: "leme-containerd", Client: true},
	}
}

func kubeletServing(node, ip string) leaf {
	return leaf{Name: "kubelet", CA: "ca", CN: "system:node:" + node, Orgs: []string{"system:nodes"}, Hosts: []string{node, "localhost", "127.0.0.1", ip}}
}

func kubeletClient(node string) leaf {
	return leaf{Name: "kubelet-client", CA: "ca", CN: "system:node:" + node, Orgs: []string{"system:nodes"}, Client: true}
}

func proxyClient() leaf {
	return leaf{Name: "kube-proxy", CA: "ca", CN: "system:kube-proxy", Client: true}
}

// A pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ensurePKI makes what is missing below dir and renews what does not fit its leaf
// any more or has less than a third of its life left. Authorities and the key of
// the ServiceAccounts are made once: replacing them would void what they signed.
func ensurePKI(dir string, leaves []leaf, now time.Time) error {
	cas := map[string]pair{}
	for name, cn := range authorities {
		ca, err := ensureCA(filepath.Join(dir, name), cn, now)
		if err != nil {
			return fmt.Errorf("certificate authority %s: %w", name, err)
		}
		cas[name] = ca
	}
	for _, l := range leaves {
		if err := l.ensure(dir, cas[l.CA], now); err != nil {
			return fmt.Errorf("certificate %s: %w", l.Name, err)
		}
	}
	if err := ensureServiceAccountKey(filepath.Join(dir, "sa")); err != nil {
		return fmt.Errorf("key of the service accounts: %w", err)
	}
	return nil
}

func ensureCA(path, cn string, now time.Time) (pair, error) {
	p, err := readPair(path)
	if err == nil && p.cert.NotAfter.Before(now) {
		return pair{}, fmt.Errorf("%s.crt expired on %s", path, p.cert.NotAfter.Format(time.DateOnly))
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: cn},
		DNSNames:              []string{cn},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := sign(template, key.Public(), pair{cert: template, key: key})
	if err != nil {
		return pair{}, err
	}
	p = pair{cert: cert, key: key}
	return p, writePair(path, p)
}

// ensure leaves a certificate alone that is what l says, is signed by ca and lives long enough.
func (l leaf) ensure(dir string, ca pair, now time.Time) error {
	path := filepath.Join(dir, l.Name)
	p, err := readPair(path)
	if err == nil && l.fits(p.cert, ca.cert, now) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	template := l.template(now)
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	cert, err := sign(template, key.Public(), ca)
	if err != nil {
		return err
	}
	return writePair(path, pair{cert: cert, key: key})
}

func (l leaf) template(now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: l.CN, Organization: l.Orgs},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if l.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(l.Hosts) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range l.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if !slices.Contains(t.DNSNames, h) {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

func (l leaf) fits(cert, ca *x509.Certificate, now time.Time) bool {
	want := l.template(now)
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.CheckSignatureFrom(ca) == nil &&
		cert.NotAfter.Sub(now) > life/3 && now.After(cert.NotBefore) &&
		cert.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(cert.Subject.Organization, want.Subject.Organization) &&
		slices.Equal(cert.DNSNames, want.DNSNames) &&
		slices.EqualFunc(cert.IPAddresses, want.IPAddresses, net.IP.Equal) &&
		slices.Equal(cert.ExtKeyUsage, want.ExtKeyUsage)
}

// ensureNodePKI does the same for a further node, in its own directory: of the
// authority it gets the certificate alone.
func ensureNodePKI(authorityDir, dir string, leaves []leaf, now time.Time) error {
	ca, err := readPair(filepath.Join(authorityDir, "ca"))
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	for _, l := range leaves {
		if err := l.ensure(dir, ca, now); err != nil {
			return fmt.Errorf("certificate %s: %w", l.Name, err)
		}
	}
	return writeFile(filepath.Join(dir, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: ca.cert.Raw}), 0o600)
}

func ensureServiceAccountKey(path string) error {
	key, err := readKey(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = newKey(); err != nil {
			return err
		}
		if err := writeKey(path+".key", key); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writeFile(path+".pub", pem.EncodeToMemory(&pem.Block{Type: keyutil.PublicKeyBlockType, Bytes: der}), 0o600)
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func sign(template *x509.Certificate, public crypto.PublicKey, ca pair) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1)) // never zero
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func readPair(path string) (pair, error) {
	certs, err := certutil.CertsFromFile(path + ".crt")
	if err != nil {
		return pair{}, err
	}
	key, err := readKey(path + ".key")
	return pair{cert: certs[0], key: key}, err
}

func readKey(path string) (crypto.Signer, error) {
	k, err := keyutil.PrivateKeyFromFile(path)
	if err != nil {
		if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
			return nil, statErr // keyutil hides the cause
		}
		return nil, err
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a %T cannot sign", path, k)
	}
	return key, nil
}

// writePair writes the key first: a certificate without its key would look whole.
func writePair(path string, p pair) error {
	if err := writeKey(path+".key", p.key); err != nil {
		return err
	}
	return writeFile(path+".crt", pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: p.cert.Raw}), 0o600)
}

func writeKey(path string, key crypto.Signer) error {
	data, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}

// writeFile replaces a file as a whole, and makes its directory.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return files.Replace(path, data, mode)
}
