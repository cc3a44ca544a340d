package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigs are the files that components and people reach the API server with,
// each by the certificate of its own identity.
var kubeconfigs = map[string]string{
	"admin":                   "admin",
	"kube-controller-manager": "kube-controller-manager",
	"kube-scheduler":          "kube-scheduler",
	"kube-proxy":              "kube-proxy",
	"kubelet":                 "kubelet-client",
}

// writeKubeconfigs writes the files of some of them.
func writeKubeconfigs(d dataDir, cluster, server string, names ...string) error {
	ca, err := os.ReadFile(d.pki("ca.crt"))
	if err != nil {
		return err
	}
	for _, name := range names {
		leaf := kubeconfigs[name]
		cert, err := os.ReadFile(d.pki(leaf + ".crt"))
		if err != nil {
			return err
		}
		key, err := os.ReadFile(d.pki(leaf + ".key"))
		if err != nil {
			return err
		}
		user := name
		if name == "admin" {
			user = cluster
		}
		c := newKubeconfig(cluster, user, server, ca, cert, key)
		data, err := clientcmd.Write(*c)
		if err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", name, err)
		}
		if err := writeFile(d.kubeconfig(name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newKubeconfig(cluster, user, server string, ca, cert, key []byte) *clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	// The server is on this machine: compressing would only cost time, and memory for each watch.
	c.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca, DisableCompression: true}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	c.CurrentContext = cluster
	return c
}

// adminClient is the configuration of a client that may do everything.
func adminClient(d dataDir) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", d.adminKubeconfig())
	if err != nil {
		return nil, err
	}
	c.UserAgent = "leme"
	c.QPS = -1
	return c, nil
}

// mergeKubeconfig puts the cluster's context into the user's kubeconfig, the file
// that kubectl would use, and makes it the current one.
func mergeKubeconfig(d dataDir) (path string, err error) {
	added, err := clientcmd.LoadFromFile(d.adminKubeconfig())
	if err != nil {
		return "", err
	}
	// An entry is written to the file that it came from, unless it came from none.
	name := added.CurrentContext
	added.Clusters[name].LocationOfOrigin, added.Contexts[name].LocationOfOrigin = "", ""
	for _, user := range added.AuthInfos {
		user.LocationOfOrigin = ""
	}
	options := clientcmd.NewDefaultPathOptions()
	path = options.GetDefaultFilename()
	err = modifyUserKubeconfig(options, func(c *clientcmdapi.Config) bool {
		if c.CurrentContext == name && sameCredentials(c.AuthInfos[name], added.AuthInfos[name]) &&
			c.Clusters[name] != nil && c.Clusters[name].Server == added.Clusters[name].Server {
			return false
		}
		c.Clusters[name], c.AuthInfos[name] = added.Clusters[name], added.AuthInfos[name]
		if c.Contexts[name] == nil { // a namespace that the user chose stays
			c.Contexts[name] = added.Contexts[name]
		}
		c.CurrentContext = name
		return true
	})
	return path, err
}

func sameCredentials(a, b *clientcmdapi.AuthInfo) bool {
	return a != nil && b != nil && bytes.Equal(a.ClientCertificateData, b.ClientCertificateData)
}

// unmergeKubeconfig removes the context again, if it leads to this cluster.
func unmergeKubeconfig(d dataDir) error {
	added, err := clientcmd.LoadFromFile(d.adminKubeconfig())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never got as far as having one
	}
	if err != nil {
		return err
	}
	name := added.CurrentContext
	return modifyUserKubeconfig(clientcmd.NewDefaultPathOptions(), func(c *clientcmdapi.Config) bool {
		cluster := c.Clusters[name]
		if cluster == nil || !bytes.Equal(cluster.CertificateAuthorityData, added.Clusters[name].CertificateAuthorityData) {
			return false
		}
		delete(c.Clusters, name)
		delete(c.AuthInfos, name)
		delete(c.Contexts, name)
		if c.CurrentContext == name {
			c.CurrentContext = ""
		}
		return true
	})
}

func modifyUserKubeconfig(options *clientcmd.PathOptions, change func(*clientcmdapi.Config) bool) error {
	c, err := options.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig %s: %w", options.GetDefaultFilename(), err)
	}
	if !change(c) {
		return nil
	}
	if err := clientcmd.ModifyConfig(options, *c, true); err != nil {
		return fmt.Errorf("writing the kubeconfig %s: %w", options.GetDefaultFilename(), err)
	}
	return nil
}
