package authentication

import (
	"crypto/x509"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	requestx509 "k8s.io/apiserver/pkg/authentication/request/x509"
)

const (
	// certificatesKnown is how many client certificates are remembered.
	certificatesKnown = 4096
	// certificateTTL is for how long.
	certificateTTL = 10 * time.Second
)

// certificates tells who sends a request from the client's certificate, and remembers for a while those whose
// signatures have been checked, since that costs a sixth of what a small request costs and all requests of a connection
// bring the same certificate. What costs little is checked each time: that it has not expired, what it may be used for.
type certificates struct {
	options requestx509.VerifyOptionFunc
	verify  authenticator.Request
	known   *cache.LRUExpireCache
}

func newCertificates(options requestx509.VerifyOptionFunc) *certificates {
	return &certificates{
		options: options,
		verify:  requestx509.NewDynamic(options, requestx509.CommonNameUserConversion),
		known:   cache.NewLRUExpireCache(certificatesKnown),
	}
}

// knownCertificate is one that CAs have signed.
type knownCertificate struct {
	by     *x509.CertPool
	verify authenticator.Request
}

// AuthenticateRequest implements authenticator.Request.
func (c *certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	options, ok := c.options()
	// Who brings certificates of intermediate authorities brings other ones the next time, perhaps.
	if !ok || r.TLS == nil || len(r.TLS.PeerCertificates) != 1 {
		return c.verify.AuthenticateRequest(r)
	}
	cert := r.TLS.PeerCertificates[0]
	if known, ok := c.known.Get(cert); ok && known.(knownCertificate).by == options.Roots {
		return known.(knownCertificate).verify.AuthenticateRequest(r)
	}
	response, ok, err := c.verify.AuthenticateRequest(r)
	if err == nil && ok {
		trusted := options
		trusted.Roots = x509.NewCertPool()
		trusted.Roots.AddCert(cert)
		c.known.Add(cert, knownCertificate{options.Roots, requestx509.New(trusted, requestx509.CommonNameUserConversion)}, certificateTTL)
	}
	return response, ok, err
}
