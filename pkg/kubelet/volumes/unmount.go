package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"k8s.io/apimachinery/pkg/types"
)

// Unmount takes down everything in the pod's directory, whoever put it there. What
// is mounted is unmounted, never deleted: while a single mount is left, no file is
// removed.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	began := time.Now()
	err := m.unmount(ctx, uid)
	m.unmounted(uid, began, err)
	return err
}

func (m *Manager) unmount(ctx context.Context, uid types.UID) error {
	if uid == "" || filepath.Base(string(uid)) != string(uid) || uid == "." || uid == ".." {
		return fmt.Errorf("%q is no pod's UID", uid)
	}
	if m.cfg.PodCertificates != nil {
		m.cfg.PodCertificates.Forget(uid)
	}
	if m.cfg.CSI != nil {
		if err := m.cfg.CSI.Unmount(ctx, uid); err != nil {
			return fmt.Errorf("unmounting the volumes of pod %s: %w", uid, err)
		}
	}
	dir := m.podDir(uid)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// Mounts can lie on top of each other: look again until none is left.
	for attempt := 0; ; attempt++ {
		mounts, err := mountsBelow(dir)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			break
		}
		if attempt == 10 {
			return fmt.Errorf("unmounting the volumes of pod %s: still mounted: %s", uid, strings.Join(mounts, ", "))
		}
		for _, p := range mounts {
			err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EBUSY) {
				// A process outside of the pod looks at it; it must not keep the node from forgetting the pod.
				err = unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
			}
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("unmounting the volumes of pod %s: %w", uid, &os.PathError{Op: "umount", Path: p, Err: err})
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the directory of pod %s: %w", uid, err)
	}
	return nil
}

// mountsBelow lists what is mounted below dir, innermost and latest first.
func mountsBelow(dir string) ([]string, error) {
	// The kernel names mounts by their real path.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	found := make([]string, 0, len(infos))
	for _, i := range infos {
		found = append(found, i.Mountpoint)
	}
	slices.Reverse(found)
	return found, nil
}
