package serviceaccount

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"

	externaljwtv1 "k8s.io/externaljwt/apis/v1"

	"github.com/leme-k8s/leme/pkg/api/authentication"
)

const (
	keysTimeout     = time.Minute
	metadataTimeout = 10 * time.Second
	// keysRetry is the pause after keys could not be fetched.
	keysRetry = 10 * time.Second

	maxKeyIDLength = 1024
)

// An External is another process that signs tokens and says with which keys they are checked. It is
// asked over a Unix socket.
type External struct {
	// MaxExpiration is how long the tokens may live that it signs.
	MaxExpiration time.Duration

	client  externaljwtv1.ExternalJWTSignerClient
	metrics *externalMetrics
	keys    atomic.Pointer[fetchedKeys]
	fetch   singleflight.Group
}

// fetchedKeys are the keys until they are fetched again.
type fetchedKeys struct {
	Keys
	until time.Time
}

// NewExternal connects to the process, until ctx ends, and asks for keys and metadata.
func NewExternal(ctx context.Context, socket string) (*External, error) {
	m := newExternalMetrics()
	connection, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), // it may start after this server
		grpc.WithChainUnaryInterceptor(m.intercept),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to %q: %w", socket, err)
	}
	context.AfterFunc(ctx, func() { _ = connection.Close() }) // nobody is left to hear of it
	e := &External{client: externaljwtv1.NewExternalJWTSignerClient(connection), metrics: m}
	if err := e.start(ctx); err != nil {
		_ = connection.Close()
		return nil, err
	}
	return e, nil
}

func (e *External) start(ctx context.Context) error {
	if err := e.refresh(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	metadata, err := e.client.Metadata(ctx, &externaljwtv1.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("asking for metadata: %w", err)
	}
	if metadata.MaxTokenExpirationSeconds < authentication.MinExpirationSeconds {
		return fmt.Errorf("the signer's tokens live for %d seconds at most, which is less than %d", metadata.MaxTokenExpirationSeconds, authentication.MinExpirationSeconds)
	}
	e.MaxExpiration = time.Duration(metadata.MaxTokenExpirationSeconds) * time.Second
	return nil
}

// Watch fetches the keys again whenever the signer says that it is time, until ctx ends.
func (e *External) Watch(ctx context.Context) {
	pause := time.Until(e.keys.Load().until)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err := e.refresh(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Keeping the keys of ServiceAccount tokens that were fetched before")
			pause = keysRetry
			continue
		}
		pause = time.Until(e.keys.Load().until)
	}
}

// refresh fetches the keys. Several who want them at once share the answer, whoever of them goes away meanwhile.
func (e *External) refresh(ctx context.Context) error {
	fetched := e.fetch.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		response, err := e.client.FetchKeys(ctx, &externaljwtv1.FetchKeysRequest{})
		var keys *fetchedKeys
		if err == nil {
			keys, err = readKeys(response, time.Now())
		}
		e.metrics.fetched(response, err)
		if err != nil {
			return nil, fmt.Errorf("fetching keys: %w", err)
		}
		e.keys.Store(keys)
		return nil, nil
	})
	select {
	case r := <-fetched:
		return r.Err
	case <-ctx.Done():
		return fmt.Errorf("fetching keys: %w", context.Cause(ctx))
	}
}

// readKeys checks what the signer answered.
func readKeys(r *externaljwtv1.FetchKeysResponse, now time.Time) (*fetchedKeys, error) {
	if r.RefreshHintSeconds <= 0 {
		return nil, fmt.Errorf("the refresh hint is %d seconds", r.RefreshHintSeconds)
	}
	if len(r.Keys) == 0 {
		return nil, errors.New("there are none")
	}
	if err := r.DataTimestamp.CheckValid(); err != nil {
		return nil, fmt.Errorf("data timestamp: %w", err)
	}
	keys := &fetchedKeys{until: now.Add(time.Duration(r.RefreshHintSeconds) * time.Second)}
	for _, k := range r.Keys {
		if id := k.GetKeyId(); id == "" || len(id) > maxKeyIDLength {
			return nil, fmt.Errorf("%q cannot be the ID of a key", id)
		}
		public, err := x509.ParsePKIXPublicKey(k.Key)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", k.KeyId, err)
		}
		keys.Keys = append(keys.Keys, PublicKey{ID: k.KeyId, Key: public, Unpublished: k.ExcludeFromOidcDiscovery})
	}
	return keys, nil
}

// Candidates implements KeySource. An ID that is not known may be of a new key.
func (e *External) Candidates(ctx context.Context, id string) Keys {
	if found := e.keys.Load().Candidates(ctx, id); len(found) > 0 {
		return found
	}
	if err := e.refresh(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Looking for the key of a ServiceAccount token", "key", id)
		return nil
	}
	return e.keys.Load().Candidates(ctx, id)
}

// Published implements KeySource.
func (e *External) Published() (Keys, time.Duration) {
	keys := e.keys.Load()
	published, _ := keys.Published()
	return published, max(0, time.Until(keys.until))
}

// Issuer is the issuer of the given name whose tokens are signed by the process.
func (e *External) Issuer(name string) *Issuer { return &Issuer{name: name, sign: e.sign} }

func (e *External) sign(ctx context.Context, c claims) (string, error) {
	token, err := e.assemble(ctx, c)
	e.metrics.signed(err)
	return token, err
}

func (e *External) assemble(ctx context.Context, c claims) (string, error) {
	payload, err := c.payload()
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	body := base64.RawURLEncoding.EncodeToString(payload)
	response, err := e.client.Sign(ctx, &externaljwtv1.SignJWTRequest{Claims: body})
	if err != nil {
		return "", err
	}
	id, err := readHeader(response.Header)
	if err != nil {
		return "", fmt.Errorf("the signer's header: %w", err)
	}
	for _, key := range e.Candidates(ctx, id) {
		if key.Unpublished {
			return "", fmt.Errorf("the signer used the key %s, which is not for new tokens", id)
		}
	}
	if response.Signature == "" {
		return "", errors.New("the signer returned no signature")
	}
	return response.Header + "." + body + "." + response.Signature, nil
}

// readHeader checks the header of a token and returns the ID of the key that signed it.
func readHeader(encoded string) (string, error) {
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&header); err != nil {
		return "", err
	}
	if header.Type != "JWT" {
		return "", fmt.Errorf("the type is %q, not JWT", header.Type)
	}
	if header.KeyID == "" || len(header.KeyID) > maxKeyIDLength {
		return "", fmt.Errorf("%q cannot be the ID of a key", header.KeyID)
	}
	switch header.Algorithm {
	case "RS256", "ES256", "ES384", "ES512":
		return header.KeyID, nil
	}
	return "", fmt.Errorf("the algorithm is %q, not RS256, ES256, ES384 or ES512", header.Algorithm)
}

// payload is the JSON of all claims.
func (c claims) payload() ([]byte, error) {
	all := map[string]json.RawMessage{}
	for _, part := range []any{c.Claims, c.private} {
		data, err := json.Marshal(part)
		if err != nil {
			return nil, err
		}
		some := map[string]json.RawMessage{}
		if err := json.Unmarshal(data, &some); err != nil {
			return nil, err
		}
		maps.Copy(all, some)
	}
	return json.Marshal(all)
}
