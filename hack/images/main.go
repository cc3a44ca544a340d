// Command images packs the container images that a cluster of Leme needs without a
// registry into OCI archives, one file an image, named as upstream names them. What
// goes in is built from pinned modules or taken from a Debian package; the same
// input gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	out := flag.String("out", "bin/images", "`directory` to write the archives to")
	pause := flag.String("pause", "", "the static pause `binary`")
	coredns := flag.String("coredns", "", "the static coredns `binary`")
	busybox := flag.String("busybox", "", "the busybox `binary` of Debian's package")
	arch := flag.String("arch", "amd64", "the `architecture` of the binaries")
	flag.Parse()
	if err := run(*out, *arch, *pause, *coredns, *busybox); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(out, arch, pause, coredns, busybox string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	shell, err := busyboxFiles(busybox)
	if err != nil {
		return err
	}
	for _, i := range []image{
		{
			file: "pause.tar", ref: "registry.k8s.io/pause:3.10.2",
			files:  []file{program("pause", pause)},
			config: v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}},
		}, {
			file: "coredns.tar", ref: "registry.k8s.io/coredns/coredns:v1.15.0",
			files:  append([]file{program("coredns", coredns)}, base...),
			config: v1.Config{User: "65532:65532", WorkingDir: "/", Entrypoint: []string{"/coredns"}},
		}, {
			file: "busybox.tar", ref: "registry.k8s.io/e2e-test-images/busybox:1.37.0-2",
			files:  append(shell, base...),
			config: v1.Config{Cmd: []string{"sh"}},
		},
	} {
		if err := i.write(out, arch); err != nil {
			return fmt.Errorf("%s: %w", i.ref, err)
		}
	}
	return nil
}

// An image is one layer of files.
type image struct {
	file, ref string
	files     []file
	config    v1.Config
}

// A file of a layer: a directory if its mode says so, a copy of the file at from, a
// hard link to the path at link, or the content.
type file struct {
	path, from, link, content string
	mode                      fs.FileMode
	dynamic                   bool // needs the libraries in the image
}

func program(path, from string) file { return file{path: path, from: from, mode: 0o755} }

// base is what programs expect of any root file system.
var base = []file{
	{path: "etc", mode: fs.ModeDir | 0o755},
	{path: "etc/passwd", mode: 0o644, content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nnonroot:x:65532:65532:nonroot:/:/bin/false\n"},
	{path: "etc/group", mode: 0o644, content: "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n"},
	{path: "etc/nsswitch.conf", mode: 0o644, content: "hosts: files dns\n"},
	{path: "root", mode: fs.ModeDir | 0o700},
	{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
	{path: "var", mode: fs.ModeDir | 0o755},
	{path: "var/www", mode: fs.ModeDir | 0o755},
	{path: "home", mode: fs.ModeDir | 0o755},
}

// busyboxFiles are the program, the libraries that it is linked with, and a link for
// each of its applets. It is linked dynamically: glibc cannot resolve names in a static
// program.
func busyboxFiles(path string) ([]file, error) {
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", path, err)
	}
	libs, err := exec.Command("ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", path, err)
	}
	files := []file{
		{path: "bin", mode: fs.ModeDir | 0o755},
		{path: "bin/busybox", from: path, mode: 0o755, dynamic: true},
	}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(libs), -1) {
		files = append(files, file{path: strings.TrimPrefix(lib, "/"), from: lib, mode: 0o755, dynamic: true})
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			files = append(files, file{path: "bin/" + applet, link: "bin/busybox", mode: 0o755})
		}
	}
	return files, nil
}

// write makes the image and its archive.
func (i image) write(dir, arch string) error {
	ref, err := name.NewTag(i.ref)
	if err != nil {
		return err
	}
	content, err := i.tar()
	if err != nil {
		return err
	}
	layer := static.NewLayer(content, types.OCIUncompressedLayer) // read from this disk only: compressing it would cost time and win none
	cfg := v1.ConfigFile{
		Architecture: arch, OS: "linux", Config: i.config, RootFS: v1.RootFS{Type: "layers"},
		Created: v1.Time{Time: epoch},
	}
	cfg.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &cfg)
	if err != nil {
		return err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "leme"}}); err != nil {
		return err
	}
	return archive(filepath.Join(dir, i.file), ref, img)
}

// epoch stands in every timestamp, so that the same input gives the same digest.
var epoch = time.Unix(0, 0).UTC()

// tar is the image's one layer.
func (i image) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range i.files {
		h := &tar.Header{Name: f.path, Mode: int64(f.mode.Perm()), ModTime: epoch, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		content := []byte(f.content)
		switch {
		case f.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, f.path+"/"
			if f.mode&fs.ModeSticky != 0 {
				h.Mode |= 0o1000
			}
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.link
		case f.from != "":
			if !f.dynamic {
				if err := checkStatic(f.from); err != nil {
					return nil, err
				}
			}
			var err error
			if content, err = os.ReadFile(f.from); err != nil {
				return nil, err
			}
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// checkStatic fails for a program that needs a loader, which no image here has.
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

// archive writes the image as an OCI layout in a tar file, under the names that
// containerd and other tools look for.
func archive(path string, ref name.Tag, img v1.Image) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".layout-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := l.AppendImage(img, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          ref.Name(),
		"org.opencontainers.image.ref.name": ref.TagStr(),
	})); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "archive")
	if err := pack(tmp, dir, "oci-layout", "index.json", "blobs"); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// pack writes a tar file with the named entries of dir and all below them.
func pack(path, dir string, entries ...string) error {
	f, err := os.Create(path)
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
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, ModTime: epoch, Typeflag: tar.TypeReg, Size: int64(len(content))}); err != nil {
				return err
			}
			_, err = w.Write(content)
			return err
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
