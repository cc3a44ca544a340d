package cluster

import (
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

func testState(t *testing.T, dir string) *State {
	t.Helper()
	c := v1alpha1.Cluster{DataDir: dir, Node: v1alpha1.Node{Name: "node"}}
	if err := c.Default(); err != nil {
		t.Fatal(err)
	}
	s, err := newState(c, host{portFree: func(int) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUserKubeconfig(t *testing.T) {
	dir := t.TempDir()
	d, s := dataDir(dir), testState(t, dir)
	if err := ensurePKI(d.pki(""), leaves(s, "192.0.2.7"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := writeKubeconfigs(d, "leme", s.server(), "admin", "kubelet"); err != nil {
		t.Fatal(err)
	}
	user := filepath.Join(dir, "home", "config")
	t.Setenv("KUBECONFIG", user)
	other := newKubeconfig("other", "other", "https://example.org", []byte("ca"), []byte("cert"), []byte("key"))
	if err := clientcmd.WriteToFile(*other, user); err != nil {
		t.Fatal(err)
	}
	load := func() *clientcmdapi.Config {
		t.Helper()
		c, err := clientcmd.LoadFromFile(user)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	if path, err := mergeKubeconfig(d); err != nil || path != user {
		t.Fatalf("merge: %q, %v", path, err)
	}
	c := load()
	if c.CurrentContext != "leme" || c.Clusters["leme"].Server != "https://127.0.0.1:6443" || c.Contexts["other"] == nil {
		t.Errorf("after merging: current context %q, clusters %v, contexts %v", c.CurrentContext, c.Clusters, c.Contexts)
	}

	// What the user changes in the context outlives the next start.
	c.Contexts["leme"].Namespace = "mine"
	c.CurrentContext = "other"
	if err := clientcmd.WriteToFile(*c, user); err != nil {
		t.Fatal(err)
	}
	if _, err := mergeKubeconfig(d); err != nil {
		t.Fatal(err)
	}
	if c = load(); c.CurrentContext != "leme" || c.Contexts["leme"].Namespace != "mine" {
		t.Errorf("after merging again: current context %q, namespace %q", c.CurrentContext, c.Contexts["leme"].Namespace)
	}

	if err := unmergeKubeconfig(d); err != nil {
		t.Fatal(err)
	}
	c = load()
	if c.CurrentContext != "" || c.Clusters["leme"] != nil || c.AuthInfos["leme"] != nil || c.Contexts["leme"] != nil || c.Contexts["other"] == nil {
		t.Errorf("after removal: current context %q, clusters %v, users %v, contexts %v", c.CurrentContext, c.Clusters, c.AuthInfos, c.Contexts)
	}

	// A context of the same name that leads elsewhere is not this cluster's to remove.
	foreign := newKubeconfig("leme", "leme", "https://example.org", []byte("ca"), []byte("cert"), []byte("key"))
	if err := clientcmd.WriteToFile(*foreign, user); err != nil {
		t.Fatal(err)
	}
	if err := unmergeKubeconfig(d); err != nil {
		t.Fatal(err)
	}
	if c = load(); c.Contexts["leme"] == nil {
		t.Error("removed the context of another cluster")
	}
}
