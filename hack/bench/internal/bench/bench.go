// Package bench is what the measurements share: clusters of Leme and of the originals
// that are started the same way, in turn, single API servers, and tables of medians.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	// Bin is where leme, runtime and images are.
	Bin = flag.String("bin", "bin", "where leme, runtime and images are")
	// Originals is where the original components are.
	Originals = flag.String("originals", "bin/originals", "where the original components are; empty to measure Leme alone")
)

// Main is the main of a measurement. What it has started is ended when it is interrupted.
func Main(name string, run func(context.Context) error) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Components that are Leme's own.
var Components = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"}

// A Cluster is one that is measured.
type Cluster struct {
	Name    string
	DataDir string
	up      []string
}

// Clusters returns Leme and, if they were built, the originals. Their data is below dir.
func Clusters(dir string) []*Cluster {
	list := []*Cluster{{Name: "leme", DataDir: filepath.Join(dir, "l")}}
	if *Originals == "" {
		return list
	}
	o := &Cluster{Name: "originals", DataDir: filepath.Join(dir, "o")}
	for _, c := range Components {
		path, err := filepath.Abs(filepath.Join(*Originals, c))
		if err != nil {
			panic(err) // no working directory
		}
		o.up = append(o.up, "--with", c+"="+path)
	}
	return append(list, o)
}

// Leme returns a command of leme about the cluster. The user's own kubeconfig is left alone.
func (c *Cluster) Leme(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(*Bin, "leme"), append([]string{"--data-dir", c.DataDir}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.DataDir+".kubeconfig")
	return cmd
}

// Up starts the cluster and returns a function that waits until it has been reported ready.
func (c *Cluster) Up() (wait func() error, err error) {
	cmd := c.Leme(append([]string{"up"}, c.up...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("leme up (%s): %w\n%s", c.Name, err, &out)
		}
		return nil
	}, nil
}

// Do runs a command of leme to its end.
func (c *Cluster) Do(args ...string) error {
	if out, err := c.Leme(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("leme %s (%s): %w\n%s", strings.Join(args, " "), c.Name, err, out)
	}
	return nil
}

// Client waits for the administrator's kubeconfig and returns a client without a limit.
func (c *Cluster) Client(ctx context.Context) (*kubernetes.Clientset, *rest.Config, error) {
	for {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.DataDir, "kubeconfig", "admin.conf"))
		if err == nil {
			config.QPS = -1
			client, err := kubernetes.NewForConfig(config)
			return client, config, err
		}
		if err := Pause(ctx); err != nil {
			return nil, nil, fmt.Errorf("waiting for the kubeconfig of %s: %w", c.Name, err)
		}
	}
}

// The names of what is measured.
const (
	Leme     = "leme"
	Original = "original"
)

// A Binary is a component that is measured by itself.
type Binary struct{ Name, Path string }

// Binaries returns Leme's component and, if it was built, the original.
func Binaries(component string) []Binary {
	list := []Binary{{Leme, filepath.Join(*Bin, component)}}
	if *Originals != "" {
		list = append(list, Binary{Original, filepath.Join(*Originals, component)})
	}
	return list
}

// Pause is how long measurements wait between two looks.
func Pause(ctx context.Context) error { return Rest(ctx, 10*time.Millisecond) }

// Rest lets time pass.
func Rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// InParallel does n things, so many at once, until one fails.
func InParallel(ctx context.Context, atOnce, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		next atomic.Int64
		all  sync.WaitGroup
	)
	for range atOnce {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// Usage is what processes use: resident memory in bytes and processor time.
type Usage struct {
	Resident int64
	CPU      time.Duration
}

// Usage adds up the processes of the cluster but for containerd, its shims and what
// runs in pods.
func (c *Cluster) Usage() (Usage, error) {
	var sum Usage
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return sum, err
	}
	for _, dir := range dirs {
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.Contains(args, []byte(c.DataDir)) {
			continue
		}
		name := filepath.Base(string(bytes.SplitN(args, []byte{0}, 2)[0]))
		if name != "leme" && !slices.Contains(Components, name) {
			continue
		}
		if err := sum.add(dir); err != nil && !os.IsNotExist(err) {
			return sum, err
		}
	}
	return sum, nil
}

// ProcessUsage is what one process uses.
func ProcessUsage(pid int) (Usage, error) {
	var u Usage
	err := u.add(filepath.Join("/proc", strconv.Itoa(pid)))
	return u, err
}

func (u *Usage) add(dir string) error {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return err
	}
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return err
			}
			u.Resident += kib << 10
		}
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the command's name may hold anything
	fields := strings.Fields(rest)
	for _, i := range []int{11, 12} { // utime and stime, in hundredths of a second
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return err
		}
		u.CPU += time.Duration(ticks) * 10 * time.Millisecond
	}
	return nil
}

// Median returns the middle of what was measured.
func Median[T ~int64 | ~float64](list []T) T {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
