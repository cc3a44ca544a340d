package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch stands in every timestamp, so that the same input gives the same digest.
var epoch = time.Unix(0, 0).UTC()

// searchPath is where an image's shell looks for programs.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// An image is a stack of layers under a name. Images share layers.
type image struct {
	ref    string
	layers []v1.Layer
	config v1.Config
}

// name is the last part of the repository.
func (i image) name() string {
	repository, _, _ := strings.Cut(i.ref, ":")
	return path.Base(repository)
}

// build makes the image. Its name is a label, so that images of equal content under
// two names are two images, as upstream's are.
func (i image) build(arch string) (v1.Image, error) {
	config := i.config
	config.Env = []string{searchPath}
	config.Labels = map[string]string{"org.opencontainers.image.ref.name": i.ref}
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		Architecture: arch, OS: "linux", Config: config, RootFS: v1.RootFS{Type: "layers"},
		Created: v1.Time{Time: epoch},
	})
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range i.layers {
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "leme"}})
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

// archive writes the images as an OCI layout in a tar file, under the names that
// containerd and other tools look for. A layer of several images is in it once.
func archive(file string, images []image, arch string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".layout-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, i := range images {
		ref, err := name.NewTag(i.ref)
		if err != nil {
			return err
		}
		img, err := i.build(arch)
		if err != nil {
			return fmt.Errorf("%s: %w", i.ref, err)
		}
		if err := l.AppendImage(img, layout.WithAnnotations(map[string]string{
			"io.containerd.image.name":          ref.Name(),
			"org.opencontainers.image.ref.name": ref.TagStr(),
		})); err != nil {
			return fmt.Errorf("%s: %w", i.ref, err)
		}
	}
	tmp := filepath.Join(dir, "archive")
	if err := pack(tmp, dir, "oci-layout", "index.json", "blobs"); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// pack writes a tar file with the named entries of dir and all below them.
func pack(file, dir string, entries ...string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, e := range entries {
		err := filepath.WalkDir(filepath.Join(dir, e), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			if d.IsDir() {
				return w.WriteHeader(&tar.Header{Name: rel + "/", Mode: 0o755, ModTime: epoch, Typeflag: tar.TypeDir})
			}
			return packFile(w, rel, p)
		})
		if err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

func packFile(w *tar.Writer, name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, ModTime: epoch, Typeflag: tar.TypeReg, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
