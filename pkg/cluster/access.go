package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

// KeptConfig is the configuration that the cluster in a data directory has kept, or
// fs.ErrNotExist.
func KeptConfig(dir string) (*v1alpha1.Cluster, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := loadState(dataDir(abs))
	if errors.Is(err, fs.ErrPermission) {
		return nil, fs.ErrNotExist // that it takes root is for the command to say
	}
	if err != nil {
		return nil, err
	}
	return &s.Config, nil
}

// AdminKubeconfig is the path of the kubeconfig of the cluster's administrator.
func AdminKubeconfig(dir string) (string, error) {
	path := dataDir(dir).adminKubeconfig()
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%s is for root alone: run this as root, for example with sudo", path)
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no cluster in %s: `leme up` makes one", dir)
	case err != nil:
		return "", err
	}
	return path, f.Close()
}

// GetStatus asks the process that runs the cluster.
func GetStatus(ctx context.Context, dir string) (*Status, error) {
	s, err := fetchStatus(ctx, dataDir(dir))
	if err != nil {
		return nil, explainSilence(dir, err)
	}
	return s, nil
}

// askCluster asks the process that runs the cluster to do something.
func askCluster(ctx context.Context, dir, path string, request any) error {
	if err := ask(ctx, dataDir(dir).controlSocket(), path, request, nil); err != nil {
		return explainSilence(dir, err)
	}
	return nil
}

// explainSilence says why a cluster could not be asked, if it could not.
func explainSilence(dir string, err error) error {
	d := dataDir(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("only root can ask the cluster in %s: run this as root, for example with sudo", d)
	case !noneAnswers(err):
		return err
	}
	if _, err := os.Stat(d.stateFile()); err != nil {
		return fmt.Errorf("there is no cluster in %s: `leme up` makes one", d)
	}
	return fmt.Errorf("the cluster in %s does not run: `leme up` starts it", d)
}

// noneAnswers reports whether an error of the status socket means that no process
// serves it, or that the process ended when it was asked.
func noneAnswers(err error) bool {
	for _, none := range []error{fs.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, io.EOF} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}

// Healthy reports whether the cluster answers and everything in it runs that is not
// switched off.
func (s *Status) Healthy() bool {
	down := func(svc ServiceStatus) bool { return !svc.Running }
	return s.Ready && !slices.ContainsFunc(s.Services, down) && !slices.ContainsFunc(s.Nodes, func(n NodeStatus) bool {
		return !n.Stopped && (n.Error != "" || slices.ContainsFunc(n.Services, down))
	})
}

// LogOptions are how logs are shown.
type LogOptions struct {
	Follow bool
	// Lines is how many lines at the end are shown, or 0 for the default.
	Lines int
	// Node is the further node whose components are meant, or empty for this machine's.
	Node string
}

// Logs shows the log of one component, or the end of all.
func Logs(ctx context.Context, dir string, names []string, o LogOptions, out io.Writer) error {
	d := dataDir(dir)
	if o.Node != "" {
		s, err := loadState(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		switch {
		case err != nil || o.Node == s.Config.Node.Name:
		default:
			if _, ok := s.node(o.Node); !ok {
				return fmt.Errorf("there is no node %s, only %s", o.Node, strings.Join(append([]string{s.Config.Node.Name}, s.nodeNames()...), ", "))
			}
			d = d.nodeDir(o.Node)
		}
	}
	files, err := filepath.Glob(d.log("*"))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if !slices.Contains(files, d.log(names[0])) {
			var have []string
			for _, f := range files {
				have = append(have, strings.TrimSuffix(filepath.Base(f), ".log"))
			}
			if len(have) == 0 {
				return fmt.Errorf("there are no logs in %s", d.path("log"))
			}
			return fmt.Errorf("there is no log of %q, only of %s", names[0], strings.Join(have, ", "))
		}
		files = []string{d.log(names[0])}
	} else if o.Lines == 0 {
		o.Lines = 10
	}
	offsets := make([]int64, len(files))
	last := -1
	show := func(i, lines int) error {
		data, offset, err := readFrom(files[i], offsets[i])
		if err != nil || len(data) == 0 {
			return err
		}
		offsets[i] = offset
		if len(files) > 1 && last != i {
			fmt.Fprintf(out, "==> %s <==\n", strings.TrimSuffix(filepath.Base(files[i]), ".log"))
			last = i
		}
		_, err = io.WriteString(out, lastLines(string(data), lines))
		return err
	}
	for i := range files {
		if err := show(i, o.Lines); err != nil {
			return err
		}
	}
	for o.Follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		for i := range files {
			if err := show(i, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFrom reads a file from an offset on, or from its start if it has become
// shorter: another file has taken its place.
func readFrom(path string, offset int64) ([]byte, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.Size() < offset {
		offset = 0
	}
	data, err := io.ReadAll(io.NewSectionReader(f, offset, info.Size()-offset))
	return data, offset + int64(len(data)), err
}

// lastLines returns the last n lines, or all for 0.
func lastLines(text string, n int) string {
	if n == 0 {
		return text
	}
	end := len(strings.TrimSuffix(text, "\n"))
	for ; n > 0 && end >= 0; n-- {
		end = strings.LastIndexByte(text[:max(end, 0)], '\n')
	}
	return text[end+1:]
}
