package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const providersConfig = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: plugin
  matchImages: ["*.example.com", "reg.example.org/team"]
  defaultCacheDuration: 10m
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [--user]
  env: [{name: WHO, value: me}]
`

// providers has a plugin that answers with the given rest of an answer, and counts how often it is asked.
func providers(t *testing.T, config, rest string) (*Providers, func() int, error) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := fmt.Sprintf("#!/bin/sh\ncat >> %s; echo >> %s\n[ \"$1$WHO\" = --userme ] || exit 1\ncat <<END\n"+
		`{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", %s}`+"\nEND\n", log, log, rest)
	for name, content := range map[string]string{"plugin": script, "config.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := LoadProviders(filepath.Join(dir, "config.yaml"), dir)
	return p, func() int {
		raw, _ := os.ReadFile(log)
		return strings.Count(string(raw), `"kind":"CredentialProviderRequest"`)
	}, err
}

func TestProviders(t *testing.T) {
	const auth = `"auth": {"*.example.com": {"username": "u", "password": "wild"}, "a.example.com/x": {"username": "u", "password": "near"}}`
	for name, test := range map[string]struct {
		rest   string
		images []string
		asked  int
		want   string // passwords for the last image
	}{
		"no match":      {auth, []string{"other.example.net/x:1"}, 0, ""},
		"best first":    {`"cacheKeyType": "Image", ` + auth, []string{"a.example.com/x:1"}, 1, "near wild"},
		"image cached":  {`"cacheKeyType": "Image", ` + auth, []string{"a.example.com/x:1", "a.example.com/y:1", "a.example.com/x:1"}, 2, "near wild"},
		"registry":      {`"cacheKeyType": "Registry", ` + auth, []string{"a.example.com/x:1", "a.example.com/y:1", "b.example.com/y:1"}, 2, "wild"},
		"global":        {`"cacheKeyType": "Global", ` + auth, []string{"a.example.com/x:1", "b.example.com/y:1"}, 1, "wild"},
		"not cached":    {`"cacheKeyType": "Global", "cacheDuration": "0s", ` + auth, []string{"a.example.com/x:1", "a.example.com/x:1"}, 2, "near wild"},
		"a wrong key":   {`"cacheKeyType": "Moon", ` + auth, []string{"a.example.com/x:1"}, 1, ""},
		"nothing there": {`"cacheKeyType": "Image"`, []string{"a.example.com/x:1"}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, asked, err := providers(t, providersConfig, test.rest)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, image := range test.images {
				got = nil
				for _, c := range p.For(t.Context(), image) {
					got = append(got, c.password)
				}
			}
			if strings.Join(got, " ") != test.want || asked() != test.asked {
				t.Errorf("got %q after asking %d times; want %q, %d", got, asked(), test.want, test.asked)
			}
		})
	}
}

func TestProvidersExpire(t *testing.T) {
	p, asked, err := providers(t, providersConfig, `"cacheKeyType": "Global"`)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p.now = func() time.Time { return now }
	for _, step := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {9 * time.Minute, 1}, {2 * time.Minute, 2}} {
		now = now.Add(step.after)
		p.For(t.Context(), "a.example.com/x")
		if asked() != step.asked {
			t.Errorf("asked %d times, want %d", asked(), step.asked)
		}
	}
}

// blocking has a plugin that answers for images of a.example.com at once, and for others when the returned function is called.
func blocking(t *testing.T) (*Providers, func()) {
	t.Helper()
	p, _, err := providers(t, providersConfig, "")
	if err != nil {
		t.Fatal(err)
	}
	hold := filepath.Join(t.TempDir(), "hold") // which goes with the test, at the latest
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `#!/bin/sh
case "$(cat)" in *a.example.com*) ;; *) while [ -e ` + hold + ` ]; do sleep 0.05; done;; esac
echo '{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "cacheKeyType": "Image", "auth": {"*.example.com": {"username": "u", "password": "p"}}}'
`
	if err := os.WriteFile(p.list[0].program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return p, func() { os.Remove(hold) }
}

// A plugin that blocks for one image blocks none of the others, and nobody who has given up.
func TestProviderBlocks(t *testing.T) {
	p, release := blocking(t)
	ctx, cancel := context.WithCancel(t.Context())
	impatient, patient := make(chan int, 1), make(chan int, 1)
	go func() { impatient <- len(p.For(ctx, "slow.example.com/x")) }()
	go func() { patient <- len(p.For(t.Context(), "slow.example.com/x")) }()
	if got := p.For(t.Context(), "a.example.com/x"); len(got) != 1 {
		t.Errorf("for another image: %v", got)
	}
	cancel()
	if got := <-impatient; got != 0 {
		t.Errorf("who has given up got %d credentials", got)
	}
	release()
	if got := <-patient; got != 1 {
		t.Errorf("who has waited got %d credentials", got)
	}
}

// A plugin that never answers is ended, with what it has started.
func TestProviderIsEnded(t *testing.T) {
	p, _ := blocking(t)
	p.list[0].patience = time.Millisecond
	if got := p.For(t.Context(), "slow.example.com/x"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestLoadProviders(t *testing.T) {
	for from, test := range map[string]struct{ to, err string }{
		"kubelet.config.k8s.io/v1":             {"v1", "is not a CredentialProviderConfig"},
		"name: plugin":                         {"name: absent", "providers[0]: name:"},
		"- name: plugin":                       {"- name: ../plugin", "is not the name of a file"},
		"args: [--user]":                       {"unknown: x", "unknown"},
		"  defaultCacheDuration: 10m":          {"", "defaultCacheDuration"},
		"credentialprovider.kubelet.k8s.io/v1": {"credentialprovider.kubelet.k8s.io/v9", "apiVersion"},
		"env: [{name: WHO, value: me}]":        {"tokenAttributes: {serviceAccountTokenAudience: x}", "tokenAttributes"},
	} {
		if _, _, err := providers(t, strings.Replace(providersConfig, from, test.to, 1), ""); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("with %q: %v", test.to, err)
		}
	}
}
