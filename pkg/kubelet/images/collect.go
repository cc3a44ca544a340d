package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Retention says which images a node keeps.
type Retention struct {
	// High and Low are how full the disk may be, in percent: above High images are
	// removed until it is at Low. A High of 100 never removes any.
	High, Low int
	// MinAge is how long an unused image is kept at least; MaxAge, if it is not 0, how long at most.
	MinAge, MaxAge time.Duration
}

// Validate checks the thresholds.
func (r Retention) Validate() error {
	switch {
	case r.High < 0 || r.High > 100:
		return fmt.Errorf("imageGCHighThresholdPercent: %d is not between 0 and 100", r.High)
	case r.Low < 0 || r.Low > 100:
		return fmt.Errorf("imageGCLowThresholdPercent: %d is not between 0 and 100", r.Low)
	case r.Low >= r.High:
		return fmt.Errorf("imageGCLowThresholdPercent: %d must be less than imageGCHighThresholdPercent, which is %d", r.Low, r.High)
	case r.MaxAge != 0 && r.MaxAge <= r.MinAge:
		return fmt.Errorf("imageMaximumGCAge: must be greater than imageMinimumGCAge")
	}
	return nil
}

// collectPeriod is how often the disk is looked at.
const collectPeriod = 5 * time.Minute

// Collector removes images that no container uses.
type Collector struct {
	Images     cri.ImageManagerService
	Containers interface {
		ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	}
	Records   *Records
	Retention Retention
	Recorder  record.EventRecorder
	// Node is the object of events.
	Node  *corev1.ObjectReference
	Clock clock.WithTicker

	removed *metrics.CounterVec // by reason; nil if nobody looks

	mu   sync.Mutex
	seen map[string]seen
}

// seen is what was observed of an image over time.
type seen struct {
	ref              string
	size             uint64
	pinned           bool
	detected, usedAt time.Time
}

// Run looks at the disk now and then until ctx is done.
func (c *Collector) Run(ctx context.Context) {
	ticker := c.Clock.NewTicker(collectPeriod)
	defer ticker.Stop()
	for {
		if err := c.Collect(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Image garbage collection failed")
			c.Recorder.Event(c.Node, corev1.EventTypeWarning, "ImageGCFailed", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// Collect removes what is too old, and more if the disk is too full.
func (c *Collector) Collect(ctx context.Context) error {
	unused, err := c.unused(ctx)
	if err != nil {
		return err
	}
	now := c.Clock.Now()
	var expired, rest []seen
	for _, i := range unused {
		if c.Retention.MaxAge > 0 && now.Sub(i.usedAt) > c.Retention.MaxAge {
			expired = append(expired, i)
		} else {
			rest = append(rest, i)
		}
	}
	if _, err := c.remove(ctx, expired, removedForAge); err != nil {
		return err
	}
	capacity, available, err := ImageFS(ctx, c.Images)
	if err != nil {
		return err
	}
	need := c.Retention.excess(capacity, available)
	if need == 0 {
		return nil
	}
	freed, err := c.remove(ctx, choose(rest, need, now, c.Retention.MinAge), removedForSpace)
	if err == nil && freed < need {
		err = fmt.Errorf("failed to garbage collect required amount of images: attempted to free %d bytes, but only found %d bytes eligible to free", need, freed)
	}
	return err
}

// excess is how many bytes must go.
func (r Retention) excess(capacity, available uint64) uint64 {
	if capacity == 0 || r.High == 100 {
		return 0
	}
	available = min(available, capacity)
	if used := 100 - int(available*100/capacity); used < r.High {
		return 0
	}
	if want := capacity * uint64(100-r.Low) / 100; want > available {
		return want - available
	}
	return 0
}

// choose picks the images that have been unused for longest, until they are enough.
func choose(unused []seen, need uint64, now time.Time, minAge time.Duration) []seen {
	var out []seen
	for _, i := range unused {
		if need == 0 {
			break
		}
		if now.Sub(i.detected) < minAge {
			continue
		}
		out = append(out, i)
		need -= min(need, i.size)
	}
	return out
}

// RemoveUnused removes every image that no container uses, however young: the disk is full.
func (c *Collector) RemoveUnused(ctx context.Context) error {
	unused, err := c.unused(ctx)
	if err != nil {
		return err
	}
	_, err = c.remove(ctx, unused, removedForSpace)
	return err
}

func (c *Collector) remove(ctx context.Context, list []seen, reason string) (freed uint64, err error) {
	var errs []error
	for _, i := range list {
		klog.FromContext(ctx).Info("Removing an unused image", "image", i.ref, "bytes", i.size)
		if err := c.Images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.ref}); err != nil {
			errs = append(errs, fmt.Errorf("removing image %s: %w", i.ref, err))
			continue
		}
		freed += i.size
		if c.removed != nil {
			c.removed.WithLabelValues(reason).Inc()
		}
		c.mu.Lock()
		delete(c.seen, i.ref)
		c.mu.Unlock()
		if err := c.Records.Removed(i.ref); err != nil {
			errs = append(errs, err)
		}
	}
	return freed, errors.Join(errs...)
}

// unused looks at what there is and returns the images without a container, that of
// the longest disuse first.
func (c *Collector) unused(ctx context.Context) ([]seen, error) {
	list, err := c.Images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	containers, err := c.Containers.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	used := sets.New[string]()
	for _, ct := range containers {
		used.Insert(ct.GetImageRef(), ct.GetImageId(), ct.GetImage().GetImage())
	}
	return c.observe(list, used, c.Clock.Now()), nil
}

func (c *Collector) observe(list []*runtimeapi.Image, used sets.Set[string], now time.Time) []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]seen, len(list))
	var unused []seen
	for _, i := range list {
		s, ok := c.seen[i.GetId()]
		if !ok {
			s = seen{ref: i.GetId(), detected: now}
		}
		s.size, s.pinned = i.GetSize(), i.GetPinned()
		if isUsed := used.HasAny(append(slices.Concat(i.GetRepoTags(), i.GetRepoDigests()), i.GetId())...); isUsed {
			s.usedAt = now
		} else if !s.pinned {
			// An image that nobody has used yet counts from when it came.
			if s.usedAt.IsZero() {
				s.usedAt = s.detected
			}
			unused = append(unused, s)
		}
		next[s.ref] = s
	}
	c.seen = next
	slices.SortFunc(unused, func(a, b seen) int {
		if d := a.usedAt.Compare(b.usedAt); d != 0 {
			return d
		}
		return a.detected.Compare(b.detected)
	})
	return unused
}

// ImageFS measures the file system that holds images.
func ImageFS(ctx context.Context, service cri.ImageManagerService) (capacity, available uint64, err error) {
	info, err := service.ImageFsInfo(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("finding the file system of images: %w", err)
	}
	if len(info.GetImageFilesystems()) == 0 {
		return 0, 0, errors.New("the container runtime names no file system of images")
	}
	dir := info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("measuring the file system of images at %s: %w", dir, err)
	}
	return fs.Blocks * uint64(fs.Frsize), fs.Bavail * uint64(fs.Frsize), nil
}
