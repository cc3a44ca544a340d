package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const e2e = "registry.k8s.io/e2e-test-images/"

// conformanceImages are those that the conformance suite of v1.37 asks for, under the
// names in test/utils/image/manifest.go of Kubernetes.
func conformanceImages(in inputs) ([]image, error) {
	distribution, err := unpackDebian(in.debs, debianFiles)
	if err != nil {
		return nil, err
	}
	debian := distribution.layer
	base, err := layerOf(rootFiles...)
	if err != nil {
		return nil, err
	}
	busybox, err := busyboxImage(in, base)
	if err != nil {
		return nil, err
	}
	pause, err := pauseImage(in, "3.10")
	if err != nil {
		return nil, err
	}
	pause1, err := pauseImage(in, "3.10.1")
	if err != nil {
		return nil, err
	}
	agnhost, err := agnhostLayer(in, distribution, pause)
	if err != nil {
		return nil, err
	}
	agnhostConfig := v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}
	webServer := v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}}
	nginxConfig := v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT"}

	images := []image{
		pause, pause1,
		{ref: e2e + "agnhost:2.66.1", layers: []v1.Layer{debian, agnhost}, config: agnhostConfig},
		{ref: e2e + "agnhost:2.55", layers: []v1.Layer{debian, agnhost}, config: agnhostConfig},
		{ref: e2e + "glibc-dns-testing:2.1.1", layers: []v1.Layer{debian}, config: v1.Config{Cmd: []string{"bash"}}},
		{ref: e2e + "ipc-utils:1.4", layers: []v1.Layer{debian}, config: v1.Config{Cmd: []string{"sh"}}},
		{ref: e2e + "perl:5.26", layers: []v1.Layer{debian}, config: v1.Config{Cmd: []string{"perl", "-de0"}}},
		{ref: e2e + "nginx:1.27.0-2", layers: []v1.Layer{debian}, config: nginxConfig},
		{ref: e2e + "nginx:1.28.0-2", layers: []v1.Layer{debian}, config: nginxConfig},
		{ref: e2e + "nonroot:1.5", layers: busybox.layers, config: v1.Config{User: "1234", Cmd: []string{"sh"}}},
	}
	for _, w := range []struct{ name, picture string }{{"kitten:1.8", "kitten"}, {"nautilus:1.8", "nautilus"}} {
		html := filepath.Join(in.sources, w.picture, "html")
		layer, err := layerOf(
			file{path: w.picture + ".jpg", from: filepath.Join(html, w.picture+".jpg"), mode: 0o644},
			file{path: "data.json", from: filepath.Join(html, "data.json"), mode: 0o644},
		)
		if err != nil {
			return nil, err
		}
		images = append(images, image{ref: e2e + w.name, layers: []v1.Layer{debian, agnhost, layer}, config: webServer})
	}
	for _, p := range []struct {
		ref    string
		below  v1.Layer
		files  []file
		config v1.Config
	}{{
		ref: e2e + "nonewprivs:1.4", below: base,
		files: []file{
			{path: "usr/local/bin/nnp", from: in.program("nonewprivs"), mode: fs.ModeSetuid | fs.ModeSetgid | 0o755},
		},
		config: v1.Config{Cmd: []string{"nnp"}},
	}, {
		ref: e2e + "resource-consumer:1.14", below: debian,
		files: []file{
			program("consumer", in.program("resource-consumer")),
			program("consume-cpu/consume-cpu", in.program("consume-cpu")),
		},
		config: v1.Config{Entrypoint: []string{"/consumer"}},
	}, {
		ref: e2e + "regression-issue-74839:1.5", below: base,
		files:  []file{program("regression-issue-74839", in.program("regression-issue-74839"))},
		config: v1.Config{Entrypoint: []string{"/regression-issue-74839"}},
	}, {
		ref: e2e + "sample-apiserver:1.29.2", below: base,
		files:  []file{program("sample-apiserver", in.program("sample-apiserver"))},
		config: v1.Config{Entrypoint: []string{"/sample-apiserver"}},
	}, {
		ref: "registry.k8s.io/etcd:3.7.0-0", below: base,
		files: []file{
			program("usr/local/bin/etcd", in.program("etcd")),
			program("usr/local/bin/etcdctl", in.program("etcdctl")),
		},
		config: v1.Config{Cmd: []string{"etcd"}},
	}} {
		layer, err := layerOf(p.files...)
		if err != nil {
			return nil, err
		}
		images = append(images, image{ref: p.ref, layers: []v1.Layer{p.below, layer}, config: p.config})
	}
	return images, nil
}

// debianFiles are what the packages' maintainer scripts would have made: users, the
// commands that are alternatives, a shell's name. And a web server's configuration.
var debianFiles = append([]file{
	{path: "usr/bin/awk", symlink: "mawk"},
	{path: "usr/bin/nc", symlink: "nc.openbsd"},
	{path: "usr/local", mode: fs.ModeDir | 0o755},
	{path: "usr/local/bin", mode: fs.ModeDir | 0o755},
	{path: "usr/local/bin/iperf", symlink: "/usr/bin/iperf"},
	{path: "var/log/nginx", mode: fs.ModeDir | 0o755},
	{path: "var/lib/nginx", mode: fs.ModeDir | 0o755},
	{path: "etc/nginx/nginx.conf", mode: 0o644, content: `worker_processes 1;
error_log /dev/stderr;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
	include mime.types;
	access_log /dev/stdout;
	server {
		listen 80;
		root /usr/share/nginx/html;
	}
}
`},
}, rootFiles...)

// agnhostLayer is the suite's Swiss army knife. Upstream's is built on Alpine Linux, from
// whose busybox come the commands that Debian's packages here do not bring; a test
// looks for that system's name.
func agnhostLayer(in inputs, below *debian, registryImage image) (v1.Layer, error) {
	certificates := filepath.Join(in.sources, "agnhost", "porter")
	files := []file{
		program("agnhost", in.program("agnhost")),
		{path: "agnhost-2", symlink: "agnhost"},
		program("coredns", in.program("coredns")),
		{path: "uploads", mode: fs.ModeDir | 0o755},
		{path: "localhost.crt", from: filepath.Join(certificates, "localhost.crt"), mode: 0o644},
		{path: "localhost.key", from: filepath.Join(certificates, "localhost.key"), mode: 0o644},
		{path: "etc/os-release", mode: 0o644, content: "NAME=\"Debian packages in place of Alpine Linux\"\nID=debian\n"},
		{path: "etc/passwd", mode: 0o644, content: rootFiles[1].content + "user-defined-in-image:x:1000:1000::/home:/bin/sh\n"},
		{path: "etc/group", mode: 0o644, content: rootFiles[2].content + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"},
		program("usr/bin/busybox", in.program("busybox")),
	}
	applets, err := busyboxApplets(in)
	if err != nil {
		return nil, err
	}
	for _, a := range applets {
		if below.lacks(a) {
			files = append(files, file{path: "usr/bin/" + a, hardlink: "usr/bin/busybox", mode: 0o755})
		}
	}
	registry, err := registryFiles(registryImage, in.arch)
	if err != nil {
		return nil, err
	}
	return layerOf(append(files, registry...)...)
}

// registryFiles are what agnhost's fake registry serves: pause:testing, as an index of
// one platform, in the folders where it looks for them.
func registryFiles(i image, arch string) ([]file, error) {
	img, err := i.build(arch)
	if err != nil {
		return nil, err
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
	})
	const root = "var/registry/pause/"
	blob := func(kind string, content []byte) file {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		return file{path: path.Join(root, kind, "sha256", digest[:2], digest, "data"), content: string(content), mode: 0o644}
	}
	indexJSON, err := index.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	files := []file{
		{path: root + "manifests/testing", content: digest.String(), mode: 0o644},
		blob("manifests", indexJSON), blob("manifests", manifest), blob("blobs", config),
	}
	for _, l := range i.layers {
		content, err := blobOf(l)
		if err != nil {
			return nil, err
		}
		files = append(files, blob("blobs", content))
	}
	return files, nil
}
