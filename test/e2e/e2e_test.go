// Package e2e shows on a real cluster, which `leme up` starts, that what users do with
// kubectl works. Each scenario is a script in testdata: commands, what they should say,
// and the files they need.
//
// Beside testscript's own commands there are:
//
//	eventually TIME REGEXP COMMAND…   run the command until it succeeds and its output matches
//	load start FILE, load stop        request the URL in a file in a loop; stop fails if a request failed
//	httpget URL                       print what is at a URL
//
// kubectl in the path is the stock one with the cluster's kubeconfig.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	binDir = flag.String("bin", "../../bin", "where leme, runtime and images are")
	keep   = flag.Bool("keep", false, "leave the cluster running")
)

// A cluster that tests run.
type cluster struct {
	leme       string // path of the program
	dataDir    string
	kubeconfig string // the user's, which leme adds to
	tmp        string // for temporary files
	tools      string // a directory with kubectl
	nodeIP     string
}

// shared is the cluster that all scenarios run on.
var shared cluster

func TestMain(m *testing.M) {
	testscript.Main(withCluster{m}, map[string]func(){"httpget": httpget})
}

// withCluster runs the tests while the shared cluster runs.
type withCluster struct{ *testing.M }

func (m withCluster) Run() int {
	flag.Parse()
	code, err := run(m.M)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}

// httpget prints what is at a URL.
func httpget() {
	client := &http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(os.Args[1])
	if err == nil {
		defer resp.Body.Close()
		if _, err = io.Copy(os.Stdout, resp.Body); err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests start a cluster, which needs root")
	}
	bin, err := filepath.Abs(*binDir)
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "leme-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	shared = cluster{
		leme: filepath.Join(bin, "leme"), dataDir: filepath.Join(dir, "d"),
		kubeconfig: filepath.Join(dir, "kubeconfig"), tmp: os.TempDir(), tools: filepath.Join(dir, "tools"),
	}
	if err := shared.writeTools(); err != nil {
		return 1, err
	}
	if !*keep {
		defer func() {
			if out, downErr := shared.command("down").CombinedOutput(); downErr != nil {
				code, err = 1, fmt.Errorf("leme down: %w\n%s", downErr, out)
			}
		}()
	}
	if out, err := shared.command("up").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("leme up: %w\n%s", err, out)
	}
	out, err := exec.Command(filepath.Join(shared.tools, "kubectl"), "get", "nodes",
		"-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`).Output()
	if err != nil {
		return 1, fmt.Errorf("asking for the node's address: %w", err)
	}
	shared.nodeIP = string(out)
	return m.Run(), nil
}

// command is leme with the cluster's directories.
func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.leme, append([]string{"--data-dir", c.dataDir}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "TMPDIR="+c.tmp)
	return cmd
}

// writeTools makes a kubectl that talks to the shared cluster.
func (c *cluster) writeTools() error {
	if err := os.MkdirAll(c.tools, 0o755); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' --data-dir '%s' kubectl \"$@\"\n", c.leme, c.dataDir)
	return os.WriteFile(filepath.Join(c.tools, "kubectl"), []byte(script), 0o755)
}

func TestScenarios(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", shared.tools+":"+env.Getenv("PATH"))
			env.Setenv("LEME", shared.leme)
			env.Setenv("DATA", shared.dataDir)
			env.Setenv("NODE_IP", shared.nodeIP)
			env.Setenv("KUBECONFIG", shared.kubeconfig)
			env.Setenv("NS", "e2e-"+strings.ToLower(filepath.Base(env.WorkDir)[len("script-"):]))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"eventually": eventually,
			"load":       loadCommand,
		},
	})
}

// eventually runs a command until it does what is wanted. The last attempt's output is
// the script's stdout.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: eventually TIME REGEXP COMMAND [ARG…]")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	deadline := time.Now().Add(limit)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := ts.Exec(args[2], args[3:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %v still not %q: %v", limit, args[1], err)
		}
		time.Sleep(wait)
	}
}

// load is a client that requests a URL again and again.
type load struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	count  int
	failed []string
}

var loads sync.Map // by script directory

func loadCommand(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 2 && args[0] == "start":
		ctx, cancel := context.WithCancel(context.Background())
		l := &load{stop: cancel}
		loads.Store(ts.Getenv("WORK"), l)
		url := strings.TrimSpace(ts.ReadFile(args[1]))
		l.done.Go(func() { l.run(ctx, url) })
		ts.Defer(cancel)
	case !neg && len(args) == 1 && args[0] == "stop":
		v, ok := loads.LoadAndDelete(ts.Getenv("WORK"))
		if !ok {
			ts.Fatalf("no load was started")
		}
		l := v.(*load)
		l.stop()
		l.done.Wait()
		ts.Logf("%d requests, %d failed", l.count, len(l.failed))
		if len(l.failed) > 0 || l.count < 20 {
			ts.Fatalf("of %d requests these failed: %s", l.count, strings.Join(l.failed, "; "))
		}
	default:
		ts.Fatalf("usage: load start FILE | load stop")
	}
}

func (l *load) run(ctx context.Context, url string) {
	// A connection for each request: each is balanced anew.
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil {
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		l.count++
		if err != nil {
			l.failed = append(l.failed, fmt.Sprintf("%s: %v", time.Now().Format("05.000"), err))
		}
		time.Sleep(10 * time.Millisecond) // the pace of the load
	}
}
