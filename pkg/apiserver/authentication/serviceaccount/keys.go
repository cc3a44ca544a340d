package serviceaccount

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	jose "gopkg.in/go-jose/go-jose.v2"

	"k8s.io/client-go/util/keyutil"
)

// A PublicKey verifies the tokens whose header carries its ID.
type PublicKey struct {
	ID  string
	Key crypto.PublicKey
}

// Keys are the public keys that tokens are checked with.
type Keys []PublicKey

// LoadKeys reads every PEM-encoded public or private key of the files and keeps
// the public halves, each once.
func LoadKeys(files ...string) (Keys, error) {
	var keys Keys
	seen := map[string]bool{}
	for _, file := range files {
		found, err := keyutil.PublicKeysFromFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading public keys from %q: %w", file, err)
		}
		for _, k := range found {
			id, err := keyID(k)
			if err != nil {
				return nil, fmt.Errorf("reading public keys from %q: %w", file, err)
			}
			if !seen[id] {
				seen[id] = true
				keys = append(keys, PublicKey{ID: id, Key: k})
			}
		}
	}
	return keys, nil
}

// candidates are the keys that may have signed a token with the given key ID,
// which old tokens do not carry.
func (k Keys) candidates(id string) Keys {
	if id == "" {
		return k
	}
	for _, key := range k {
		if key.ID == id {
			return Keys{key}
		}
	}
	return nil
}

// keyID is the base64url SHA-256 of the key's DER encoding, so that it follows
// from the key alone.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func algorithm(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
		return "", fmt.Errorf("the curve %s is not P-256, P-384 or P-521", k.Curve.Params().Name)
	}
	return "", fmt.Errorf("a key of type %T is neither RSA nor ECDSA", public)
}
