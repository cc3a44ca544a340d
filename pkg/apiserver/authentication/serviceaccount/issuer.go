package serviceaccount

import (
	"context"
	"crypto"
	"fmt"

	"gopkg.in/go-jose/go-jose.v2/jwt"

	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/pkg/api/authentication/signing"
)

// An Issuer signs tokens in the name of one issuer URL.
type Issuer struct {
	name string
	// sign makes a token of claims.
	sign func(context.Context, claims) (string, error)
}

// LoadIssuer returns the issuer that signs with the private key in the file.
func LoadIssuer(name, keyFile string) (*Issuer, error) {
	key, err := keyutil.PrivateKeyFromFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the signing key from %q: %w", keyFile, err)
	}
	private, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading the signing key from %q: a key of type %T cannot sign", keyFile, key)
	}
	return NewIssuer(name, private)
}

// NewIssuer returns the issuer of the given name (its URL), signing with an RSA
// or ECDSA key.
func NewIssuer(name string, key crypto.Signer) (*Issuer, error) {
	signer, err := signing.NewSigner(key)
	if err != nil {
		return nil, err
	}
	return &Issuer{name: name, sign: func(_ context.Context, c claims) (string, error) {
		return jwt.Signed(signer).Claims(c.Claims).Claims(c.private).CompactSerialize()
	}}, nil
}

// issue adds the issuer to the claims and returns them as a signed token.
func (i *Issuer) issue(ctx context.Context, c claims) (string, error) {
	c.Issuer = i.name
	return i.sign(ctx, c)
}
