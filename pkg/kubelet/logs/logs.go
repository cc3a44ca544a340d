// Package logs keeps the logs of containers small and tidy.
//
// A runtime appends to <pod logs>/<namespace>_<name>_<uid>/<container>/<restart>.log
// as long as the container lives. [Rotator] moves a log that has grown too large out
// of the way and has the runtime open a new one:
//
//	0.log                      being written
//	0.log.20261123-140000      moved last; a reader may still be in it
//	0.log.20261123-130000.gz   moved before that
//
// [Clean] removes what pods and containers that are gone have left.
package logs

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Runtime is what rotation needs of CRI.
type Runtime interface {
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
	ReopenContainerLog(ctx context.Context, containerID string) error
}

// Policy says how large a container's logs may be.
type Policy struct {
	// MaxSize is the size in bytes at which a log is moved; less than 0 is never.
	MaxSize int64
	// MaxFiles is how many files a container may have, the one being written included.
	MaxFiles int
	// Workers is how many logs are compressed at a time.
	Workers int
	// Period is how often sizes are looked at.
	Period time.Duration
}

// ParsePolicy reads the configuration's fields.
func ParsePolicy(maxSize string, maxFiles, workers int32, period time.Duration) (Policy, error) {
	q, err := resource.ParseQuantity(maxSize)
	if err != nil {
		return Policy{}, fmt.Errorf("containerLogMaxSize: %q: %w", maxSize, err)
	}
	switch {
	case maxFiles < 2:
		return Policy{}, fmt.Errorf("containerLogMaxFiles: %d must be greater than 1", maxFiles)
	case workers < 1:
		return Policy{}, fmt.Errorf("containerLogMaxWorkers: %d must be at least 1", workers)
	case period < 3*time.Second:
		return Policy{}, fmt.Errorf("containerLogMonitorInterval: %v must be at least 3s", period)
	}
	return Policy{MaxSize: q.Value(), MaxFiles: int(maxFiles), Workers: int(workers), Period: period}, nil
}

// Rotator keeps containers' logs within a policy.
type Rotator struct {
	Runtime Runtime
	Policy  Policy
	Clock   clock.WithTicker

	// paths has the logs of running containers: they never change, and asking for
	// each one every time is what would cost.
	paths map[string]string
}

// Run looks at logs until ctx is done.
func (r *Rotator) Run(ctx context.Context) {
	if r.Policy.MaxSize < 0 {
		return
	}
	ticker := r.Clock.NewTicker(r.Policy.Period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			if err := r.Rotate(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Rotating containers' logs failed")
			}
		}
	}
}

// Rotate looks at every running container's log once. It is not safe for concurrent use.
func (r *Rotator) Rotate(ctx context.Context) error {
	containers, err := r.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	paths := make(map[string]string, len(containers))
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.Policy.Workers)
	errs := make([]error, len(containers))
	for i, c := range containers {
		path, ok := r.paths[c.Id]
		if !ok {
			s, err := r.Runtime.ContainerStatus(ctx, c.Id, false)
			if err != nil {
				continue // it has ended meanwhile
			}
			path = s.GetStatus().GetLogPath()
		}
		paths[c.Id] = path
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			// An earlier rotation was interrupted between moving and opening.
			err = r.Runtime.ReopenContainerLog(ctx, c.Id)
			errs[i] = err
			continue
		}
		if err != nil {
			errs[i] = err
			continue
		}
		if info.Size() < r.Policy.MaxSize {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.rotate(ctx, c.Id, path); err != nil {
				errs[i] = fmt.Errorf("rotating %s: %w", path, err)
			}
		})
	}
	wg.Wait()
	r.paths = paths
	return errors.Join(errs...)
}

// stamp is how a moved log is named: in the order of time.
const stamp = "20060102-150405"

func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	entries, err := filepath.Glob(globEscape(path) + ".*")
	if err != nil {
		return err
	}
	remove, compress := plan(entries, r.Policy.MaxFiles)
	for _, f := range remove {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, f := range compress {
		if err := compressFile(f); err != nil {
			return err
		}
	}
	moved := path + "." + r.Clock.Now().Format(stamp)
	if err := os.Rename(path, moved); err != nil {
		return err
	}
	if err := r.Runtime.ReopenContainerLog(ctx, id); err != nil {
		// The runtime goes on in the old file: it has to be found under its name.
		return errors.Join(fmt.Errorf("reopening: %w", err), os.Rename(moved, path))
	}
	return nil
}

// globEscape makes a path match only itself.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// plan says which of the moved logs go, and which are compressed, before another one is moved.
func plan(files []string, maxFiles int) (remove, compress []string) {
	var keep []string
	for _, f := range files {
		switch {
		case strings.HasSuffix(f, ".tmp"): // a compression was interrupted
			remove = append(remove, f)
		case slices.Contains(files, f+".gz"): // … or ended without removing its source
			remove = append(remove, f)
		default:
			keep = append(keep, f)
		}
	}
	slices.SortFunc(keep, func(a, b string) int { return cmp.Compare(strings.TrimSuffix(a, ".gz"), strings.TrimSuffix(b, ".gz")) })
	// The one being written and the one about to be moved count, too.
	if excess := len(keep) - max(maxFiles-2, 0); excess > 0 {
		remove = append(remove, keep[:excess]...)
		keep = keep[excess:]
	}
	for _, f := range keep {
		if !strings.HasSuffix(f, ".gz") {
			compress = append(compress, f)
		}
	}
	return remove, compress
}

func compressFile(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(tmp))
		}
	}()
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Remove(path)
}

// Clean removes the log directories of pods that keep does not want, and links in
// linkDir (/var/log/containers) that lead to logs which are gone. Whatever is not
// named like a pod's directory, or is no link into podLogsDir, is somebody else's.
func Clean(podLogsDir, linkDir string, keep func(types.UID) bool) error {
	var errs []error
	dirs, err := os.ReadDir(podLogsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, d := range dirs {
		parts := strings.Split(d.Name(), "_")
		if !d.IsDir() || len(parts) != 3 || parts[2] == "" || keep(types.UID(parts[2])) {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(podLogsDir, d.Name())))
	}
	links, err := os.ReadDir(linkDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, l := range links {
		link := filepath.Join(linkDir, l.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, filepath.Clean(podLogsDir)+"/") {
			continue
		}
		if _, err := os.Lstat(target); errors.Is(err, os.ErrNotExist) {
			// Between a rotation's two steps the log is not there, but its directory holds it under another name.
			if moved, err := filepath.Glob(globEscape(target) + ".*"); err == nil && len(moved) == 0 {
				errs = append(errs, os.Remove(link))
			}
		}
	}
	return errors.Join(errs...)
}
