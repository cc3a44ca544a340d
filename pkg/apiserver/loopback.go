package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"
)

// loopbackLife is how long the server can talk to itself: longer than any process lives.
const loopbackLife = 10 * 365 * 24 * time.Hour

// newLoopback lets the server talk to itself with all rights: by a certificate of its own
// for a name that nobody else asks for, and a token that never leaves the process.
// An elliptic key is made in a millisecond, where the library's RSA keys take longer
// than the rest of the server's start.
func newLoopback(serving *server.SecureServingInfo) (*rest.Config, error) {
	cert, key, err := selfSigned(server.LoopbackClientServerNameOverride, time.Now())
	if err != nil {
		return nil, fmt.Errorf("making the loopback certificate: %w", err)
	}
	provider, err := dynamiccertificates.NewStaticSNICertKeyContent("loopback", cert, key, server.LoopbackClientServerNameOverride)
	if err != nil {
		return nil, fmt.Errorf("making the loopback certificate: %w", err)
	}
	serving.SNICerts = append([]dynamiccertificates.SNICertKeyContentProvider{provider}, serving.SNICerts...)
	config, err := serving.NewLoopbackClientConfig(string(uuid.NewUUID()), cert)
	if err != nil {
		return nil, fmt.Errorf("making the loopback client: %w", err)
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.DisableCompression = true
	return config, nil
}

// selfSigned returns a serving certificate and its key in PEM form.
func selfSigned(name string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(loopbackLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	if key, err = keyutil.MarshalPrivateKeyToPEM(private); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, nil
}
