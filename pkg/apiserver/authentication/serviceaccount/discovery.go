package serviceaccount

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/emicklei/go-restful/v3"
	jose "gopkg.in/go-jose/go-jose.v2"

	"github.com/leme-k8s/leme/pkg/api/authentication/signing"
)

const (
	configurationPath = "/.well-known/openid-configuration"
	keySetPath        = "/openid/v1/jwks"
)

// A Discovery serves the OpenID Connect discovery document and the key set with
// which others check ServiceAccount tokens.
type Discovery struct {
	issuer, keySetURI string
	keys              KeySource
}

// NewDiscovery returns the documents of an issuer. keySetURI overrides where the
// key set is said to be; by default that is this server's external address.
func NewDiscovery(issuer, keySetURI, externalAddress string, keys KeySource) (*Discovery, error) {
	if u, err := url.Parse(issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the issuer %q is not an https URL without query and fragment", issuer)
	}
	if keySetURI == "" {
		keySetURI = (&url.URL{Scheme: "https", Host: externalAddress, Path: keySetPath}).String()
	}
	if u, err := url.Parse(keySetURI); err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("the key set's address %q is not an https URL", keySetURI)
	}
	d := &Discovery{issuer: issuer, keySetURI: keySetURI, keys: keys}
	published, _ := keys.Published()
	_, _, err := d.documents(published)
	return d, err
}

// documents are the discovery document and the key set.
func (d *Discovery) documents(keys Keys) (configuration, keySet []byte, err error) {
	var set jose.JSONWebKeySet
	var algorithms []string
	for _, key := range keys {
		alg, err := signing.Algorithm(key.Key)
		if err != nil {
			return nil, nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Key, KeyID: key.ID, Algorithm: string(alg), Use: "sig"})
		if !slices.Contains(algorithms, string(alg)) {
			algorithms = append(algorithms, string(alg))
		}
	}
	slices.Sort(algorithms)
	if keySet, err = json.Marshal(set); err != nil {
		return nil, nil, fmt.Errorf("encoding the key set: %w", err)
	}
	configuration, err = json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		KeySetURI     string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{d.issuer, d.keySetURI, []string{"id_token"}, []string{"public"}, algorithms})
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the discovery document: %w", err)
	}
	return configuration, keySet, nil
}

// Install serves the documents. Who may read them is for authorization to say.
func (d *Discovery) Install(c *restful.Container) {
	serve := func(path, contentType, operation, doc string, choose func(configuration, keySet []byte) []byte) {
		s := new(restful.WebService).Path(path).Produces(contentType)
		s.Route(s.GET("").Doc(doc).Operation(operation).Returns(http.StatusOK, "OK", "").To(func(_ *restful.Request, w *restful.Response) {
			keys, age := d.keys.Published()
			configuration, keySet, err := d.documents(keys)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(age.Seconds())))
			_, _ = w.Write(choose(configuration, keySet)) // the client has gone: nobody to tell
		}))
		c.Add(s)
	}
	serve(configurationPath, "application/json", "getServiceAccountIssuerOpenIDConfiguration",
		"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", func(configuration, _ []byte) []byte { return configuration })
	serve(keySetPath, "application/jwk-set+json", "getServiceAccountIssuerOpenIDKeyset",
		"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", func(_, keySet []byte) []byte { return keySet })
}
