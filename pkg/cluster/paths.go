// Package cluster is what `leme up` does: it makes a cluster's certificates, starts
// etcd, containerd and the components, prepares the machine as a node, deploys the
// addons, watches over all of it, and takes everything away again.
//
// One background process owns a running cluster: [Up] prepares and starts it,
// [Run] is what it does, and a socket in the data directory tells its [Status].
// Components run inside it, from the argument lists that their own binaries would
// get, or as child processes from any binary that takes these arguments.
package cluster

import "path/filepath"

// dataDir is a cluster's data directory; its methods are the paths in it.
type dataDir string

func (d dataDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d dataDir) stateFile() string              { return d.path("cluster.yaml") }
func (d dataDir) pki(file string) string         { return d.path("pki", file) }
func (d dataDir) kubeconfig(name string) string  { return d.path("kubeconfig", name+".conf") }
func (d dataDir) config(file string) string      { return d.path("config", file) }
func (d dataDir) log(component string) string    { return d.path("log", component+".log") }
func (d dataDir) run(file string) string         { return d.path("run", file) }
func (d dataDir) lockFile() string               { return d.run("lock") }
func (d dataDir) failureFile() string            { return d.run("failure") }
func (d dataDir) controlSocket() string          { return d.run("leme.sock") }
func (d dataDir) containerdSocket() string       { return d.run("containerd.sock") }
func (d dataDir) adminKubeconfig() string        { return d.kubeconfig("admin") }
func (d dataDir) cniConfig() string              { return d.path("cni", "net.d", "10-leme.conflist") }
func (d dataDir) nodeSpec() string               { return d.path("node.yaml") }
func (d dataDir) binary(component string) string { return d.path("bin", component) }

// node is the root of the file system of a further node.
func (d dataDir) node(name string) string { return d.path("nodes", name) }

// nodeDir is the data directory of a further node, as this machine sees it.
func (d dataDir) nodeDir(name string) dataDir {
	return dataDir(filepath.Join(d.node(name), string(machineDir)))
}

const (
	// machineDir is the data directory of a further node, as the node sees it.
	machineDir = dataDir("/var/lib/leme")
	// machineRuntime is where a further node has containerd and what belongs to it.
	machineRuntime = "/opt/leme/runtime"
)
