package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A cluster is what the suite runs on: one of Leme, or any other by its kubeconfig.
type cluster struct {
	leme, dataDir, images string
	nodes                 int // 0 if it is not one of Leme
	with                  []string
	kubeconfig            string
}

// flags tell the suite about the cluster. Left to itself it counts nodes in the first of its processes only, and what
// needs two is skipped in the others.
func (c cluster) flags() []string {
	flags := []string{"--kubeconfig=" + c.kubeconfig}
	if c.nodes > 0 {
		flags = append(flags, "--num-nodes="+strconv.Itoa(c.nodes))
	}
	return flags
}

// up starts a cluster of Leme in a data directory of its own, in place of what an
// earlier run may have left there.
func (c *cluster) up(ctx context.Context) error {
	if _, err := os.Stat(c.dataDir); err == nil {
		if err := c.down(ctx); err != nil {
			return err
		}
	}
	args := []string{"up", "--name", "conformance", "--images-dir", c.images}
	if c.nodes > 1 {
		args = append(args, "--nodes", strconv.Itoa(c.nodes))
	}
	for _, w := range c.with {
		args = append(args, "--with", w)
	}
	if err := c.run(ctx, args...); err != nil {
		return err
	}
	c.kubeconfig = filepath.Join(c.dataDir, "kubeconfig", "admin.conf")
	return nil
}

func (c *cluster) down(ctx context.Context) error { return c.run(ctx, "down") }

func (c *cluster) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.leme, append([]string{"--data-dir", c.dataDir}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it undoes what it has done
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("leme %s: %w", args[0], err)
	}
	return nil
}

// leastFree is the disk space, in bytes, below which kubelets evict and the results mean nothing.
const leastFree = 1 << 30

// patience is how long the cluster may be in trouble before the run is given up.
const patience = time.Minute

// watch returns why the run is hopeless: a node that is gone, an API server that does not
// answer, a disk that is full. It returns nil when the context ends.
func (c *cluster) watch(ctx context.Context, kubectl, out string) error {
	dir := out
	if _, err := os.Stat(c.dataDir); err == nil {
		dir = c.dataDir
	}
	var v vigil
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Second):
		}
		free, err := freeSpace(dir)
		if err == nil {
			err = c.ready(ctx, kubectl)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := v.look(time.Now(), dir, free, err); err != nil {
			return err
		}
	}
}

// freeSpace is what the disk of a directory has left, in bytes.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return leastFree, fmt.Errorf("space on the disk of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// A vigil remembers since when a cluster is in trouble.
type vigil struct{ since time.Time }

// look takes what is seen at a time, the space that is free and what is wrong with the
// cluster, and returns why the run is hopeless, or nil.
func (v *vigil) look(now time.Time, dir string, free uint64, trouble error) error {
	switch {
	case free < leastFree:
		return fmt.Errorf("the disk of %s is full: %d MiB are free, the kubelets need %d", dir, free>>20, leastFree>>20)
	case trouble == nil:
		v.since = time.Time{}
	case v.since.IsZero():
		v.since = now
	case now.Sub(v.since) > patience:
		return trouble
	}
	return nil
}

// ready returns an error that names the first node that is not ready.
func (c *cluster) ready(ctx context.Context, kubectl string) error {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig", c.kubeconfig, "--request-timeout=10s", "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {range .status.conditions[?(@.type=="Ready")]}{.status} {.message}{end}{"\n"}{end}`)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the API server does not answer: %s", firstLine(stderr.String()))
	}
	for line := range strings.Lines(stdout.String()) {
		name, condition, _ := strings.Cut(strings.TrimSpace(line), " ")
		if status, message, _ := strings.Cut(condition, " "); status != "True" {
			return fmt.Errorf("node %s is not ready: %s", name, message)
		}
	}
	return nil
}

// unneeded are images of the suite that no conformance test runs: of other tests, and
// two that are there to be not pulled.
var unneeded = regexp.MustCompile(`^gcr\.io/k8s-authenticated-test/|^invalid\.registry|/busybox:1\.36|/(apparmor-loader|distroless-iptables|node-perf|volume|sample-device-plugin|sig-storage|cloud-provider-gcp)\b`)

// checkImages names the images that the suite asks for and no archive has.
func (s suite) checkImages(ctx context.Context, dir string) error {
	list, err := exec.CommandContext(ctx, s.test(), "--list-images").Output()
	if err != nil {
		return fmt.Errorf("listing the suite's images: %w", err)
	}
	have, err := archivedImages(dir)
	if err != nil {
		return err
	}
	var missing []string
	for _, image := range strings.Fields(string(list)) {
		if !have[image] && !unneeded.MatchString(image) {
			missing = append(missing, image)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing from %s: %s: `make conformance-images` builds them", dir, strings.Join(missing, ", "))
	}
	return nil
}

// archivedImages are the names of all images in the OCI archives of a directory.
func archivedImages(dir string) (map[string]bool, error) {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, path := range archives {
		if err := addImages(names, path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return names, nil
}

func addImages(names map[string]bool, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("no OCI archive: it has no index.json")
		}
		if err != nil {
			return err
		}
		if h.Name != "index.json" {
			continue
		}
		var index struct {
			Manifests []struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"manifests"`
		}
		if err := json.NewDecoder(r).Decode(&index); err != nil {
			return err
		}
		for _, m := range index.Manifests {
			names[m.Annotations["io.containerd.image.name"]] = true
		}
		return nil
	}
}
