package volumes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// MakeShared lets mounts below a directory be seen where the directory is mounted, too:
// containers that ask for mount propagation get to see volumes that are mounted after their start. If the
// directory is on a mount that is not shared, it becomes a mount of its own that is.
func MakeShared(dir string) error {
	dir, err := filepath.EvalSymlinks(dir) // as the mounts are named
	if err != nil {
		return err
	}
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return fmt.Errorf("reading the mounts: %w", err)
	}
	if shared(above) {
		return nil
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s on itself: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making the mount at %s shared: %w", dir, err)
	}
	return nil
}

// shared tells whether the nearest of the mounts above a directory, in the order in which they
// were made, is shared.
func shared(above []*mountinfo.Info) bool {
	var nearest *mountinfo.Info
	for _, m := range above {
		if nearest == nil || len(m.Mountpoint) >= len(nearest.Mountpoint) {
			nearest = m
		}
	}
	return nearest != nil && slices.ContainsFunc(strings.Fields(nearest.Optional), func(f string) bool { return strings.HasPrefix(f, "shared:") })
}
