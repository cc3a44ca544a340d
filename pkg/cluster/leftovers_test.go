package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

func TestShimID(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-id\x00abc\x00-address\x00/run/s\x00": "abc",
		"/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00":                                     "",
		"/usr/bin/containerd-shim-runc-v2\x00-id":                                                          "",
		"": "",
	} {
		if got := shimID(line); got != want {
			t.Errorf("shimID(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestIsPod(t *testing.T) {
	d := dataDir(t.TempDir())
	if err := os.MkdirAll(d.path("containerd", "io.containerd.grpc.v1.cri", "sandboxes", "abc"), 0o700); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"abc": true, "foreign": false, "": false} {
		if got := d.isPod(id); got != want {
			t.Errorf("isPod(%q) = %t", id, got)
		}
	}
}

func TestFirstMissing(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                              "",
		filepath.Join(dir, "a"):          filepath.Join(dir, "a"),
		filepath.Join(dir, "a", "b/c/d"): filepath.Join(dir, "a"),
	} {
		if got := firstMissing(path); got != want {
			t.Errorf("firstMissing(%s) = %q, want %q", path, got, want)
		}
	}
}
