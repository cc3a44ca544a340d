package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// entries are what a tar file has, by name.
func entries(t *testing.T, r io.Reader) map[string]*tar.Header {
	t.Helper()
	found := map[string]*tar.Header{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h
	}
}

func layer(t *testing.T, files ...file) v1.Layer {
	t.Helper()
	l, err := layerOf(files...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayerKeepsModes(t *testing.T) {
	content, err := blobOf(layer(t,
		file{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
		file{path: "su", content: "x", mode: fs.ModeSetuid | fs.ModeSetgid | 0o755},
		file{path: "link", hardlink: "su", mode: 0o755},
		file{path: "way", symlink: "/su"},
	))
	if err != nil {
		t.Fatal(err)
	}
	found := entries(t, bytes.NewReader(content))
	for name, want := range map[string]struct {
		kind byte
		mode int64
		link string
	}{
		"tmp/": {tar.TypeDir, 0o1777, ""},
		"su":   {tar.TypeReg, 0o6755, ""},
		"link": {tar.TypeLink, 0o755, "su"},
		"way":  {tar.TypeSymlink, 0o777, "/su"},
	} {
		h := found[name]
		if h == nil || h.Typeflag != want.kind || h.Mode != want.mode || h.Linkname != want.link || !h.ModTime.Equal(epoch) {
			t.Errorf("%s is %+v, want %+v", name, h, want)
		}
	}
}

func TestProgramsAreStatic(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := layerOf(program("script", script)); err == nil {
		t.Error("a script is taken for a static program")
	}
}

func TestArchiveSharesLayersAndIsReproducible(t *testing.T) {
	base := layer(t, rootFiles...)
	images := []image{
		{ref: "registry.k8s.io/one:1", layers: []v1.Layer{base}},
		{ref: "registry.k8s.io/one:2", layers: []v1.Layer{base}},
		{ref: "registry.k8s.io/two:1", layers: []v1.Layer{base, layer(t, file{path: "data", content: "2", mode: 0o644})}},
	}
	var archives [2][]byte
	for i := range archives {
		path := filepath.Join(t.TempDir(), "images.tar")
		if err := archive(path, images, "amd64"); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same images gave two archives")
	}
	blobs := 0
	for name := range entries(t, bytes.NewReader(archives[0])) {
		if strings.HasPrefix(name, "blobs/sha256/") && !strings.HasSuffix(name, "/") {
			blobs++
		}
	}
	// Two layers, and a manifest and a configuration for each image: their names tell them apart.
	if blobs != 2+3*2 {
		t.Errorf("the archive has %d blobs", blobs)
	}
}

func TestRegistryFiles(t *testing.T) {
	pause := image{ref: "registry.k8s.io/pause:3.10", layers: []v1.Layer{layer(t, file{path: "pause", content: "x", mode: 0o755})}}
	files, err := registryFiles(pause, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{}
	var folders []string
	for _, f := range files {
		contents[f.path] = f.content
		folders = append(folders, strings.Split(f.path, "/")[3])
	}
	if want := []string{"manifests", "manifests", "manifests", "blobs", "blobs"}; !reflect.DeepEqual(folders, want) {
		t.Errorf("files are in %v, want %v", folders, want)
	}
	read := func(kind, digest string) []byte {
		hex := strings.TrimPrefix(digest, "sha256:")
		return []byte(contents["var/registry/pause/"+kind+"/sha256/"+hex[:2]+"/"+hex+"/data"])
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(read("manifests", contents["var/registry/pause/manifests/testing"]), &index); err != nil {
		t.Fatal(err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(read("manifests", index.Manifests[0].Digest.String()), &manifest); err != nil {
		t.Fatal(err)
	}
	if p := index.Manifests[0].Platform; p == nil || p.Architecture != "amd64" || p.OS != "linux" {
		t.Errorf("the index has platform %v", p)
	}
	if len(read("blobs", manifest.Config.Digest.String())) == 0 || len(read("blobs", manifest.Layers[0].Digest.String())) == 0 {
		t.Error("configuration or layer is missing")
	}
}
