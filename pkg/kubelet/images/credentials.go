package images

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Credential lets an image be pulled. The zero value is nobody's.
type Credential struct {
	// match is the registry, with a path if it is for part of one; a name of the host may be a glob.
	match                             string
	username, password, identityToken string
	secret                            *SecretCredential
}

// SecretCredential tells which secret of the API a credential is from.
type SecretCredential struct {
	UID, Namespace, Name string
	// Hash is of the credential's content.
	Hash string
}

func (c Credential) auth() *runtimeapi.AuthConfig {
	if c.username == "" && c.password == "" && c.identityToken == "" {
		return nil
	}
	return &runtimeapi.AuthConfig{Username: c.username, Password: c.password, IdentityToken: c.identityToken}
}

// Credentials are a key ring.
type Credentials []Credential

// dockerAuth is an entry of a docker config file.
type dockerAuth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// ParseSecret reads a secret of one of the two types for pulling images.
func ParseSecret(s *corev1.Secret) (Credentials, error) {
	var creds Credentials
	var err error
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		creds, err = parseConfig(s.Data[corev1.DockerConfigJsonKey])
	case corev1.SecretTypeDockercfg:
		var auths map[string]dockerAuth
		if err = json.Unmarshal(s.Data[corev1.DockerConfigKey], &auths); err == nil {
			creds, err = fromAuths(auths)
		}
	default:
		return nil, fmt.Errorf("a secret of type %q holds no credentials for images", s.Type)
	}
	if err != nil {
		return nil, withoutContent(err)
	}
	for i := range creds {
		creds[i].secret = &SecretCredential{UID: string(s.UID), Namespace: s.Namespace, Name: s.Name, Hash: creds[i].hash()}
	}
	return creds, nil
}

// withoutContent keeps what a JSON error quotes of a secret out of logs and events.
func withoutContent(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("invalid JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("invalid JSON at byte %d: unexpected %s", kind.Offset, kind.Value)
	}
	return err
}

// NodeCredentials reads the docker config files where a node's own credentials may
// be. Files that are not there are none.
func NodeCredentials(rootDir string) (Credentials, error) {
	files := []string{filepath.Join(rootDir, "config.json")}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".docker", "config.json"))
	}
	files = append(files, "/.docker/config.json")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the node's credentials for images: %w", err)
		}
		creds, err := parseConfig(b)
		if err != nil {
			return nil, fmt.Errorf("reading the node's credentials for images: %s: %w", f, withoutContent(err))
		}
		return creds, nil
	}
	return nil, nil
}

func parseConfig(b []byte) (Credentials, error) {
	var config struct {
		Auths map[string]dockerAuth `json:"auths"`
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, err
	}
	return fromAuths(config.Auths)
}

func fromAuths(auths map[string]dockerAuth) (Credentials, error) {
	var out Credentials
	for registry, a := range auths {
		c := Credential{match: normalize(registry), username: a.Username, password: a.Password, identityToken: a.IdentityToken}
		if a.Auth != "" {
			b, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				b, err = base64.RawStdEncoding.DecodeString(a.Auth)
			}
			user, password, ok := strings.Cut(string(b), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("auth of %q is not base64 of username:password", registry)
			}
			c.username, c.password = user, strings.TrimRight(password, "\x00")
		}
		out = append(out, c)
	}
	// The most particular comes first.
	slices.SortFunc(out, func(a, b Credential) int { return strings.Compare(b.match, a.match) })
	return out, nil
}

// dockerHub is the name under which Docker's own registry is known in config files.
const dockerHub = "index.docker.io"

// normalize turns a registry as people write it into host[:port][/path].
func normalize(registry string) string {
	if !strings.HasPrefix(registry, "https://") && !strings.HasPrefix(registry, "http://") {
		registry = "https://" + registry
	}
	u, err := url.Parse(registry)
	if err != nil {
		return strings.TrimPrefix(registry, "https://")
	}
	p := strings.TrimSuffix(u.Path, "/")
	if p == "/v1" || p == "/v2" || strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, "/v2/") {
		p = p[3:]
	}
	host := u.Host
	if host == "docker.io" || host == "registry-1.docker.io" {
		host = dockerHub
	}
	return host + p
}

// For returns the credentials that fit an image, best first.
func (cs Credentials) For(image string) []Credential {
	name := registryName(image)
	var out []Credential
	for _, c := range cs {
		if matches(c.match, name) {
			out = append(out, c)
		}
	}
	return out
}

// registryName is an image's name with its registry: what is before the first slash
// is one if it looks like a host.
func registryName(image string) string {
	first, _, ok := strings.Cut(image, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		if first == "docker.io" {
			return dockerHub + image[len("docker.io"):]
		}
		return image
	}
	return dockerHub + "/" + image
}

// matches compares host by host part, each a glob, the port, and the beginning of the path.
func matches(pattern, name string) bool {
	wantHost, wantPath, _ := strings.Cut(pattern, "/")
	haveHost, havePath, _ := strings.Cut(name, "/")
	wantName, wantPort := splitPort(wantHost)
	haveName, havePort := splitPort(haveHost)
	if wantPort != havePort || !strings.HasPrefix(havePath, wantPath) {
		return false
	}
	want, have := strings.Split(wantName, "."), strings.Split(haveName, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return host, ""
}

func (c Credential) hash() string {
	sum := sha256.New()
	for _, s := range []string{c.username, c.password, c.identityToken, c.match} {
		fmt.Fprintf(sum, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
