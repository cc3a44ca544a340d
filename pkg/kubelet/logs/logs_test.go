package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// runtime has one container that writes to one log.
type runtime struct {
	path    string
	refuses bool
	asked   int
}

func (r *runtime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return []*runtimeapi.Container{{Id: "c"}}, nil
}

func (r *runtime) ContainerStatus(context.Context, string, bool) (*runtimeapi.ContainerStatusResponse, error) {
	r.asked++
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{LogPath: r.path}}, nil
}

func (r *runtime) ReopenContainerLog(context.Context, string) error {
	if r.refuses {
		return errors.New("refused")
	}
	return os.WriteFile(r.path, nil, 0o640)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	fake := &runtime{path: filepath.Join(dir, "0.log")}
	clk := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC))
	r := &Rotator{Runtime: fake, Policy: Policy{MaxSize: 10, MaxFiles: 4, Workers: 2}, Clock: clk}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(fake.path, []byte(s), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("short")
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"0.log"}, names(t, dir)); d != "" {
		t.Error(d)
	}
	for _, s := range []string{"first long", "second long", "third long", "fourth long"} {
		clk.Step(time.Hour)
		write(s)
		if err := r.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"0.log", "0.log.20260101-120000.gz", "0.log.20260101-130000.gz", "0.log.20260101-140000"}
	if d := cmp.Diff(want, names(t, dir)); d != "" {
		t.Error(d)
	}
	if fake.asked != 1 {
		t.Errorf("asked %d times where the log is", fake.asked)
	}
	f, err := os.Open(filepath.Join(dir, "0.log.20260101-130000.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || string(b) != "third long" {
		t.Errorf("compressed: %q, %v", b, err)
	}

	// A runtime that cannot reopen keeps its file.
	fake.refuses = true
	clk.Step(time.Hour)
	write("fifth long")
	if err := r.Rotate(t.Context()); err == nil {
		t.Error("no error")
	}
	if b, err := os.ReadFile(fake.path); err != nil || string(b) != "fifth long" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		files                    string
		max                      int
		wantRemove, wantCompress string
	}{
		{"nothing", "", 5, "", ""},
		{"interrupted", "l.1 l.1.gz l.2.tmp l.2", 5, "l.1 l.2.tmp", "l.2"},
		{"oldest go", "l.3 l.1.gz l.2.gz", 4, "l.1.gz", "l.3"},
		{"two files", "l.1", 2, "l.1", ""},
	} {
		remove, compress := plan(strings.Fields(tc.files), tc.max)
		slices.Sort(remove)
		if got := strings.Join(remove, " "); got != tc.wantRemove {
			t.Errorf("%s: removes %q, want %q", tc.name, got, tc.wantRemove)
		}
		if got := strings.Join(compress, " "); got != tc.wantCompress {
			t.Errorf("%s: compresses %q, want %q", tc.name, got, tc.wantCompress)
		}
	}
}

func TestClean(t *testing.T) {
	root := t.TempDir()
	pods, links := filepath.Join(root, "pods"), filepath.Join(root, "containers")
	for _, d := range []string{"pods/ns_here_u1/c", "pods/ns_gone_u2/c", "pods/lost+found", "containers"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"ns_here_u1/c/1.log", "ns_here_u1/c/2.log.20260101-100000", "ns_gone_u2/c/0.log"} {
		if err := os.WriteFile(filepath.Join(pods, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"alive.log": pods + "/ns_here_u1/c/1.log", "moved.log": pods + "/ns_here_u1/c/2.log", "dead.log": pods + "/ns_here_u1/c/0.log",
		"gone.log": pods + "/ns_gone_u2/c/0.log", "other": "/no/such/place",
	} {
		if err := os.Symlink(target, filepath.Join(links, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(pods, links, func(uid types.UID) bool { return uid == "u1" }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"lost+found", "ns_here_u1"}, names(t, pods)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"alive.log", "moved.log", "other"}, names(t, links)); d != "" {
		t.Error(d)
	}
}

func TestParsePolicy(t *testing.T) {
	p, err := ParsePolicy("10Mi", 5, 1, 10*time.Second)
	if err != nil || p.MaxSize != 10<<20 {
		t.Errorf("%+v, %v", p, err)
	}
	for field, f := range map[string]func() (Policy, error){
		"containerLogMaxSize":         func() (Policy, error) { return ParsePolicy("x", 5, 1, 10*time.Second) },
		"containerLogMaxFiles":        func() (Policy, error) { return ParsePolicy("1", 1, 1, 10*time.Second) },
		"containerLogMaxWorkers":      func() (Policy, error) { return ParsePolicy("1", 2, 0, 10*time.Second) },
		"containerLogMonitorInterval": func() (Policy, error) { return ParsePolicy("1", 2, 1, time.Second) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
