package volumes

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	mount "k8s.io/mount-utils"
)

// emptyDir makes an emptyDir volume: a directory, or a file system in memory.
func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) (string, error) {
	dir := m.volumeDir(pod.UID, "empty-dir", v.Name)
	var err error
	switch medium := v.EmptyDir.Medium; {
	case medium == corev1.StorageMediumDefault:
		err = makeDir(dir, 0o777)
	case medium == corev1.StorageMediumMemory:
		err = m.memory(pod, dir, v.EmptyDir.SizeLimit)
	case medium == corev1.StorageMediumHugePages, strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)):
		err = hugePages(pod, dir, medium)
	default:
		err = fmt.Errorf("unknown storage medium %q", medium)
	}
	if err != nil {
		return "", err
	}
	return dir, applyGroup(pod, dir)
}

// memory mounts a tmpfs on dir. It holds no more than the volume's limit, the pod's
// memory limit and what the node offers.
func (m *Manager) memory(pod *corev1.Pod, dir string, limit *resource.Quantity) error {
	if done, err := prepared(dir); err != nil || done {
		return err
	}
	var size int64
	least := func(q *resource.Quantity) {
		if v := q.Value(); v > 0 && (size == 0 || v < size) {
			size = v
		}
	}
	allocatable := m.cfg.Allocatable()
	least(allocatable.Memory())
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	least(limits.Memory())
	if limit != nil {
		least(limit)
	}
	options := ""
	if size > 0 {
		options = "size=" + strconv.FormatInt(size, 10)
	}
	// What is secret, and what counts as memory, must not be swapped out; kernels
	// before 6.3 cannot promise that.
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, strings.TrimPrefix(options+",noswap", ","))
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	}
	if err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

// hugePages mounts a hugetlbfs of the one page size that the pod asks for.
func hugePages(pod *corev1.Pod, dir string, medium corev1.StorageMedium) error {
	var size int64
	for n := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		s, ok := strings.CutPrefix(string(n), corev1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(s)
		if err != nil {
			return fmt.Errorf("resource %s: %w", n, err)
		}
		wanted, isSized := strings.CutPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix))
		if isSized && wanted != s {
			continue
		}
		if size != 0 {
			return fmt.Errorf("medium %s: the pod requests several page sizes, name the one that is meant", medium)
		}
		size = q.Value()
	}
	if size == 0 {
		return fmt.Errorf("medium %s: the pod requests no such pages", medium)
	}
	if done, err := prepared(dir); err != nil || done {
		return err
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, "pagesize="+strconv.FormatInt(size, 10)); err != nil {
		return &os.PathError{Op: "mount hugetlbfs", Path: dir, Err: err}
	}
	return os.Chmod(dir, 0o777)
}

// prepared makes the directory for a mount and says whether it is mounted already.
func prepared(dir string) (bool, error) {
	if err := makeDir(dir, 0o777); err != nil {
		return false, err
	}
	return mount.New("").IsMountPoint(dir)
}

// hostPath checks that what is on the host is of the type that was asked for, and
// makes it where that says so.
func hostPath(path string, wanted *corev1.HostPathType) error {
	if wanted == nil || *wanted == corev1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(path)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	mode := os.ModeIrregular
	if err == nil {
		mode = info.Mode()
	}
	var ok bool
	var what string
	switch *wanted {
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(path, 0o755)
		}
		ok, what = mode.IsDir(), "a directory"
	case corev1.HostPathDirectory:
		ok, what = mode.IsDir(), "a directory"
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		ok, what = mode.IsRegular(), "a file"
	case corev1.HostPathFile:
		ok, what = mode.IsRegular(), "a file"
	case corev1.HostPathSocket:
		ok, what = mode&os.ModeSocket != 0, "a socket file"
	case corev1.HostPathCharDev:
		ok, what = mode&os.ModeCharDevice != 0, "a character device"
	case corev1.HostPathBlockDev:
		ok, what = mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0, "a block device"
	default:
		return fmt.Errorf("%q is an invalid volume type", *wanted)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not %s", path, what)
	}
	return nil
}
