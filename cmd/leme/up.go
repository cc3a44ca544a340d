package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
	"github.com/leme-k8s/leme/pkg/cluster"
)

// upFlags are the flags of `leme up`. Those that the configuration file has too win
// over it.
type upFlags struct {
	file       string
	with       []string
	foreground bool
	timeout    time.Duration
	over       v1alpha1.Cluster
}

func newUp(g *global) *cobra.Command {
	f := &upFlags{timeout: 5 * time.Minute}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster, and make it if there is none",
		Long: "Start the cluster and return when it answers. A cluster that was stopped or has crashed comes back with its data; " +
			"one that runs is left alone.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			with, err := parseWith(f.with)
			if err != nil {
				return err
			}
			c, err := f.config(g.dataDir, cmd.Flags().Changed("data-dir"))
			if err != nil {
				return err
			}
			return cluster.Up(cmd.Context(), cluster.Options{
				Config: c, DataDir: c.DataDir, With: with, Components: components,
				Foreground: f.foreground, Timeout: f.timeout, Out: cluster.NewReporter(os.Stdout),
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (f *upFlags) add(fs *pflag.FlagSet) {
	fs.StringVarP(&f.file, "config", "f", "", "`File` that describes the cluster: apiVersion "+v1alpha1.GroupVersion+", kind "+v1alpha1.Kind)
	fs.StringArrayVar(&f.with, "with", nil, "Run a component from another binary this time, on every node, as in kube-scheduler=/path, or inside leme, as in kube-scheduler=leme; may be repeated")
	fs.BoolVar(&f.foreground, "foreground", false, "Run the cluster in this process, for a service manager")
	fs.DurationVar(&f.timeout, "timeout", f.timeout, "`Time` to wait for the cluster to answer")
	fs.StringVar(&f.over.Name, "name", "", "`Name` of the cluster and of its context in your kubeconfig (default leme)")
	fs.StringSliceVar(&f.over.Etcd.Servers, "etcd-servers", nil, "`URLs` of an etcd that runs already, instead of one inside leme")
	fs.StringVar(&f.over.Etcd.CAFile, "etcd-cafile", "", "`File` with the certificates to trust these servers by")
	fs.StringVar(&f.over.Etcd.CertFile, "etcd-certfile", "", "`File` with the client certificate for these servers")
	fs.StringVar(&f.over.Etcd.KeyFile, "etcd-keyfile", "", "`File` with the key of that certificate")
	fs.StringVar(&f.over.RuntimeDir, "runtime-dir", "", "`Directory` of containerd, runc and CNI plugins (default: runtime beside this program, or /usr/lib/leme/runtime)")
	fs.StringVar(&f.over.ImagesDir, "images-dir", "", "`Directory` of image archives (default: images beside this program, or /usr/lib/leme/images)")
	fs.IntVar(&f.over.Nodes, "nodes", 0, "`Number` of nodes to start with: this machine and further ones within it (default 1)")
	fs.StringVar(&f.over.Networking.NodeIP, "node-ip", "", "`Address` of this machine that the cluster uses (default: the one of the default route)")
}

// config is the file, or what the cluster has kept, with the flags over it.
func (f *upFlags) config(dataDir string, dataDirSet bool) (*v1alpha1.Cluster, error) {
	c := &v1alpha1.Cluster{}
	if f.file != "" {
		data, err := os.ReadFile(f.file)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		if c, err = v1alpha1.Parse(data); err != nil {
			return nil, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if c.DataDir == "" || dataDirSet {
		c.DataDir = dataDir
	}
	if f.file == "" {
		kept, err := cluster.KeptConfig(c.DataDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			c = kept
		}
	}
	for _, s := range []struct{ flag, field *string }{
		{&f.over.Name, &c.Name}, {&f.over.RuntimeDir, &c.RuntimeDir}, {&f.over.ImagesDir, &c.ImagesDir},
		{&f.over.Networking.NodeIP, &c.Networking.NodeIP},
		{&f.over.Etcd.CAFile, &c.Etcd.CAFile}, {&f.over.Etcd.CertFile, &c.Etcd.CertFile}, {&f.over.Etcd.KeyFile, &c.Etcd.KeyFile},
	} {
		if *s.flag != "" {
			*s.field = *s.flag
		}
	}
	if f.over.Nodes != 0 {
		c.Nodes = f.over.Nodes
	}
	if f.over.Etcd.Servers != nil {
		c.Etcd.Servers = f.over.Etcd.Servers
	}
	if err := c.Default(); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		if f.file != "" {
			return nil, fmt.Errorf("%s: %w", f.file, err)
		}
		return nil, err
	}
	return c, nil
}

// parseWith reads component=path pairs.
func parseWith(pairs []string) (map[string]string, error) {
	with := map[string]string{}
	for _, p := range pairs {
		name, path, err := parsePair(p)
		if err != nil {
			return nil, fmt.Errorf("--with: %w", err)
		}
		with[name] = path
	}
	return with, nil
}

// parsePair reads one component=path, or component=leme.
func parsePair(pair string) (name, path string, err error) {
	name, path, ok := strings.Cut(pair, "=")
	if !ok || path == "" {
		return "", "", fmt.Errorf("want COMPONENT=PATH, not %q", pair)
	}
	if !slices.Contains(v1alpha1.Components, name) {
		return "", "", fmt.Errorf("there is no component %q, only %s", name, strings.Join(v1alpha1.Components, ", "))
	}
	if path == cluster.InLeme {
		return name, path, nil
	}
	path, err = filepath.Abs(path)
	return name, path, err
}

// newRun is the background process that `leme up` starts.
func newRun(g *global) *cobra.Command {
	var pairs []string
	cmd := &cobra.Command{
		Use:    "run",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			with, err := parseWith(pairs)
			if err != nil {
				return err
			}
			return cluster.RunBackground(cmd.Context(), g.dataDir, components, with)
		},
	}
	cmd.Flags().StringArrayVar(&pairs, "with", nil, "")
	return cmd
}

// dir is the absolute path of the data directory.
func (g *global) dir() (string, error) { return filepath.Abs(g.dataDir) }

// adminKubeconfig is the path of the administrator's kubeconfig.
func (g *global) adminKubeconfig() (string, error) {
	dir, err := g.dir()
	if err != nil {
		return "", err
	}
	return cluster.AdminKubeconfig(dir)
}
