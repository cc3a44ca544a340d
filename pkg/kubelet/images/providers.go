package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/klog/v2"
	kubeletconfigv1 "k8s.io/kubelet/config/v1"
	credentialprovider "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"sigs.k8s.io/yaml"
)

// Providers ask plugins, programs on the node, for credentials of images.
type Providers struct {
	list    []*provider
	now     func() time.Time
	hash    string // of the configuration
	metrics *providerMetrics
}

// A provider is one plugin, and what it has said lately.
type provider struct {
	kubeletconfigv1.CredentialProvider
	program  string
	patience time.Duration
	metrics  *providerMetrics
	asking   singleflight.Group // by image: many pods of an image that begin together ask once

	mu    sync.Mutex
	cache map[cacheKey]cached
}

// patience is how long a plugin may take.
const patience = time.Minute

type cacheKey struct {
	kind credentialprovider.PluginCacheKeyType
	of   string // the image, the registry, or nothing
}

type cached struct {
	credentials Credentials
	until       time.Time
}

// LoadProviders reads a CredentialProviderConfig, of plugins in a directory.
func LoadProviders(file, dir string) (*Providers, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var config kubeletconfigv1.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(raw, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	group, version, _ := strings.Cut(config.APIVersion, "/")
	if config.Kind != "CredentialProviderConfig" || group != kubeletconfigv1.GroupName || !slices.Contains(versions, version) {
		return nil, fmt.Errorf("%s: %s %q is not a CredentialProviderConfig of %s", file, config.APIVersion, config.Kind, kubeletconfigv1.GroupName)
	}
	if len(config.Providers) == 0 {
		return nil, fmt.Errorf("%s: providers: there must be at least one", file)
	}
	seen := map[string]bool{}
	var errs []error
	out := &Providers{now: time.Now, hash: fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), metrics: newProviderMetrics()}
	for i, p := range config.Providers {
		if err := validateProvider(&p, dir, seen); err != nil {
			errs = append(errs, fmt.Errorf("%s: providers[%d]: %w", file, i, err))
		}
		seen[p.Name] = true
		out.list = append(out.list, &provider{CredentialProvider: p, program: filepath.Join(dir, p.Name), patience: patience, metrics: out.metrics, cache: map[cacheKey]cached{}})
	}
	return out, errors.Join(errs...)
}

// versions are those that differ in nothing that is used here.
var versions = []string{"v1", "v1beta1", "v1alpha1"}

func validateProvider(p *kubeletconfigv1.CredentialProvider, dir string, seen map[string]bool) error {
	group, version, _ := strings.Cut(p.APIVersion, "/")
	switch {
	case p.Name == "" || filepath.Base(p.Name) != p.Name || p.Name == "." || p.Name == "..":
		return fmt.Errorf("name: %q is not the name of a file in the directory of plugins", p.Name)
	case seen[p.Name]:
		return fmt.Errorf("name: %q is there twice", p.Name)
	case len(p.MatchImages) == 0:
		return errors.New("matchImages: must not be empty")
	case p.DefaultCacheDuration == nil || p.DefaultCacheDuration.Duration < 0:
		return errors.New("defaultCacheDuration: must be given, and not be negative")
	case group != credentialprovider.GroupName || !slices.Contains(versions, version):
		return fmt.Errorf("apiVersion: %q is not a version of %s", p.APIVersion, credentialprovider.GroupName)
	case p.TokenAttributes != nil:
		return errors.New("tokenAttributes: tokens of ServiceAccounts for plugins are not available")
	}
	if _, err := exec.LookPath(filepath.Join(dir, p.Name)); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	return nil
}

// For returns the credentials that plugins have for an image, best first. A plugin that fails has none.
func (p *Providers) For(ctx context.Context, image string) []Credential {
	if p == nil {
		return nil
	}
	var out []Credential
	for _, provider := range p.list {
		if !slices.ContainsFunc(provider.MatchImages, func(pattern string) bool { return matches(normalize(pattern), registryName(image)) }) {
			continue
		}
		found, err := provider.ask(ctx, image, p.now)
		if err != nil {
			klog.FromContext(ctx).Error(err, "A credential provider plugin has failed", "plugin", provider.Name, "image", image)
			continue
		}
		out = append(out, found.For(image)...)
	}
	return out
}

// ask returns what the plugin has said lately that fits the image, or asks it.
func (p *provider) ask(ctx context.Context, image string, now func() time.Time) (Credentials, error) {
	keys := []cacheKey{
		{credentialprovider.ImagePluginCacheKeyType, image},
		{credentialprovider.RegistryPluginCacheKeyType, registryOf(image)},
		{credentialprovider.GlobalPluginCacheKeyType, ""},
	}
	if known, ok := p.known(keys, now()); ok {
		return known, nil
	}
	// A plugin that is slow about one image is asked about others meanwhile.
	answer := p.asking.DoChan(image, func() (any, error) {
		began := time.Now()
		found, err := p.fetch(context.WithoutCancel(ctx), image, keys, now)
		p.metrics.ran(p.Name, time.Since(began), err)
		return found, err
	})
	select {
	case r := <-answer:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(Credentials), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// known returns what the plugin has said lately, under one of some keys.
func (p *provider) known(keys []cacheKey, now time.Time) (Credentials, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.cache, func(_ cacheKey, c cached) bool { return !now.Before(c.until) })
	for _, key := range keys {
		if c, ok := p.cache[key]; ok {
			return c.credentials, true
		}
	}
	return nil, false
}

// fetch asks the plugin.
func (p *provider) fetch(ctx context.Context, image string, keys []cacheKey, now func() time.Time) (Credentials, error) {
	resp, err := p.run(ctx, image)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(keys, func(k cacheKey) bool { return k.kind == resp.CacheKeyType })
	if i < 0 {
		return nil, fmt.Errorf("its answer has the cacheKeyType %q", resp.CacheKeyType)
	}
	var found Credentials
	for pattern, a := range resp.Auth {
		found = append(found, Credential{match: normalize(pattern), username: a.Username, password: a.Password})
	}
	slices.SortFunc(found, func(a, b Credential) int { return strings.Compare(b.match, a.match) })
	keep := p.DefaultCacheDuration.Duration
	if resp.CacheDuration != nil {
		keep = resp.CacheDuration.Duration
	}
	if keep > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cache[keys[i]] = cached{found, now().Add(keep)}
	}
	return found, nil
}

func registryOf(image string) string {
	registry, _, _ := strings.Cut(registryName(image), "/")
	return registry
}

// run runs the plugin.
func (p *provider) run(ctx context.Context, image string) (*credentialprovider.CredentialProviderResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	request := credentialprovider.CredentialProviderRequest{Image: image}
	request.Kind, request.APIVersion = "CredentialProviderRequest", p.APIVersion
	in, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.program, p.Args...)
	cmd.WaitDelay = time.Second // for what a plugin that was killed has started
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(in), &stdout, &stderr, os.Environ()
	for _, e := range p.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	resp := &credentialprovider.CredentialProviderResponse{}
	if err := json.Unmarshal(stdout.Bytes(), resp); err != nil {
		return nil, fmt.Errorf("its answer: %w", withoutContent(err))
	}
	if resp.Kind != "CredentialProviderResponse" || resp.APIVersion != p.APIVersion {
		return nil, fmt.Errorf("its answer is a %s of %s, not a CredentialProviderResponse of %s", resp.Kind, resp.APIVersion, p.APIVersion)
	}
	return resp, nil
}
