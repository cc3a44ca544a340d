package authentication

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	requestx509 "k8s.io/apiserver/pkg/authentication/request/x509"
)

// Certificates that are known are refused as soon as new ones would be.
func TestKnownCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		clients, others := newAuthority(t, dir, "clients"), newAuthority(t, dir, "others")
		trust := func(a *authority) x509.VerifyOptions {
			roots := x509.NewCertPool()
			roots.AddCert(a.cert)
			options := requestx509.DefaultVerifyOptions()
			options.Roots = roots
			return options
		}
		ours, theirs := trust(clients), trust(others)
		trusted := ours
		c := newCertificates(func() (x509.VerifyOptions, bool) { return trusted, true })
		request := func(certs ...*x509.Certificate) *http.Request {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.TLS = &tls.ConnectionState{PeerCertificates: certs}
			return r
		}
		accepted := func(when string, want bool, certs ...*x509.Certificate) {
			t.Helper()
			for range 3 { // the first time, and when it is known
				response, ok, err := c.AuthenticateRequest(request(certs...))
				if ok != want || (err == nil) != want || ok && response.User.GetName() != "ann" {
					t.Fatalf("%s: %v, %v, %v", when, response, ok, err)
				}
			}
		}
		ann, stranger := clients.client(t, "ann", "dev"), others.client(t, "ann")
		server := clients.sign(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, clients.cert)
		accepted("a client", true, ann)
		accepted("with what it need not bring", true, ann, others.cert)
		accepted("signed by somebody else", false, stranger)
		accepted("a server", false, server)
		trusted = theirs
		accepted("the authority is not trusted any more", false, ann)
		accepted("and another is", true, stranger)
		trusted = ours
		accepted("the other way round", true, ann)
		time.Sleep(time.Until(ann.NotAfter) - time.Second)
		accepted("in its last second", true, ann)
		time.Sleep(2 * time.Second)
		accepted("expired", false, ann)
	})
}

func BenchmarkCertificates(b *testing.B) {
	dir := b.TempDir()
	authority := newAuthority(b, dir, "clients")
	options := requestx509.DefaultVerifyOptions()
	options.Roots = x509.NewCertPool()
	options.Roots.AddCert(authority.cert)
	c := newCertificates(func() (x509.VerifyOptions, bool) { return options, true })
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{authority.client(b, "ann")}}
	b.Run("each time", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := c.verify.AuthenticateRequest(r); !ok {
				b.Fatal(err)
			}
		}
	})
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := c.AuthenticateRequest(r); !ok {
				b.Fatal(err)
			}
		}
	})
}
