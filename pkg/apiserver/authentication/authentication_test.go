package authentication

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/keyutil"
)

// authority signs client certificates; its own is in a file.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t testing.TB, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(dir, name+".crt")}
	a.cert = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(t testing.TB, template, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) client(t testing.TB, name string, groups ...string) *x509.Certificate {
	return a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert)
}

// options as a cluster has them, with files of their own.
func options(t *testing.T, dir string, args ...string) *Options {
	t.Helper()
	key, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sa.key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	o := NewOptions()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.AddFlags(fs)
	args = append([]string{"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + file, "--service-account-signing-key-file=" + file}, args...)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func assemble(t *testing.T, o *Options) (*Authentication, error) {
	t.Helper()
	client := fake.NewSimpleClientset(&corev1.Secret{ // NewClientset is slow: it knows managed fields
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"},
		Type:       "bootstrap.kubernetes.io/token",
		Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
			"auth-extra-groups": []byte("system:bootstrappers:kubeadm:default-node-token")},
	})
	return o.New(t.Context(), Dependencies{Client: client, Informers: informers.NewSharedInformerFactory(client, 0)})
}

func TestChain(t *testing.T) {
	dir := t.TempDir()
	clients, proxies, others := newAuthority(t, dir, "clients"), newAuthority(t, dir, "proxies"), newAuthority(t, dir, "others")
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte("sesame,ali,1,\"cave,oil\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"--client-ca-file=" + clients.file, "--token-auth-file=" + tokens, "--enable-bootstrap-token-auth",
		"--requestheader-client-ca-file=" + proxies.file, "--requestheader-allowed-names=front", "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"}

	for name, test := range map[string]struct {
		args    []string
		cert    *x509.Certificate
		headers map[string]string
		user    string
		group   string
		refused bool // as an error
	}{
		"certificate":                              {cert: clients.client(t, "ann", "dev"), user: "ann", group: "dev"},
		"certificate, authenticated":               {cert: clients.client(t, "ann"), user: "ann", group: "system:authenticated"},
		"certificate of somebody else":             {cert: others.client(t, "ann"), refused: true},
		"proxy's certificate as one's own":         {cert: proxies.client(t, "ann"), refused: true},
		"token file":                               {headers: map[string]string{"Authorization": "Bearer sesame"}, user: "ali", group: "oil"},
		"bootstrap token":                          {headers: map[string]string{"Authorization": "Bearer abcdef.0123456789abcdef"}, user: "system:bootstrap:abcdef", group: "system:bootstrappers:kubeadm:default-node-token"},
		"wrong bootstrap token":                    {headers: map[string]string{"Authorization": "Bearer abcdef.0123456789abcdee"}, refused: true},
		"wrong token":                              {headers: map[string]string{"Authorization": "Bearer nonsense"}, refused: true},
		"a client may not speak for others":        {cert: clients.client(t, "front"), headers: map[string]string{"X-Remote-User": "root"}, user: "front"},
		"headers without a certificate":            {headers: map[string]string{"X-Remote-User": "root"}, user: "system:anonymous"},
		"front proxy":                              {cert: proxies.client(t, "front"), headers: map[string]string{"X-Remote-User": "bob", "X-Remote-Group": "ops"}, user: "bob", group: "ops"},
		"front proxy of another name":              {cert: proxies.client(t, "back"), headers: map[string]string{"X-Remote-User": "bob"}, refused: true},
		"nobody":                                   {user: "system:anonymous", group: "system:unauthenticated"},
		"nobody, where that is not allowed":        {args: []string{"--anonymous-auth=false"}},
		"wrong token, anonymous users not allowed": {args: []string{"--anonymous-auth=false"}, headers: map[string]string{"Authorization": "Bearer nonsense"}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := assemble(t, options(t, t.TempDir(), append(common, test.args...)...))
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if test.cert != nil {
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{test.cert}}
			}
			for k, v := range test.headers {
				r.Header.Set(k, v)
			}
			response, ok, err := a.Authenticator.AuthenticateRequest(r)
			if (err != nil) != test.refused || ok != (test.user != "") {
				t.Fatalf("got %v, %v", ok, err)
			}
			if !ok {
				return
			}
			if response.User.GetName() != test.user {
				t.Errorf("user %q, want %q", response.User.GetName(), test.user)
			}
			if test.group != "" && !strings.Contains("\n"+strings.Join(response.User.GetGroups(), "\n")+"\n", "\n"+test.group+"\n") {
				t.Errorf("groups %q, want %q", response.User.GetGroups(), test.group)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	anonymous := write("anonymous.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}]}\n")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no CA":                     {[]string{"--client-ca-file=/none"}, "--client-ca-file"},
		"no request header CA":      {[]string{"--requestheader-client-ca-file=/none"}, "--requestheader-client-ca-file"},
		"no tokens":                 {[]string{"--token-auth-file=/none"}, "--token-auth-file"},
		"issuer twice":              {[]string{"--service-account-issuer=https://kubernetes.default.svc"}, "given twice"},
		"signing key":               {[]string{"--service-account-signing-key-file=/none"}, "--service-account-signing-key-file"},
		"signing key and endpoint":  {[]string{"--service-account-signing-endpoint=/none"}, "--service-account-signing-endpoint and --service-account-signing-key-file exclude each other"},
		"maximum too small":         {[]string{"--service-account-max-token-expiration=10m"}, "--service-account-max-token-expiration"},
		"webhook":                   {[]string{"--authentication-token-webhook-config-file=/none"}, "--authentication-token-webhook-config-file"},
		"OIDC without client":       {[]string{"--oidc-issuer-url=https://example.com"}, "--oidc-client-id"},
		"OIDC without TLS":          {[]string{"--oidc-issuer-url=http://example.com", "--oidc-client-id=x"}, "--oidc-issuer-url"},
		"OIDC as the own issuer":    {[]string{"--oidc-issuer-url=https://kubernetes.default.svc", "--oidc-client-id=x"}, "--oidc-issuer-url"},
		"configuration, unreadable": {[]string{"--authentication-config=/none"}, "--authentication-config"},
		"configuration, of nothing": {[]string{"--authentication-config=" + write("x.yaml", "apiVersion: v1\nkind: Pod\n")}, "--authentication-config"},
		"configuration, misspelt":   {[]string{"--authentication-config=" + write("y.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonimous: {}\n")}, "anonimous"},
		"anonymous twice":           {[]string{"--authentication-config=" + anonymous, "--anonymous-auth=true"}, "--anonymous-auth exclude each other"},
	} {
		if _, err := assemble(t, options(t, t.TempDir(), test.args...)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}

	// The anonymous section restricts paths.
	a, err := assemble(t, options(t, t.TempDir(), "--authentication-config="+anonymous))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/livez": true, "/api": false} {
		if _, ok, _ := a.Authenticator.AuthenticateRequest(httptest.NewRequest(http.MethodGet, path, nil)); ok != want {
			t.Errorf("anonymous on %s: %v", path, ok)
		}
	}
}
