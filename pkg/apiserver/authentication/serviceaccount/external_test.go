package serviceaccount

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emicklei/go-restful/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"

	externaljwtv1 "k8s.io/externaljwt/apis/v1"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

// fakeSigner signs with the last of its keys.
type fakeSigner struct {
	externaljwtv1.UnimplementedExternalJWTSignerServer // which gRPC asks of every server; all three calls are below

	mu      sync.Mutex
	ids     []string
	keys    map[string]*ecdsa.PrivateKey
	old     map[string]bool // not published
	header  string          // in place of its own
	max     int64
	refresh int64
}

// startSigner serves a signer with one key on a socket.
func startSigner(t *testing.T) (*fakeSigner, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer") // names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeSigner{keys: map[string]*ecdsa.PrivateKey{}, old: map[string]bool{}, max: 7200, refresh: 3600}
	f.add(t, "one")
	s := grpc.NewServer()
	externaljwtv1.RegisterExternalJWTSignerServer(s, f)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	return f, socket
}

func (f *fakeSigner) add(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.change(func() {
		f.ids, f.keys[id] = append(f.ids, id), key
	})
}

func (f *fakeSigner) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeSigner) Metadata(context.Context, *externaljwtv1.MetadataRequest) (*externaljwtv1.MetadataResponse, error) {
	return &externaljwtv1.MetadataResponse{MaxTokenExpirationSeconds: f.max}, nil
}

func (f *fakeSigner) FetchKeys(context.Context, *externaljwtv1.FetchKeysRequest) (*externaljwtv1.FetchKeysResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &externaljwtv1.FetchKeysResponse{DataTimestamp: timestamppb.Now(), RefreshHintSeconds: f.refresh}
	for _, id := range f.ids {
		der, err := x509.MarshalPKIXPublicKey(f.keys[id].Public())
		if err != nil {
			return nil, err
		}
		r.Keys = append(r.Keys, &externaljwtv1.Key{KeyId: id, Key: der, ExcludeFromOidcDiscovery: f.old[id]})
	}
	return r, nil
}

func (f *fakeSigner) Sign(_ context.Context, r *externaljwtv1.SignJWTRequest) (*externaljwtv1.SignJWTResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.ids[len(f.ids)-1]
	header := `{"alg":"ES256","kid":"` + id + `","typ":"JWT"}`
	if f.header != "" {
		header = f.header
	}
	header = base64.RawURLEncoding.EncodeToString([]byte(header))
	sum := sha256.Sum256([]byte(header + "." + r.Claims))
	a, b, err := ecdsa.Sign(rand.Reader, f.keys[id], sum[:])
	if err != nil {
		return nil, err
	}
	signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
	return &externaljwtv1.SignJWTResponse{Header: header, Signature: base64.RawURLEncoding.EncodeToString(signature)}, nil
}

func TestExternal(t *testing.T) {
	signer, socket := startSigner(t)
	e, err := NewExternal(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if e.MaxExpiration != 2*time.Hour {
		t.Errorf("tokens may live %v", e.MaxExpiration)
	}
	objects := cluster()
	at := func(kind string) store { return store{objects, kind} }
	tokens := NewTokenREST(e.Issuer(issuerName), authenticator.Audiences{"api"}, TokenOptions{MaxExpiration: e.MaxExpiration},
		Storage{ServiceAccounts: at("serviceaccounts"), Pods: at("pods"), Secrets: at("secrets"), Nodes: at("nodes")})
	issue := func() (string, error) {
		r, err := tokens.Create(genericrequest.WithNamespace(t.Context(), "ns"), "bot", &authenticationv1.TokenRequest{}, nil, nil)
		if err != nil {
			return "", err
		}
		return r.(*authenticationv1.TokenRequest).Status.Token, nil
	}
	check := NewAuthenticator([]string{issuerName}, e, authenticator.Audiences{"api"}, objects)
	d, err := NewDiscovery(issuerName, "", "10.0.0.1:6443", e)
	if err != nil {
		t.Fatal(err)
	}
	documents := restful.NewContainer()
	d.Install(documents)
	keySet := func() string {
		w := httptest.NewRecorder()
		documents.ServeHTTP(w, httptest.NewRequest(http.MethodGet, keySetPath, nil))
		return w.Body.String() + w.Header().Get("Cache-Control")
	}

	use := func() {
		t.Helper()
		token, err := issue()
		if err != nil {
			t.Fatal(err)
		}
		if who, ok, err := check.AuthenticateToken(t.Context(), token); err != nil || !ok || who.User.GetName() != "system:serviceaccount:ns:bot" {
			t.Errorf("the token is of %v, %t, %v", who, ok, err)
		}
	}
	use()
	signer.add(t, "two") // which has to be fetched when it is first used
	use()
	if s := keySet(); !strings.Contains(s, `"kid":"one"`) || !strings.Contains(s, `"kid":"two"`) || !strings.Contains(s, "max-age=35") {
		t.Errorf("the keys are %s", s)
	}
	signer.change(func() { signer.old["two"] = true })
	if err := e.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := keySet(); strings.Contains(s, `"kid":"two"`) {
		t.Errorf("the keys are %s", s)
	}
	if _, err := issue(); err == nil || !strings.Contains(err.Error(), "the key two, which is not for new tokens") {
		t.Errorf("a token of an old key: %v", err)
	}
	signer.change(func() { signer.old["two"] = false })
	if err := e.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		`{"alg":"ES256","kid":"two"}`:                            "the type is",
		`{"alg":"ES256","typ":"JWT"}`:                            "cannot be the ID of a key",
		`{"alg":"none","kid":"two","typ":"JWT"}`:                 "the algorithm is",
		`{"alg":"ES256","kid":"two","typ":"JWT","crit":["exp"]}`: "unknown field",
	} {
		signer.change(func() { signer.header = header })
		if _, err := issue(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", header, err, want)
		}
	}
}

// TestExternalWatch wants keys to be fetched again when the signer says so.
func TestExternalWatch(t *testing.T) {
	signer, socket := startSigner(t)
	signer.refresh = 1
	e, err := NewExternal(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	go e.Watch(t.Context())
	signer.add(t, "two")
	componenttest.Eventually(t, "the new key to be fetched", func() bool {
		keys, _ := e.Published()
		return len(keys) == 2
	})
}

// hesitant answers when it is told to.
type hesitant struct {
	externaljwtv1.ExternalJWTSignerClient
	answer chan *externaljwtv1.FetchKeysResponse
}

func (h hesitant) FetchKeys(ctx context.Context, _ *externaljwtv1.FetchKeysRequest, _ ...grpc.CallOption) (*externaljwtv1.FetchKeysResponse, error) {
	select {
	case r := <-h.answer:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Who no longer waits for keys does not take them from others who do.
func TestExternalSharedAnswer(t *testing.T) {
	signer := &fakeSigner{keys: map[string]*ecdsa.PrivateKey{}, refresh: 1}
	signer.add(t, "one")
	keys, err := signer.FetchKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	metrics := newExternalMetrics()
	synctest.Test(t, func(t *testing.T) {
		h := hesitant{answer: make(chan *externaljwtv1.FetchKeysResponse)}
		e := &External{client: h, metrics: metrics}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- e.refresh(ctx) }()
		synctest.Wait()
		go func() { second <- e.refresh(t.Context()) }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		h.answer <- keys
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

func TestExternalAnswers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := func(change func(*externaljwtv1.FetchKeysResponse)) *externaljwtv1.FetchKeysResponse {
		r := &externaljwtv1.FetchKeysResponse{DataTimestamp: timestamppb.Now(), RefreshHintSeconds: 1, Keys: []*externaljwtv1.Key{{KeyId: "a", Key: der}}}
		change(r)
		return r
	}
	for want, r := range map[string]*externaljwtv1.FetchKeysResponse{
		"":                          good(func(*externaljwtv1.FetchKeysResponse) {}),
		"the refresh hint is":       good(func(r *externaljwtv1.FetchKeysResponse) { r.RefreshHintSeconds = 0 }),
		"there are none":            good(func(r *externaljwtv1.FetchKeysResponse) { r.Keys = nil }),
		"data timestamp":            good(func(r *externaljwtv1.FetchKeysResponse) { r.DataTimestamp = nil }),
		"cannot be the ID of a key": good(func(r *externaljwtv1.FetchKeysResponse) { r.Keys[0].KeyId = strings.Repeat("a", 1025) }),
		"key a:":                    good(func(r *externaljwtv1.FetchKeysResponse) { r.Keys[0].Key = nil }),
	} {
		if _, err := readKeys(r, time.Now()); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}

	signer, socket := startSigner(t)
	signer.max = 599
	if _, err := NewExternal(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "less than 600") {
		t.Errorf("tokens that live too short: %v", err)
	}
}
