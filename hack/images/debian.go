package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A debian is a root file system of unpacked packages. Their maintainer scripts have
// not run: what the images need of them is among debianFiles.
type debian struct {
	layer v1.Layer
	paths map[string]bool
}

// undocumented is what no container reads.
var undocumented = []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/", "usr/share/bash-completion/"}

// unpackDebian makes a layer of all packages in a directory and the files.
func unpackDebian(dir string, files []file) (*debian, error) {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, err
	}
	if len(debs) == 0 {
		return nil, fmt.Errorf("no Debian package in %s", dir)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	d := &debian{paths: map[string]bool{}}
	for _, deb := range debs {
		if err := d.unpack(w, deb); err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
	}
	for _, f := range files {
		if d.paths[f.path] && f.mode.IsDir() {
			continue
		}
		d.paths[f.path] = true
		if err := f.write(w); err != nil {
			return nil, err
		}
	}
	d.layer, err = finish(&buf, w)
	return d, err
}

// unpack copies a package's files.
func (d *debian) unpack(w *tar.Writer, deb string) error {
	content, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		return fmt.Errorf("dpkg-deb: %w", err)
	}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "./")
		if name == "." || d.paths[name] || unread(name+"/") {
			continue // the root, or a directory of several packages
		}
		d.paths[name] = true
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = strings.TrimPrefix(path.Clean(h.Linkname), "./")
		}
		h.ModTime, h.Uname, h.Gname = epoch, "", ""
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}

func unread(name string) bool {
	for _, u := range undocumented {
		if strings.HasPrefix(name, u) {
			return true
		}
	}
	return false
}

// lacks reports whether no package brings a command of this name.
func (d *debian) lacks(command string) bool {
	return !d.paths["usr/bin/"+command] && !d.paths["usr/sbin/"+command]
}
