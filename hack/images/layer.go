package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A file of a layer: a directory if its mode says so, a link, a copy of the file at
// from, or the content.
type file struct {
	path, from        string
	hardlink, symlink string
	content           string
	mode              fs.FileMode
}

// program is a copy of a program that needs no library.
func program(path, from string) file { return file{path: path, from: from, mode: 0o755} }

// layerOf packs files.
func layerOf(files ...file) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := f.write(w); err != nil {
			return nil, err
		}
	}
	return finish(&buf, w)
}

// finish makes a layer of what w has written to buf. It stays uncompressed: it is read
// from this disk only, where compression costs time and wins none.
func finish(buf *bytes.Buffer, w *tar.Writer) (v1.Layer, error) {
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
}

func (f file) write(w *tar.Writer) error {
	h := &tar.Header{Name: f.path, Mode: int64(f.mode.Perm()), ModTime: epoch, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if f.mode&fs.ModeSetuid != 0 {
		h.Mode |= 0o4000
	}
	if f.mode&fs.ModeSetgid != 0 {
		h.Mode |= 0o2000
	}
	if f.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	content := []byte(f.content)
	switch {
	case f.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.path+"/"
	case f.hardlink != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.hardlink
	case f.symlink != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.symlink, 0o777
	case f.from != "":
		if f.mode&0o111 != 0 {
			if err := checkStatic(f.from); err != nil {
				return err
			}
		}
		var err error
		if content, err = os.ReadFile(f.from); err != nil {
			return err
		}
	}
	h.Size = int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	_, err := w.Write(content)
	return err
}

// checkStatic fails for a program that needs a loader, which not every image has.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically, the image needs a static program", path)
		}
	}
	return nil
}

// blobOf is the content of a layer.
func blobOf(l v1.Layer) ([]byte, error) {
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
