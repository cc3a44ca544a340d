package volumes

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// The permissions that a pod's fsGroup gets.
const (
	groupRead  = 0o440
	groupWrite = 0o660
	groupEnter = 0o110 | os.ModeSetgid // new files belong to the group, too
)

// ownTree gives everything in dir to a group. Links are changed, not followed.
func ownTree(dir string, group int64, readOnly bool) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return own(p, group, readOnly)
	})
}

// ownRoot gives a volume's own directory, and the links in it, to a group.
func ownRoot(dir string, group int64, readOnly bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 {
			if err := own(filepath.Join(dir, e.Name()), group, readOnly); err != nil {
				return err
			}
		}
	}
	return own(dir, group, readOnly)
}

func own(p string, group int64, readOnly bool) error {
	info, err := os.Lstat(p)
	if err != nil {
		return err
	}
	if err := os.Lchown(p, -1, int(group)); err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return nil
	}
	mode := info.Mode() | groupMode(info, readOnly)
	if mode == info.Mode() {
		return nil
	}
	return os.Chmod(p, mode)
}

func groupMode(info os.FileInfo, readOnly bool) os.FileMode {
	mask := os.FileMode(groupWrite)
	if readOnly {
		mask = groupRead
	}
	if info.IsDir() {
		mask |= groupEnter
	}
	return mask
}

// owned says whether a directory belongs to the group already, for fsGroupChangePolicy: OnRootMismatch.
func owned(dir string, group int64) (bool, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(st.Gid) == group && info.Mode()|groupMode(info, false) == info.Mode(), nil
}

// applyGroup gives a writable volume to the pod's fsGroup, as its policy says.
func applyGroup(pod *corev1.Pod, dir string) error {
	group := fsGroup(pod)
	if group == nil {
		return nil
	}
	if p := pod.Spec.SecurityContext.FSGroupChangePolicy; p != nil && *p == corev1.FSGroupChangeOnRootMismatch {
		if ok, err := owned(dir, *group); err != nil || ok {
			return err
		}
	}
	return ownTree(dir, *group, false)
}
