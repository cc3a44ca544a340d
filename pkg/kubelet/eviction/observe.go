package eviction

import (
	"context"
	"sync"

	"github.com/opencontainers/cgroups"

	cri "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/leme-k8s/leme/pkg/kubelet/stats"
)

// Observer measures a real node.
type Observer struct {
	// RootDir is on the file system that pods write to.
	RootDir string
	// Memory is the machine's memory in bytes, Cgroups what has been used of it.
	Memory  uint64
	Cgroups interface {
		Stats(cgroup string) (*cgroups.Stats, error)
	}
	Images cri.ImageManagerService

	mu       sync.Mutex
	imageDir string
}

// Observe measures every signal that can be measured.
func (o *Observer) Observe(ctx context.Context) map[Signal]Observation {
	logger := klog.FromContext(ctx)
	seen := map[Signal]Observation{}
	if s, err := o.Cgroups.Stats("/"); err != nil {
		logger.Error(err, "Measuring the node's memory failed")
	} else {
		_, used := stats.Memory(s)
		seen[MemoryAvailable] = Observation{Capacity: o.Memory, Available: o.Memory - min(used, o.Memory)}
	}
	disk := func(dir string, available, inodes Signal) {
		fs, err := stats.FileSystem(dir)
		if err != nil {
			logger.Error(err, "Measuring a disk failed")
			return
		}
		seen[available] = space(fs)
		// Some file systems make inodes as they go and count none.
		if fs.Inodes != nil && *fs.Inodes > 0 {
			seen[inodes] = Observation{Capacity: *fs.Inodes, Available: *fs.InodesFree}
		}
	}
	disk(o.RootDir, NodeFsAvailable, NodeFsInodesFree)
	if dir := o.images(ctx); dir != "" {
		disk(dir, ImageFsAvailable, ImageFsInodesFree)
		disk(dir, ContainerFsAvailable, ContainerFsInodesFree)
	}
	if most, running, err := stats.Processes(); err != nil {
		logger.Error(err, "Counting processes failed")
	} else {
		seen[PIDAvailable] = Observation{Capacity: uint64(most), Available: uint64(max(most-running, 0))}
	}
	return seen
}

func space(fs *api.FsStats) Observation {
	return Observation{Capacity: *fs.CapacityBytes, Available: *fs.AvailableBytes}
}

// images asks the runtime once where it keeps images: that does not change.
func (o *Observer) images(ctx context.Context) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.imageDir != "" {
		return o.imageDir
	}
	info, err := o.Images.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		klog.FromContext(ctx).V(2).Info("The container runtime does not say where images are", "err", err)
		return ""
	}
	o.imageDir = info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	return o.imageDir
}
