package csrsigning

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"os"
)

// Files are the certificate and the key of an authority.
type Files struct {
	Cert, Key string
}

func (f Files) set() bool { return f.Cert != "" || f.Key != "" }

// Options say who signs what. An authority that is not set signs nothing.
type Options struct {
	All                 Files
	KubeletServing      Files
	KubeletClient       Files
	KubeAPIServerClient Files
	LegacyUnknown       Files
	// Duration is the longest that a certificate is valid.
	Duration time.Duration
}

// DefaultOptions returns the defaults.
func DefaultOptions() Options { return Options{Duration: 365 * 24 * time.Hour} }

// AddFlags adds the --cluster-signing-* flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	for _, s := range []struct {
		flag, what string
		files      *Files
	}{
		{"cluster-signing", "all signers that have none of their own", &o.All},
		{"cluster-signing-kubelet-serving", certificatesv1.KubeletServingSignerName, &o.KubeletServing},
		{"cluster-signing-kubelet-client", certificatesv1.KubeAPIServerClientKubeletSignerName, &o.KubeletClient},
		{"cluster-signing-kube-apiserver-client", certificatesv1.KubeAPIServerClientSignerName, &o.KubeAPIServerClient},
		{"cluster-signing-legacy-unknown", legacyUnknown, &o.LegacyUnknown},
	} {
		fs.StringVar(&s.files.Cert, s.flag+"-cert-file", s.files.Cert, "File with the certificate of the authority for "+s.what)
		fs.StringVar(&s.files.Key, s.flag+"-key-file", s.files.Key, "File with the private key of the authority for "+s.what)
	}
	fs.DurationVar(&o.Duration, "cluster-signing-duration", o.Duration, "The longest that a certificate is made valid for; a request may ask for less")
}

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	var errs []error
	specific := o.KubeletServing.set() || o.KubeletClient.set() || o.KubeAPIServerClient.set() || o.LegacyUnknown.set()
	if o.All.set() && specific {
		errs = append(errs, errors.New("--cluster-signing-cert-file: cannot be given together with the files of one signer"))
	}
	for flag, f := range map[string]Files{
		"cluster-signing": o.All, "cluster-signing-kubelet-serving": o.KubeletServing, "cluster-signing-kubelet-client": o.KubeletClient,
		"cluster-signing-kube-apiserver-client": o.KubeAPIServerClient, "cluster-signing-legacy-unknown": o.LegacyUnknown,
	} {
		if (f.Cert == "") != (f.Key == "") {
			errs = append(errs, fmt.Errorf("--%s-cert-file and --%s-key-file: one is missing", flag, flag))
		}
	}
	if o.Duration <= 0 {
		errs = append(errs, fmt.Errorf("--cluster-signing-duration: %v is not positive", o.Duration))
	}
	return errors.Join(errs...)
}

// Signers are the authorities by the name of the signer.
type Signers struct {
	files    map[string]Files
	duration time.Duration
}

// Load checks that all authorities can be read.
func Load(o Options) (Signers, error) {
	s := Signers{files: map[string]Files{}, duration: o.Duration}
	for name, f := range map[string]Files{
		certificatesv1.KubeletServingSignerName:             o.KubeletServing,
		certificatesv1.KubeAPIServerClientKubeletSignerName: o.KubeletClient,
		certificatesv1.KubeAPIServerClientSignerName:        o.KubeAPIServerClient,
		legacyUnknown: o.LegacyUnknown,
	} {
		if o.All.set() {
			f = o.All
		}
		if !f.set() {
			continue
		}
		s.files[name] = f
		if _, err := s.authority(name); err != nil {
			return Signers{}, fmt.Errorf("--cluster-signing-*: %s: %w", name, err)
		}
	}
	return s, nil
}

// Empty reports whether nothing can be signed.
func (s Signers) Empty() bool { return len(s.files) == 0 }

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authority reads the files anew, as they may have been renewed; requests are rare.
func (s Signers) authority(name string) (*authority, error) {
	f := s.files[name]
	data, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	certs, err := cert.ParseCertsPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	if data, err = os.ReadFile(f.Key); err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := keyutil.ParsePrivateKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: the key cannot sign", f.Key)
	}
	if pub, ok := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(signer.Public()) {
		return nil, fmt.Errorf("%s does not belong to %s", f.Key, f.Cert)
	}
	return &authority{certs[0], signer}, nil
}
