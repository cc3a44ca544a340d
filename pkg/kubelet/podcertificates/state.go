package podcertificates

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// state is what is known of one source.
type state struct {
	// have is the credential in use; its chain is nil if there is none. It is due for renewal at renew, and good until ends.
	have        Credential
	renew, ends time.Time
	// refused says why there will not be another one.
	refused error
	// waiting says that a request is open.
	waiting bool
	// complained is how much has been said about a late renewal.
	complained complaint
}

// step is what to do about a source.
type step string

const (
	use  step = "use"  // what there is
	ask  step = "ask"  // for a certificate
	wait step = "wait" // for the answer, or in vain
)

// next decides what to do at a time.
func (s *state) next(now time.Time) step {
	switch {
	case s.refused != nil || s.waiting:
		return wait
	case s.have.Chain == nil || !now.Before(s.renew):
		return ask
	}
	return use
}

// complaint is something to say about a certificate that was not renewed in time.
type complaint int

const (
	overdue complaint = iota + 1
	expired
)

// complain says once that the renewal is overdue, and once that the certificate has expired.
func (s *state) complain(now time.Time, say func(reason, message string)) {
	const patience = 10 * time.Minute
	if s.have.Chain == nil {
		return
	}
	if s.complained < overdue && now.After(s.renew.Add(patience)) {
		s.complained = overdue
		say("CertificateOverdueForRefresh", "PodCertificate refresh overdue")
	}
	if s.complained < expired && now.After(s.ends) {
		s.complained = expired
		say("CertificateExpired", "PodCertificate expired")
	}
}

// outcome is the answer to a request.
type outcome struct {
	// refused says why there is no certificate; event is the reason of the event that tells of it.
	refused error
	event   string

	chain       []byte
	renew, ends time.Time
}

// outcomeOf reads the answer from a request; nil if there is none yet.
func outcomeOf(r *certificatesv1.PodCertificateRequest) *outcome {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			verb := "denied"
			if c.Type == certificatesv1.PodCertificateRequestConditionTypeFailed {
				verb = "failed"
			}
			return &outcome{
				event:   c.Type,
				refused: fmt.Errorf("PodCertificateRequest %s/%s was permanently %s: reason=%q message=%q", r.Namespace, r.Name, verb, c.Reason, c.Message),
			}
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			o := &outcome{chain: certificatesOf([]byte(r.Status.CertificateChain))}
			if r.Status.BeginRefreshAt != nil {
				o.renew = r.Status.BeginRefreshAt.Time
			}
			if r.Status.NotAfter != nil {
				o.ends = r.Status.NotAfter.Time
			}
			return o
		}
	}
	return nil
}

// certificatesOf keeps of a chain the certificates alone: no words between them, no headers.
func certificatesOf(chain []byte) []byte {
	var out bytes.Buffer
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			return out.Bytes()
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	}
}

// newKey makes a key, as PEM, and the proof that it is there: an empty request signed by it.
func newKey(keyType string) (key, proof []byte, err error) {
	private, err := generate(keyType)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key of type %q: %w", keyType, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a key of type %q: %w", keyType, err)
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private); err != nil {
		return nil, nil, fmt.Errorf("proving possession of a key of type %q: %w", keyType, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

func generate(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("the type is not known")
}
