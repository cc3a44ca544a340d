package authentication

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	"k8s.io/utils/ptr"
)

// configuration merges the file of --authentication-config with the --oidc-* and
// --anonymous-auth flags, which exclude what the file says.
func (o *Options) configuration(file []byte) (*apiserverapi.AuthenticationConfiguration, authenticationcel.Compiler, error) {
	c := &apiserverapi.AuthenticationConfiguration{}
	if o.ConfigFile != "" {
		var err error
		if c, err = decodeConfiguration(file); err != nil {
			return nil, nil, fmt.Errorf("--authentication-config: %q: %w", o.ConfigFile, err)
		}
	}
	if o.OIDC.IssuerURL != "" {
		if len(c.JWT) > 0 {
			return nil, nil, errors.New("--authentication-config: its jwt authenticators and the --oidc-* flags exclude each other")
		}
		jwt, err := o.OIDC.authenticator()
		if err != nil {
			return nil, nil, err
		}
		c.JWT = []apiserverapi.JWTAuthenticator{jwt}
	}
	switch {
	case c.Anonymous == nil:
		c.Anonymous = &apiserverapi.AnonymousAuthConfig{Enabled: o.Anonymous}
	case o.flags != nil && o.flags.Changed("anonymous-auth"):
		return nil, nil, errors.New("--authentication-config: its anonymous section and --anonymous-auth exclude each other")
	}
	if o.ConfigFile == "" && len(c.JWT) == 0 {
		return c, nil, nil // nothing to check, and the compiler is slow to make
	}
	compiler := authenticationcel.NewDefaultCompiler()
	if err := validation.ValidateAuthenticationConfiguration(compiler, c, o.ServiceAccount.Issuers).ToAggregate(); err != nil {
		if o.ConfigFile != "" {
			return nil, nil, fmt.Errorf("--authentication-config: %q: %w", o.ConfigFile, err)
		}
		return nil, nil, fmt.Errorf("--oidc-issuer-url: %w", err)
	}
	return c, compiler, nil
}

// read returns the content of the file of --authentication-config; nil without one.
func (o *Options) read() ([]byte, error) {
	if o.ConfigFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("--authentication-config: %w", err)
	}
	return data, nil
}

func decodeConfiguration(data []byte) (*apiserverapi.AuthenticationConfiguration, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty")
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserverapi.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected an AuthenticationConfiguration, got %T", obj)
	}
	return c, nil
}

// authenticator says in the terms of the file what the --oidc-* flags say.
func (o OIDCOptions) authenticator() (apiserverapi.JWTAuthenticator, error) {
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && o.UsernameClaim != "email":
		prefix = o.IssuerURL + "#"
	}
	a := apiserverapi.JWTAuthenticator{
		Issuer: apiserverapi.Issuer{URL: o.IssuerURL, Audiences: []string{o.ClientID}},
		ClaimMappings: apiserverapi.ClaimMappings{
			Username: apiserverapi.PrefixedClaimOrExpression{Claim: o.UsernameClaim, Prefix: ptr.To(prefix)},
		},
	}
	if o.GroupsClaim != "" {
		a.ClaimMappings.Groups = apiserverapi.PrefixedClaimOrExpression{Claim: o.GroupsClaim, Prefix: ptr.To(o.GroupsPrefix)}
	}
	for claim, value := range o.RequiredClaims {
		a.ClaimValidationRules = append(a.ClaimValidationRules, apiserverapi.ClaimValidationRule{Claim: claim, RequiredValue: value})
	}
	if o.CAFile != "" {
		ca, err := os.ReadFile(o.CAFile)
		if err != nil {
			return a, fmt.Errorf("--oidc-ca-file: %w", err)
		}
		a.Issuer.CertificateAuthority = string(ca)
	}
	return a, nil
}

// jwtProviders returns the OpenID Connect providers of c. They end with ctx.
func (o *Options) jwtProviders(ctx context.Context, c *apiserverapi.AuthenticationConfiguration, compiler authenticationcel.Compiler, d Dependencies) (*jwtProviders, error) {
	algorithms := o.OIDC.SigningAlgorithms
	if o.OIDC.IssuerURL == "" {
		algorithms = oidc.AllValidSigningAlgorithms()
	}
	var all []authenticator.Token
	p := &jwtProviders{}
	for i, jwt := range c.JWT {
		var ca oidc.CAContentProvider
		if pem := jwt.Issuer.CertificateAuthority; pem != "" {
			var err error
			if ca, err = dynamiccertificates.NewStaticCAContent("oidc-authenticator", []byte(pem)); err != nil {
				return nil, fmt.Errorf("jwt[%d].issuer.certificateAuthority: %w", i, err)
			}
		}
		a, err := oidc.New(ctx, oidc.Options{
			JWTAuthenticator:     jwt,
			CAContentProvider:    ca,
			EgressLookup:         d.Egress,
			Compiler:             compiler,
			SupportedSigningAlgs: algorithms,
			DisallowedIssuers:    o.ServiceAccount.Issuers,
			APIServerID:          d.APIServerID,
		})
		if err != nil {
			return nil, fmt.Errorf("jwt[%d]: %w", i, err)
		}
		all = append(all, a)
		p.health = append(p.health, a.HealthCheck)
	}
	if len(all) > 0 {
		p.Token = union.New(all...)
	}
	return p, nil
}
