package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	mount "k8s.io/mount-utils"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// SubPath binds a part of a volume for one container. What is in the volume belongs
// to the pod and may change at any moment, so every step of the path is opened
// without following links, and what was opened, not a path, is bound.
func (m *Manager) SubPath(_ context.Context, pod *corev1.Pod, container *corev1.Container, index int, volume kuberuntime.Volume, subPath string) (string, error) {
	if filepath.IsAbs(subPath) {
		return "", fmt.Errorf("subPath %q: must not be an absolute path", subPath)
	}
	for part := range strings.SplitSeq(filepath.ToSlash(subPath), "/") {
		if part == ".." {
			return "", fmt.Errorf("subPath %q: must not contain %q", subPath, "..")
		}
	}
	if index < 0 || index >= len(container.VolumeMounts) {
		return "", fmt.Errorf("subPath %q: container %s has no mount %d", subPath, container.Name, index)
	}
	fd, err := openBelow(volume.HostPath, subPath)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}
	defer unix.Close(fd)
	source := "/proc/self/fd/" + strconv.Itoa(fd)
	info, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}

	target := filepath.Join(m.podDir(pod.UID), "volume-subpaths", container.VolumeMounts[index].Name, container.Name, strconv.Itoa(index))
	if err := clearTarget(target, info); err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}
	if bound, err := os.Stat(target); err == nil && os.SameFile(bound, info) {
		return target, nil // bound by an earlier attempt or life
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, &os.PathError{Op: "mount --bind", Path: target, Err: err})
	}
	return target, nil
}

// clearTarget removes what an earlier container of the same name had bound, unless
// it is the same thing still.
func clearTarget(target string, wanted os.FileInfo) error {
	for {
		have, err := os.Lstat(target)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		mounted, err := mount.New("").IsMountPoint(target)
		if err != nil {
			return err
		}
		switch {
		case mounted && os.SameFile(have, wanted):
			return nil
		case mounted:
			if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				return &os.PathError{Op: "umount", Path: target, Err: err}
			}
		default:
			return os.Remove(target)
		}
	}
}

// openBelow opens sub below base, making directories that are missing with the
// permissions of base. The result is an O_PATH descriptor.
func openBelow(base, sub string) (int, error) {
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return -1, err
	}
	rel, err := resolveBelow(base, sub)
	if err != nil {
		return -1, err
	}
	info, err := os.Stat(base)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: base, Err: err}
	}
	if rel == "." {
		return fd, nil
	}
	for name := range strings.SplitSeq(rel, "/") {
		next, err := openOrMake(fd, name, info.Mode())
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("opening %q: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}

// resolveBelow follows the links in as much of the path as is there, and returns
// what it leads to as a path below base.
func resolveBelow(base, sub string) (string, error) {
	have, missing := filepath.Join(base, sub), ""
	for {
		real, err := filepath.EvalSymlinks(have)
		if errors.Is(err, os.ErrNotExist) && have != base {
			// A link to nowhere must not be taken for a name that is free.
			if info, lerr := os.Lstat(have); lerr == nil && info.Mode()&os.ModeSymlink != 0 {
				return "", fmt.Errorf("%q is a symbolic link to nothing", filepath.Base(have))
			}
			missing = filepath.Join(filepath.Base(have), missing)
			have = filepath.Dir(have)
			continue
		}
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(base, real)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			return "", errors.New("leads out of the volume")
		}
		return filepath.Join(rel, missing), nil
	}
}

func openOrMake(dir int, name string, mode os.FileMode) (int, error) {
	open := func() (int, error) {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK { // it was none when the path was resolved
			unix.Close(fd)
			return -1, unix.ELOOP
		}
		return fd, nil
	}
	fd, err := open()
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := unix.Mkdirat(dir, name, uint32(mode.Perm())); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	if fd, err = open(); err != nil {
		return -1, err
	}
	if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode&(os.ModePerm|os.ModeSetgid|os.ModeSetuid|os.ModeSticky)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
