package volumes

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestShared(t *testing.T) {
	for name, c := range map[string]struct {
		above []*mountinfo.Info
		want  bool
	}{
		"a private root":             {[]*mountinfo.Info{{Mountpoint: "/"}}, false},
		"a shared root":              {[]*mountinfo.Info{{Mountpoint: "/", Optional: "shared:1"}}, true},
		"a slave that shares":        {[]*mountinfo.Info{{Mountpoint: "/", Optional: "shared:2 master:1"}}, true},
		"a slave":                    {[]*mountinfo.Info{{Mountpoint: "/", Optional: "master:1"}}, false},
		"a private mount is nearer":  {[]*mountinfo.Info{{Mountpoint: "/var/lib"}, {Mountpoint: "/", Optional: "shared:1"}}, false},
		"a private mount is on top":  {[]*mountinfo.Info{{Mountpoint: "/var", Optional: "shared:1"}, {Mountpoint: "/var"}}, false},
		"a shared mount is on top":   {[]*mountinfo.Info{{Mountpoint: "/var"}, {Mountpoint: "/var", Optional: "shared:1"}}, true},
		"nothing that one can see":   {nil, false},
		"a shared mount is the near": {[]*mountinfo.Info{{Mountpoint: "/"}, {Mountpoint: "/var", Optional: "shared:1"}}, true},
	} {
		if got := shared(c.above); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestMakeShared does it for real, in a mount namespace of its own, and wants what was mounted
// before to stay, what is mounted afterwards to spread, and nothing to be done twice.
func TestMakeShared(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread and its namespace end with the goroutine
		must := func(what string, err error) {
			if err != nil {
				t.Errorf("%s: %v", what, err)
				runtime.Goexit()
			}
		}
		must("a mount namespace", unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
		must("private", unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
		before, after, container := filepath.Join(dir, "root/before"), filepath.Join(dir, "root/after"), filepath.Join(dir, "container")
		for _, d := range []string{before, after, container} {
			must("directory", os.MkdirAll(d, 0o755))
		}
		must("tmpfs", unix.Mount("tmpfs", before, "tmpfs", 0, ""))
		must("file", os.WriteFile(filepath.Join(before, "f"), nil, 0o600))

		root := filepath.Join(dir, "root")
		for range 2 {
			must("MakeShared", MakeShared(root))
		}
		mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != root, false })
		must("mounts", err)
		if len(mounts) != 1 {
			t.Errorf("%d mounts at %s", len(mounts), root)
		}
		must("what was mounted before", unix.Access(filepath.Join(before, "f"), unix.R_OK))

		must("as in a container", unix.Mount(root, container, "", unix.MS_BIND|unix.MS_REC, ""))
		must("as in a container", unix.Mount("", container, "", unix.MS_SLAVE|unix.MS_REC, ""))
		must("a volume", unix.Mount("tmpfs", after, "tmpfs", 0, ""))
		must("file", os.WriteFile(filepath.Join(after, "f"), nil, 0o600))
		must("what is mounted afterwards", unix.Access(filepath.Join(container, "after/f"), unix.R_OK))
	}()
	<-done
}
