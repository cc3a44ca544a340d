package serviceaccount

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/util/keyutil"

	"github.com/leme-k8s/leme/pkg/api/authentication/signing"
)

// A PublicKey verifies the tokens whose header carries its ID.
type PublicKey struct {
	ID  string
	Key crypto.PublicKey
	// Unpublished keys check tokens of old and are not in the key set.
	Unpublished bool
}

// A KeySource knows the public keys that tokens are checked with.
type KeySource interface {
	// Candidates are the keys that may have signed a token with the given key ID,
	// which old tokens do not carry.
	Candidates(ctx context.Context, id string) Keys
	// Published are the keys for others, and how long these may keep them.
	Published() (Keys, time.Duration)
}

// keySetAge is how long others may keep keys that do not change.
const keySetAge = time.Hour

// Keys are public keys that do not change.
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
			id, err := signing.KeyID(k)
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

// Candidates implements KeySource.
func (k Keys) Candidates(_ context.Context, id string) Keys {
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

// Published implements KeySource.
func (k Keys) Published() (Keys, time.Duration) {
	return slices.DeleteFunc(slices.Clone(k), func(key PublicKey) bool { return key.Unpublished }), keySetAge
}
