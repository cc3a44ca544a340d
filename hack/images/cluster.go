package main

import (
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// clusterImages are what a cluster of Leme needs, and a shell to look around with.
func clusterImages(in inputs) ([]image, error) {
	base, err := layerOf(rootFiles...)
	if err != nil {
		return nil, err
	}
	pause, err := pauseImage(in, "3.10.2")
	if err != nil {
		return nil, err
	}
	coredns, err := corednsImage(in, base)
	if err != nil {
		return nil, err
	}
	busybox, err := busyboxImage(in, base)
	if err != nil {
		return nil, err
	}
	return []image{pause, coredns, busybox}, nil
}

func pauseImage(in inputs, tag string) (image, error) {
	layer, err := layerOf(program("pause", in.program("pause")))
	return image{
		ref: "registry.k8s.io/pause:" + tag, layers: []v1.Layer{layer},
		config: v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}},
	}, err
}

func corednsImage(in inputs, base v1.Layer) (image, error) {
	layer, err := layerOf(program("coredns", in.program("coredns")))
	return image{
		ref: "registry.k8s.io/coredns/coredns:v1.15.0", layers: []v1.Layer{base, layer},
		config: v1.Config{User: "65532:65532", WorkingDir: "/", Entrypoint: []string{"/coredns"}},
	}, err
}

func busyboxImage(in inputs, base v1.Layer) (image, error) {
	applets, err := busyboxApplets(in)
	if err != nil {
		return image{}, err
	}
	files := []file{{path: "bin", mode: fs.ModeDir | 0o755}, program("bin/busybox", in.program("busybox"))}
	for _, applet := range applets {
		files = append(files, file{path: "bin/" + applet, hardlink: "bin/busybox", mode: 0o755})
	}
	layer, err := layerOf(files...)
	return image{
		ref: "registry.k8s.io/e2e-test-images/busybox:1.37.0-2", layers: []v1.Layer{base, layer},
		config: v1.Config{Cmd: []string{"sh"}},
	}, err
}

func busyboxApplets(in inputs) ([]string, error) {
	list, err := exec.Command(in.program("busybox"), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", in.program("busybox"), err)
	}
	var applets []string
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			applets = append(applets, applet)
		}
	}
	return applets, nil
}

// rootFiles are what programs expect of any root file system.
var rootFiles = []file{
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
