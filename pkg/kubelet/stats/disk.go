package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Usage is what a directory takes of its disk.
type Usage struct{ Bytes, Inodes uint64 }

// FileSystem measures the file system that a path is on.
func FileSystem(path string) (*api.FsStats, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, fmt.Errorf("measuring the file system of %s: %w", path, err)
	}
	size := uint64(st.Frsize)
	capacity, available, used := st.Blocks*size, st.Bavail*size, (st.Blocks-st.Bfree)*size
	inodes, free := st.Files, st.Ffree
	inodesUsed := inodes - min(free, inodes)
	return &api.FsStats{Time: metav1.Now(), CapacityBytes: &capacity, AvailableBytes: &available, UsedBytes: &used,
		Inodes: &inodes, InodesFree: &free, InodesUsed: &inodesUsed}, nil
}

// DiskUsage adds up what is in a directory, without leaving its file system and
// counting what has several names once. Files that vanish meanwhile are not there.
func DiskUsage(dir string) (Usage, error) {
	var u Usage
	var device uint64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p != dir && errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) && p != dir {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no file status", p)
		}
		if p == dir {
			device = st.Dev
		} else if st.Dev != device {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		u.Bytes += uint64(st.Blocks) * 512
		u.Inodes++
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measuring %s: %w", dir, err)
	}
	return u, nil
}

type volumeSample struct {
	at      time.Time
	volumes []volume
}

type volume struct {
	api.VolumeStats
	// onDisk says that it counts for the node's own disk: neither in memory nor persistent.
	onDisk bool
}

// podVolumes measures the volumes that are below the pod's directory. Walking
// through them is what costs, so an answer serves for a while.
func (p *Provider) podVolumes(uid types.UID, pod *corev1.Pod) []volume {
	p.mu.Lock()
	last, ok := p.volumes[uid]
	p.mu.Unlock()
	if ok && time.Since(last.at) < p.cfg.VolumePeriod {
		return last.volumes
	}
	s := volumeSample{at: time.Now(), volumes: p.measureVolumes(filepath.Join(p.cfg.RootDir, "pods", string(uid), "volumes"), pod)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.volumes[uid] = s
	return s.volumes
}

func (p *Provider) measureVolumes(dir string, pod *corev1.Pod) []volume {
	root, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil
	}
	var out []volume
	for _, e := range entries {
		kind, name := filepath.Base(filepath.Dir(e)), filepath.Base(e)
		if kind == "kubernetes.io~csi" {
			e = filepath.Join(e, "mount")
		}
		info, err := os.Stat(e)
		if err != nil || !info.IsDir() {
			continue
		}
		stats, err := FileSystem(e)
		if err != nil {
			continue
		}
		v := volume{VolumeStats: api.VolumeStats{Name: name}}
		persistent := claimable(kind, name, pod)
		if persistent {
			v.Name, v.PVCRef = p.claimOf(pod, name)
		}
		if own := info.Sys().(*syscall.Stat_t).Dev != root.Sys().(*syscall.Stat_t).Dev; !own {
			// A directory among others: its size is not the file system's.
			u, err := DiskUsage(e)
			if err != nil {
				continue
			}
			stats.UsedBytes, stats.InodesUsed = &u.Bytes, &u.Inodes
			v.onDisk = !persistent
		}
		v.FsStats = *stats
		out = append(out, v)
	}
	return out
}
