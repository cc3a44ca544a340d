package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const busybox = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2"

// web is a Deployment behind a node port, with what leaves traces on the machine: a
// memory volume and a host port.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: memory, emptyDir: {medium: Memory}}]
      containers:
      - name: web
        image: ` + busybox + `
        command: [sh, -c, 'echo here > /www/index.html; exec httpd -f -p 8080 -h /www']
        volumeMounts: [{name: memory, mountPath: /www}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: host-port}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + busybox + `
    command: [sleep, "36000"]
    ports: [{containerPort: 80, hostPort: 28081}]
`

// newCluster is a cluster of the test's own that has not been started. When the test
// ends it is removed.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "l") // sockets in it need a short path
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cluster{leme: shared.leme, dataDir: filepath.Join(dir, "d"), kubeconfig: filepath.Join(dir, "kubeconfig"), tmp: filepath.Join(dir, "tmp")}
	check(t, os.Mkdir(c.tmp, 0o700))
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := c.command("logs", "-n", "15").CombinedOutput()
			t.Logf("%s", logs)
		}
		if out, err := c.command("down").CombinedOutput(); err != nil {
			t.Errorf("leme down: %v\n%s", err, out)
		}
	})
	return c
}

// must runs leme and returns what it prints.
func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, c.command(args...))
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}

// refuse runs leme, which must fail, say why in one line on stderr, and be right about it.
func (c *cluster) refuse(t *testing.T, want string, cmd *exec.Cmd) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || cmd.ProcessState.ExitCode() <= 0 {
		t.Errorf("%s: %v, want a non-zero exit", cmd, err)
	}
	if text := stderr.String(); !regexp.MustCompile("(?m)"+want).MatchString(text) || strings.Count(text, "\n") != 1 {
		t.Errorf("%s says %q, want one line that matches %q", cmd, text, want)
	}
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.must(t, append([]string{"kubectl"}, args...)...)
}

func (c *cluster) apply(t *testing.T, manifest string) {
	t.Helper()
	cmd := c.command("kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	output(t, cmd)
}

// deployWeb applies web, waits for it and returns its URL on the node.
func (c *cluster) deployWeb(t *testing.T) string {
	t.Helper()
	c.apply(t, web)
	c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=90s")
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/host-port", "--timeout=60s")
	ip := c.kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	port := c.kubectl(t, "get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
	return fmt.Sprintf("http://%s/", net.JoinHostPort(ip, port))
}

type status struct {
	PID      int
	Server   string
	Ready    bool
	Steps    []struct{ Name string }
	Services []struct {
		Name     string
		Running  bool
		Restarts int
	}
}

// status is what the cluster says of itself; nothing if it does not answer.
func (c *cluster) status(t *testing.T) (s status) {
	t.Helper()
	out, _ := c.command("status", "-o", "json").Output() // fails unless all is well
	if len(out) > 0 {
		check(t, json.Unmarshal(out, &s))
	}
	return s
}

func (s status) restarts(service string) int {
	for _, svc := range s.Services {
		if svc.Name == service && svc.Running {
			return svc.Restarts
		}
	}
	return -1
}

// containers are all containers that pods have, with how often they were restarted.
func (c *cluster) containers(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "pods", "-A", "--sort-by=.metadata.uid", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

// objects are the objects that only a loss of data would change.
func (c *cluster) objects(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,namespaces,nodes", "-A",
		"--sort-by=.metadata.uid", "-o", `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{"\n"}{end}`)
}

// pid is the process of the cluster that runs a program.
func (c *cluster) pid(t *testing.T, program string) int {
	t.Helper()
	for _, p := range c.processes(t) {
		if m := regexp.MustCompile(`^\S*/` + program + `, process (\d+)$`).FindStringSubmatch(p); m != nil {
			pid, err := strconv.Atoi(m[1])
			check(t, err)
			return pid
		}
	}
	return 0
}

func waitFor(t *testing.T, what string, limit time.Duration, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

func wantSame(t *testing.T, what, before, after string) {
	t.Helper()
	if before != after {
		t.Errorf("%s changed from\n%s\nto\n%s", what, before, after)
	}
}

// kill ends a process at once and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid < 2 {
		t.Fatalf("no such process: %d", pid)
	}
	check(t, unix.Kill(pid, unix.SIGKILL))
	waitFor(t, "the process ends", 10*time.Second, func() bool { return !alive(pid) })
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A cluster outlives the death of its parts, and of all of leme: containers run on,
// their Service answers, nothing is lost. What Kubernetes did not make is left alone.
func TestCrash(t *testing.T) {
	c := newCluster(t)
	before := lookAt(t, c)
	c.must(t, "up")
	url := c.deployWeb(t)
	foreign := c.runForeign(t)
	containers, objects := c.containers(t), c.objects(t)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clients := &load{stop: cancel}
	clients.done.Go(func() { clients.run(ctx, url) })

	// containerd dies.
	kill(t, c.pid(t, "containerd"))
	waitFor(t, "containerd runs again", 20*time.Second, func() bool { return c.status(t).restarts("containerd") == 1 })
	c.kubectl(t, "run", "after", "--image="+busybox, "--restart=Never", "--command", "--", "sleep", "36000")
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/after", "--timeout=60s")
	c.kubectl(t, "delete", "pod", "after", "--grace-period=1")
	wantSame(t, "containers", containers, c.containers(t))
	wantSame(t, "objects", objects, c.objects(t))

	// leme dies.
	first := c.status(t).PID
	kill(t, first)
	c.refuse(t, "^leme: the cluster in .* does not run", c.command("status"))
	c.must(t, "up")
	wantSame(t, "containers", containers, c.containers(t))
	wantSame(t, "objects", objects, c.objects(t))

	// A second up changes nothing.
	second := c.status(t).PID
	if out := c.must(t, "up"); !strings.Contains(out, "running already") {
		t.Errorf("leme up on a running cluster says %q", out)
	}
	if third := c.status(t).PID; second == first || third != second {
		t.Errorf("processes %d, %d, %d, want the last two to be the same", first, second, third)
	}
	wantSame(t, "containers", containers, c.containers(t))

	cancel()
	clients.done.Wait()
	if len(clients.failed) > 0 || clients.count < 20 {
		t.Errorf("%d of %d requests failed, such as %v", len(clients.failed), clients.count, clients.failed[:min(3, len(clients.failed))])
	}

	// Stopped, nothing of it runs, and it comes back with its data.
	server := c.status(t).Server
	c.must(t, "stop")
	if left := c.pid(t, "(containerd|leme|runc)"); left != 0 {
		t.Errorf("process %d runs after leme stop", left)
	}
	if !alive(foreign) {
		t.Errorf("leme stop has ended a container that Kubernetes did not make")
	}
	stopped := lookAt(t, c)
	busy, err := net.Listen("tcp", ":"+server[strings.LastIndex(server, ":")+1:])
	check(t, err)
	c.refuse(t, "^leme: port [0-9]+, which the cluster has for the API server, is in use by another program", c.command("up"))
	check(t, busy.Close())
	stopped.wantAsBefore(t, c)
	c.must(t, "up")
	wantSame(t, "objects", objects, c.objects(t))
	c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=90s")
	if !alive(foreign) {
		t.Errorf("a container that Kubernetes did not make has ended")
	}

	// Crashed, it can be removed too.
	kill(t, c.status(t).PID)
	c.must(t, "down")
	if alive(foreign) {
		t.Errorf("leme down has left a container of its containerd")
	}
	c.wantGone(t, before)
}

// runForeign runs a container in the cluster's containerd that Kubernetes knows
// nothing of, and returns its process.
func (c *cluster) runForeign(t *testing.T) int {
	t.Helper()
	runtime := filepath.Join(filepath.Dir(c.leme), "runtime")
	ctr := func(args ...string) string {
		return output(t, exec.Command(filepath.Join(runtime, "ctr"),
			append([]string{"--address", filepath.Join(c.dataDir, "run", "containerd.sock"), "--namespace", "k8s.io"}, args...)...))
	}
	ctr("run", "--detach", "--null-io", "--runc-binary", filepath.Join(runtime, "runc"), "--runc-root", filepath.Join(c.tmp, "runc"),
		"--cgroup", "/leme-e2e-foreign", busybox, "foreign", "sleep", "36000")
	m := regexp.MustCompile(`(?m)^foreign\s+(\d+)\s+RUNNING`).FindStringSubmatch(ctr("task", "list"))
	if m == nil {
		t.Fatalf("the container does not run: %s", ctr("task", "list"))
	}
	pid, err := strconv.Atoi(m[1])
	check(t, err)
	return pid
}

// wantGone fails unless the cluster has left nothing.
func (c *cluster) wantGone(t *testing.T, before machine) {
	t.Helper()
	before.wantAsBefore(t, c)
	check(t, os.RemoveAll(filepath.Join(c.tmp, "runc")))   // runForeign's
	if left := below(t, c.dataDir, c.tmp); len(left) > 1 { // the directory for temporary files
		t.Errorf("left behind: %s", left)
	}
	if config, err := os.ReadFile(c.kubeconfig); err == nil && bytes.Contains(config, []byte("server:")) {
		t.Errorf("left in the user's kubeconfig:\n%s", config)
	}
}

// A service manager runs leme in the foreground and ends it with SIGTERM. Down leaves
// nothing of a cluster that runs.
func TestForeground(t *testing.T) {
	c := newCluster(t)
	before := lookAt(t, c)
	fore := c.command("up", "--foreground")
	var out bytes.Buffer
	fore.Stdout, fore.Stderr = &out, &out
	check(t, fore.Start())
	ended := make(chan error, 1)
	go func() { ended <- fore.Wait() }()
	waitFor(t, "the cluster answers", 90*time.Second, func() bool { return c.status(t).Ready })
	if pid := c.status(t).PID; pid != fore.Process.Pid {
		t.Errorf("process %d runs the cluster, want %d, the one in the foreground", pid, fore.Process.Pid)
	}
	c.deployWeb(t)
	containers := c.containers(t)

	check(t, fore.Process.Signal(unix.SIGTERM))
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, &out)
		}
	case <-time.After(30 * time.Second):
		t.Error("SIGTERM does not end it")
	}

	c.must(t, "up")
	wantSame(t, "containers", containers, c.containers(t))
	c.must(t, "down")
	c.wantGone(t, before)
	if out := c.must(t, "down"); !strings.Contains(out, "There is no cluster in") {
		t.Errorf("a second down says %q", out)
	}
}

// Clusters that start at the same moment take different ports and ranges.
func TestTwoAtOnce(t *testing.T) {
	both := []*cluster{newCluster(t), newCluster(t)}
	before := lookAt(t, both[0])
	var starts sync.WaitGroup
	for _, c := range both {
		starts.Go(func() {
			if out, err := c.command("up").CombinedOutput(); err != nil {
				t.Errorf("up: %v\n%s", err, out)
			}
		})
	}
	starts.Wait()
	for _, c := range both {
		if !c.status(t).Ready {
			t.Errorf("the cluster in %s does not answer", c.dataDir)
		}
	}
	for _, c := range both {
		c.must(t, "down")
	}
	both[0].wantGone(t, before)
}

// What leme cannot do it says in one sentence, and leaves nothing half done.
func TestRefused(t *testing.T) {
	config := func(t *testing.T, c *cluster, content string) string {
		file := filepath.Join(filepath.Dir(c.dataDir), "cluster.yaml")
		check(t, os.WriteFile(file, []byte("apiVersion: config.leme.dev/v1alpha1\nkind: Cluster\n"+content), 0o644))
		return file
	}
	mountTmpfs := func(t *testing.T, c *cluster, flags uintptr, options string) {
		check(t, os.Mkdir(c.dataDir, 0o755))
		check(t, unix.Mount("tmpfs", c.dataDir, "tmpfs", flags, options))
		dir := c.dataDir
		t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
		c.dataDir = filepath.Join(c.dataDir, "d")
	}
	for name, tc := range map[string]struct {
		up   func(t *testing.T, c *cluster) *exec.Cmd
		want string
	}{
		"unknown field": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				return c.command("up", "-f", config(t, c, "networking: {podCidr: 10.0.0.0/16}\n"))
			},
			want: `cluster\.yaml: unknown field "networking\.podCidr"`,
		},
		"bad value": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				return c.command("up", "-f", config(t, c, "networking: {podCIDR: 10.0.0.300/16}\n"))
			},
			want: `cluster\.yaml: networking\.podCIDR: Invalid value: "10\.0\.0\.300/16"`,
		},
		"missing runtime part": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				runtime := filepath.Join(filepath.Dir(c.leme), "runtime")
				parts, err := os.ReadDir(runtime)
				check(t, err)
				dir := filepath.Join(filepath.Dir(c.dataDir), "runtime")
				check(t, os.Mkdir(dir, 0o755))
				for _, p := range parts {
					if p.Name() != "runc" {
						check(t, os.Symlink(filepath.Join(runtime, p.Name()), filepath.Join(dir, p.Name())))
					}
				}
				return c.command("up", "--runtime-dir", dir)
			},
			want: `^leme: runc is missing from .*/runtime`,
		},
		"port in use": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				l, err := net.Listen("tcp", ":0")
				check(t, err)
				t.Cleanup(func() { l.Close() })
				port := l.Addr().(*net.TCPAddr).Port
				return c.command("up", "-f", config(t, c, fmt.Sprintf("networking: {apiServerPort: %d}\n", port)))
			},
			want: `^leme: port [0-9]+ for the API server \(networking\.apiServerPort\) is in use`,
		},
		"read-only file system": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				mountTmpfs(t, c, unix.MS_RDONLY, "")
				return c.command("up")
			},
			want: `^leme: data directory .* cannot be written to: read-only file system$`,
		},
		"full file system": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				mountTmpfs(t, c, 0, "size=64k")
				fill, err := os.Create(filepath.Join(filepath.Dir(c.dataDir), "fill"))
				check(t, err)
				defer fill.Close()
				if _, err := fill.Write(make([]byte, 1<<20)); !errors.Is(err, unix.ENOSPC) {
					t.Fatalf("filling the file system: %v", err)
				}
				return c.command("up")
			},
			want: `^leme: data directory .* cannot be written to: no space left on device$`,
		},
		"small file system": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				mountTmpfs(t, c, 0, "size=4m")
				return c.command("up")
			},
			want: `^leme: the file system of .* has only [34] MiB free, a cluster needs 512 MiB`,
		},
		"directory of somebody else": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				check(t, os.MkdirAll(c.dataDir, 0o755))
				check(t, os.WriteFile(filepath.Join(c.dataDir, "diary"), nil, 0o600))
				return c.command("up")
			},
			want: `^leme: data directory .* is not empty and holds no cluster`,
		},
		"not root": {
			up: func(t *testing.T, c *cluster) *exec.Cmd {
				// By a file descriptor: nobody may be unable to reach the program.
				program, err := os.Open(c.leme)
				check(t, err)
				t.Cleanup(func() { program.Close() })
				cmd := c.command("up")
				cmd.Path, cmd.ExtraFiles, cmd.Dir = "/proc/self/fd/3", []*os.File{program}, "/"
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				return cmd
			},
			want: "^leme: `leme up` makes .*: run it as root",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			cmd := tc.up(t, c)
			dir := filepath.Dir(c.dataDir)
			files, before := below(t, dir), lookAt(t, c)
			c.refuse(t, tc.want, cmd)
			before.wantAsBefore(t, c)
			wantSame(t, "files", strings.Join(files, "\n"), strings.Join(below(t, dir), "\n"))
		})
	}
}

// An interrupt in the middle of the first start takes back what was done.
func TestInterrupt(t *testing.T) {
	for _, step := range []string{"", "containerd", "DNS"} {
		t.Run("at "+step, func(t *testing.T) {
			c := newCluster(t)
			before := lookAt(t, c)
			up := c.command("up")
			progress, err := up.StdoutPipe()
			check(t, err)
			var stderr bytes.Buffer
			up.Stderr = &stderr
			check(t, up.Start())
			waitFor(t, "the start comes to "+step, 60*time.Second, func() bool {
				for _, s := range c.status(t).Steps {
					if step == "" || s.Name == step {
						return true
					}
				}
				return false
			})
			check(t, up.Process.Signal(os.Interrupt))
			_, err = io.Copy(io.Discard, progress)
			check(t, err)
			if err := up.Wait(); err == nil || stderr.String() != "leme: interrupted\n" {
				t.Errorf("interrupted, it ends with %v and says %q", err, &stderr)
			}
			c.wantGone(t, before)
		})
	}
}
