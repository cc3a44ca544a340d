// Command images packs container images into OCI archives, named as upstream names
// them, for clusters without a registry: those that a cluster of Leme needs, or
// those that the conformance suite asks for. What goes in is built from pinned modules
// or taken from Debian's packages; the same input gives the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// Inputs say where the content of the images is.
type inputs struct {
	arch     string
	programs string // static programs, by name
	debs     string // Debian packages
	sources  string // test/images of Kubernetes' source
}

func (in inputs) program(name string) string { return filepath.Join(in.programs, name) }

func main() {
	var in inputs
	set := flag.String("set", "cluster", "which `images`: cluster, one archive each, or conformance, in one archive")
	out := flag.String("out", "bin/images", "`directory` to write the archives to")
	flag.StringVar(&in.programs, "programs", "", "`directory` of the static programs")
	flag.StringVar(&in.arch, "arch", "amd64", "the `architecture` of the programs")
	flag.StringVar(&in.debs, "debs", "", "`directory` of the Debian packages below the suite's images")
	flag.StringVar(&in.sources, "sources", "", "`directory` of the suite's images in Kubernetes' source")
	flag.Parse()
	if err := run(*set, *out, in); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(set, out string, in inputs) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	switch set {
	case "cluster":
		images, err := clusterImages(in)
		if err != nil {
			return err
		}
		for _, i := range images {
			if err := archive(filepath.Join(out, i.name()+".tar"), []image{i}, in.arch); err != nil {
				return err
			}
		}
		return nil
	case "conformance":
		images, err := conformanceImages(in)
		if err != nil {
			return err
		}
		return archive(filepath.Join(out, "conformance.tar"), images, in.arch)
	default:
		return fmt.Errorf("-set %s: neither cluster nor conformance", set)
	}
}
