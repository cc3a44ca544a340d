package cluster

import (
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPKI(t *testing.T) {
	dir := t.TempDir()
	s := testState(t, "/var/lib/leme")
	start := time.Now()
	ensure := func(nodeIP string, now time.Time) {
		t.Helper()
		if err := ensurePKI(dir, leaves(s, nodeIP), now); err != nil {
			t.Fatal(err)
		}
	}
	ensure("192.0.2.7", start)

	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode()&0o077 != 0 && path != dir {
			t.Errorf("%s has mode %s: it is open to others", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	roots := map[string]*x509.CertPool{}
	for name := range authorities {
		ca, err := readPair(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !ca.cert.IsCA {
			t.Errorf("%s is no authority", name)
		}
		roots[name] = x509.NewCertPool()
		roots[name].AddCert(ca.cert)
	}
	for _, l := range leaves(s, "192.0.2.7") {
		p, err := readPair(filepath.Join(dir, l.Name))
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range l.Hosts {
			if err := p.cert.VerifyHostname(host); err != nil {
				t.Errorf("%s: %v", l.Name, err)
			}
			if _, err := p.cert.Verify(x509.VerifyOptions{Roots: roots[l.CA], KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				t.Errorf("%s as a server: %v", l.Name, err)
			}
		}
		if l.Client {
			if _, err := p.cert.Verify(x509.VerifyOptions{Roots: roots[l.CA], KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Errorf("%s as a client: %v", l.Name, err)
			}
		}
	}

	for _, c := range []struct {
		name    string
		nodeIP  string
		after   time.Duration
		renewed []string
	}{
		{"nothing changes", "192.0.2.7", time.Hour, nil},
		{"half a year passes", "192.0.2.7", leafLife / 2, nil},
		{"the machine's address changes", "192.0.2.8", time.Hour, []string{"apiserver", "kubelet"}},
		{"two thirds of the life are over", "192.0.2.8", leafLife*2/3 + 2*time.Hour, []string{"apiserver", "kubelet", "admin", "etcd/server", "kube-scheduler"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := read(t, dir)
			ensure(c.nodeIP, start.Add(c.after))
			after := read(t, dir)
			want := map[string]bool{}
			for _, name := range c.renewed {
				want[name+".crt"] = true
			}
			for path, data := range before {
				renewed := data != after[path]
				if want[path] && !renewed {
					t.Errorf("%s was not renewed", path)
				}
				lasting := path == "ca.crt" || path == "ca.key" || path == "sa.key" || path == "etcd/ca.crt" || path == "front-proxy-ca.crt"
				if renewed && (c.renewed == nil || lasting) {
					t.Errorf("%s was replaced", path)
				}
			}
		})
	}
}

func TestPKIBroken(t *testing.T) {
	dir := t.TempDir()
	s := testState(t, "/var/lib/leme")
	if err := ensurePKI(dir, leaves(s, "192.0.2.7"), time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Run("an authority's key is gone", func(t *testing.T) {
		key := filepath.Join(dir, "front-proxy-ca.key")
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		if err := ensurePKI(dir, leaves(s, "192.0.2.7"), time.Now()); err != nil {
			t.Fatal(err)
		}
		ca, err := readPair(filepath.Join(dir, "front-proxy-ca"))
		if err != nil {
			t.Fatal(err)
		}
		client, err := readPair(filepath.Join(dir, "front-proxy-client"))
		if err != nil {
			t.Fatal(err)
		}
		if err := client.cert.CheckSignatureFrom(ca.cert); err != nil {
			t.Errorf("the client's certificate is not of the new authority: %v", err)
		}
	})
	t.Run("a certificate is no certificate", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ensurePKI(dir, leaves(s, "192.0.2.7"), time.Now()); err == nil {
			t.Error("was taken")
		}
	})
	t.Run("the authority has expired", func(t *testing.T) {
		dir := t.TempDir()
		if err := ensurePKI(dir, leaves(s, "192.0.2.7"), time.Now().Add(-caLife-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := ensurePKI(dir, leaves(s, "192.0.2.7"), time.Now()); err == nil {
			t.Error("was taken")
		}
	})
}

// read returns the content of all files below dir.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(os.DirFS(dir), path)
		out[path] = string(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}
