package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var swapFrom = flag.String("swap-from", "", "directory of other binaries of the components, the originals for example, that TestSwap swaps with (default: that of leme)")

// everywhere is a Service with a pod on each node, which says its name.
const everywhere = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + busybox + `
        command: [sh, -c, 'echo serving; mkdir /tmp/www; cat /etc/hostname >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`

// A podOn is a pod of everywhere on one node.
type podOn struct{ name, ip, node, nodeIP string }

// wantKnown checks that what this machine sends to nodes and pods comes from its node's address, by which all know it.
func (c *cluster) wantKnown(t *testing.T, pods []podOn) {
	t.Helper()
	own := shared.nodeIP
	for _, p := range pods {
		if p.nodeIP == own {
			continue
		}
		for _, to := range []string{p.nodeIP, p.ip} {
			conn, err := net.Dial("udp4", net.JoinHostPort(to, "9")) // sends nothing
			if err != nil {
				t.Fatal(err)
			}
			if from := conn.LocalAddr().(*net.UDPAddr).IP.String(); from != own {
				t.Errorf("what goes to %s comes from %s, not from %s", to, from, own)
			}
			conn.Close()
		}
	}
}

func (c *cluster) podsEverywhere(t *testing.T) []podOn {
	t.Helper()
	var out []podOn
	for line := range strings.Lines(c.kubectl(t, "get", "pods", "-l", "app=web", "--sort-by=.spec.nodeName", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName} {.status.hostIP}{"\n"}{end}`)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("a pod is not on its node yet: %q", line)
		}
		out = append(out, podOn{f[0], f[1], f[2], f[3]})
	}
	return out
}

// nodeReady is the Ready condition of a node.
func (c *cluster) nodeReady(t *testing.T, node string) string {
	t.Helper()
	return c.kubectl(t, "get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
}

// Further nodes are nodes like those of several machines: their pods reach each other
// and Services, they fail and come back, they outlive leme, and nothing stays of them.
func TestNodes(t *testing.T) {
	c := newCluster(t)
	before := lookAt(t, c)
	c.must(t, "up", "--nodes", "3")
	names := strings.Fields(c.kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
	first := names[0]
	if want := []string{first, first + "-2", first + "-3"}; !slices.Equal(names, want) {
		t.Fatalf("the nodes are %v, want %v", names, want)
	}
	for _, node := range names {
		if ready := c.nodeReady(t, node); ready != "True" {
			t.Errorf("node %s is ready: %q", node, ready)
		}
	}
	c.apply(t, everywhere)
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=90s")
	pods := c.podsEverywhere(t)
	if len(pods) != 3 {
		t.Fatalf("pods: %v, want one on each node", pods)
	}
	c.wantConnected(t, pods)
	c.wantApart(t, pods)
	c.wantKnown(t, pods)

	// leme dies: containers run on, on all nodes, and are taken over.
	containers := c.containers(t)
	inits := c.count(t, "leme-init")
	kill(t, c.status(t).PID)
	c.must(t, "up")
	wantSame(t, "containers", containers, c.containers(t))
	if after := c.count(t, "leme-init"); inits != 2 || after != 2 {
		t.Errorf("%d machines before, %d after, want 2 each time", inits, after)
	}
	c.wantConnected(t, pods)

	// A node fails, and comes back with its pods.
	second := names[1]
	c.must(t, "node", "stop", second)
	if c.count(t, "leme-init") != 1 {
		t.Error("a node that is off still runs")
	}
	if state := c.must(t, "status"); !regexp.MustCompile(second + ` at \S+ +stopped`).MatchString(state) {
		t.Errorf("status says\n%s", state)
	}
	waitFor(t, "the node is not ready", 90*time.Second, func() bool { return c.nodeReady(t, second) != "True" })
	c.must(t, "node", "start", second)
	if ready := c.nodeReady(t, second); ready != "True" {
		t.Errorf("started, the node is ready: %q", ready)
	}
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=90s")
	waitFor(t, "the pod on the node runs again", 30*time.Second, func() bool {
		return slices.ContainsFunc(c.podsEverywhere(t), func(p podOn) bool { return p.node == second && p.ip != "" })
	})
	c.wantConnected(t, c.podsEverywhere(t))

	// Its machine dies on its own: it is made again.
	kill(t, c.initOf(t, second))
	waitFor(t, "the machine runs again", 30*time.Second, func() bool { return c.count(t, "leme-init") == 2 })
	waitFor(t, "all is well", 60*time.Second, func() bool { return c.command("status").Run() == nil })

	// Stopped in order, the cluster comes back with all its nodes.
	c.must(t, "stop")
	if left := c.processes(t); len(left) > 0 {
		t.Errorf("after leme stop there are still %v", left)
	}
	c.must(t, "up")
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=90s")

	// One more, one less.
	if out := c.must(t, "node", "add", "extra"); out != "Node extra is ready.\n" {
		t.Errorf("leme node add says %q", out)
	}
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=90s")
	c.wantConnected(t, c.podsEverywhere(t))
	c.must(t, "node", "remove", second)
	if left := c.kubectl(t, "get", "nodes", "-o", "name"); strings.Contains(left, second+"\n") || !strings.Contains(left, "node/extra\n") {
		t.Errorf("nodes after removing %s: %s", second, left)
	}
	if left := below(t, filepath.Join(c.dataDir, "nodes", second)); len(left) > 0 {
		t.Errorf("left of the node: %v", left)
	}

	for _, tc := range []struct {
		want string
		args []string
	}{
		{"^leme: " + first + " is this machine itself", []string{"node", "stop", first}},
		{"^leme: there is no node nobody$", []string{"node", "remove", "nobody"}},
		{"^leme: there is a node extra already$", []string{"node", "add", "extra"}},
		{`^leme: "A_b" is no name for a node`, []string{"node", "add", "A_b"}},
		{"^leme: the cluster in .* runs, with 3 nodes and not 5", []string{"up", "--nodes", "5"}},
		{"^leme: there is no node nobody, only", []string{"logs", "kubelet", "--node", "nobody"}},
		{"^leme: binary of kubelet: .*/missing", []string{"swap", "kubelet=" + filepath.Join(c.tmp, "missing")}},
		{"^leme: kube-scheduler runs on the node " + first + " alone$", []string{"swap", "kube-scheduler=leme", "--node", "extra"}},
	} {
		c.refuse(t, tc.want, c.command(tc.args...))
	}
	if log := c.must(t, "logs", "kubelet", "--node", "extra"); !strings.Contains(log, "extra") {
		t.Errorf("the log of the node's kubelet: %q", log)
	}

	kill(t, c.status(t).PID)
	c.must(t, "down")
	c.wantGone(t, before)
}

// wantConnected fails unless every pod reaches every other one, the Service by name and
// at each node's port, and can be entered and listened to.
func (c *cluster) wantConnected(t *testing.T, pods []podOn) {
	t.Helper()
	port := c.kubectl(t, "get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
	script := "set -e\n"
	var want []string
	for _, p := range pods {
		script += fmt.Sprintf("wget -T 5 -qO- http://%s:8080/\n", p.ip)
		want = append(want, p.name)
		script += fmt.Sprintf("wget -T 5 -qO /dev/null http://%s:%s/\n", p.nodeIP, port)
	}
	script += "wget -T 5 -qO /dev/null http://web.default.svc.cluster.local/\n"
	for _, p := range pods {
		if got := strings.Fields(c.kubectl(t, "exec", p.name, "--", "sh", "-c", script)); !slices.Equal(got, want) {
			t.Errorf("from the pod on %s: reached %v, want %v", p.node, got, want)
		}
		if log := c.kubectl(t, "logs", p.name); log != "serving\n" {
			t.Errorf("log of the pod on %s: %q", p.node, log)
		}
	}
}

// wantApart fails unless a further node has a view of the machine of its own.
func (c *cluster) wantApart(t *testing.T, pods []podOn) {
	t.Helper()
	for _, p := range pods[1:] {
		root := filepath.Join("/proc", strconv.Itoa(c.initOf(t, p.node)), "root")
		if hostname, err := os.ReadFile(filepath.Join(root, "etc", "hostname")); err != nil || string(hostname) != p.node+"\n" {
			t.Errorf("%s has the host name %q: %v", p.node, hostname, err)
		}
		if _, err := os.Stat(filepath.Join(root, c.dataDir)); err == nil {
			t.Errorf("%s sees the cluster's data directory", p.node)
		}
		// As root of the node, from a pod with all of it.
		c.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s-root}
spec:
  nodeName: %s
  hostPID: true
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: root, hostPath: {path: /}}]
  containers:
  - name: c
    image: %s
    securityContext: {privileged: true}
    command: [sh, -c, 'chroot /node sh -c "ls /proc | grep -c ^[0-9]; cat /proc/1/cmdline; echo; ls /sys/fs/cgroup/pids; cat /proc/net/dev"; sleep 36000']
    volumeMounts: [{name: root, mountPath: /node}]
`, p.node, p.node, busybox))
		c.kubectl(t, "wait", "--for=condition=Ready", "pod/"+p.node+"-root", "--timeout=60s")
		var view string
		waitFor(t, "the pod tells what it sees", 20*time.Second, func() bool {
			view = c.kubectl(t, "logs", p.node+"-root")
			return strings.Contains(view, "eth0:")
		})
		c.kubectl(t, "delete", "pod", p.node+"-root")
		processes, rest, _ := strings.Cut(view, "\n")
		if n, err := strconv.Atoi(processes); err != nil || n > 40 {
			t.Errorf("%s sees %s processes", p.node, processes)
		}
		if !strings.Contains(rest, "leme-init") || strings.Contains(rest, "leme-"+p.node) || regexp.MustCompile(`(?m)^leme-[0-9a-f]{6}`).MatchString(rest) {
			t.Errorf("%s sees\n%s", p.node, rest)
		}
	}
}

// initOf is the first process of a further node.
func (c *cluster) initOf(t *testing.T, node string) int {
	t.Helper()
	for _, p := range c.processes(t) {
		m := regexp.MustCompile(`/leme-init, process (\d+)$`).FindStringSubmatch(p)
		if m == nil {
			continue
		}
		environment, err := os.ReadFile("/proc/" + m[1] + "/environ")
		check(t, err)
		if bytes.Contains(environment, []byte("LEME_NODE="+node+"\x00")) {
			pid, err := strconv.Atoi(m[1])
			check(t, err)
			return pid
		}
	}
	t.Fatalf("no machine runs for %s", node)
	return 0
}

// count is how many processes of the cluster run a program.
func (c *cluster) count(t *testing.T, program string) int {
	t.Helper()
	n := 0
	for _, p := range c.processes(t) {
		if strings.Contains(p, "/"+program+", process ") {
			n++
		}
	}
	return n
}

// An interrupt while further nodes start takes them back too, in a new cluster and in
// one that was stopped.
func TestInterruptNodes(t *testing.T) {
	c := newCluster(t)
	before := lookAt(t, c)
	// interrupt interrupts a start once a program runs.
	interrupt := func(program string) {
		up := c.command("up", "--nodes", "3")
		progress, err := up.StdoutPipe()
		check(t, err)
		check(t, up.Start())
		waitFor(t, program+" runs", 60*time.Second, func() bool { return c.count(t, program) > 0 })
		check(t, up.Process.Signal(unix.SIGINT))
		_, err = io.Copy(io.Discard, progress)
		check(t, err)
		if err := up.Wait(); err == nil {
			t.Error("interrupted, it succeeds")
		}
	}
	interrupt("leme-init")
	c.wantGone(t, before)

	c.must(t, "up", "--nodes", "2")
	c.must(t, "stop")
	for _, program := range []string{"leme-init", "containerd-shim-runc-v2"} {
		interrupt(program)
		if left := c.processes(t); len(left) > 0 {
			t.Errorf("interrupted when %s ran, left running: %v", program, left)
		}
	}
	c.must(t, "down")
	c.wantGone(t, before)
}

// Each component is replaced by its own binary and back, on all nodes, and no container
// and no client of a Service notices.
func TestSwap(t *testing.T) {
	c := newCluster(t)
	c.must(t, "up", "--nodes", "2")
	c.apply(t, everywhere)
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=90s")
	pods := c.podsEverywhere(t)
	port := c.kubectl(t, "get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
	containers, objects := c.containers(t), c.objects(t)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clients := &load{stop: cancel}
	clients.done.Go(func() { clients.run(ctx, "http://"+net.JoinHostPort(pods[1].nodeIP, port)+"/") })

	from := *swapFrom
	if from == "" {
		from = filepath.Dir(c.leme)
	}
	names := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"}
	for _, name := range names {
		binary, err := filepath.Abs(filepath.Join(from, name))
		check(t, err)
		args := []string{"swap", name + "=" + binary}
		if name == "kube-proxy" && *swapFrom != "" {
			// The original keeps its rules where the one of the tests' other cluster has its own.
			args = append(args, "--node", pods[1].node)
		}
		if out := c.must(t, args...); out != name+" runs from "+binary+".\n" {
			t.Errorf("leme swap says %q", out)
		}
		if state := c.must(t, "status"); !regexp.MustCompile("(?m)^" + name + " .* from " + regexp.QuoteMeta(binary) + "$").MatchString(state) {
			t.Errorf("after swapping %s, status says\n%s", name, state)
		}
	}
	wantSame(t, "containers", containers, c.containers(t))
	c.kubectl(t, "run", "from-binaries", "--image="+busybox, "--restart=Never", "--command", "--", "sleep", "36000")
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/from-binaries", "--timeout=60s")
	c.kubectl(t, "delete", "pod", "from-binaries", "--grace-period=1")

	// What was chosen is kept.
	kill(t, c.status(t).PID)
	c.must(t, "up")
	if state := c.must(t, "status"); strings.Count(state, " from "+from) < len(names) && *swapFrom == "" {
		t.Errorf("after another up, status says\n%s", state)
	}
	for _, name := range names {
		if out := c.must(t, "swap", name+"=leme"); out != name+" runs inside leme.\n" {
			t.Errorf("leme swap says %q", out)
		}
	}
	if state := c.must(t, "status"); strings.Contains(state, " from ") {
		t.Errorf("after swapping back, status says\n%s", state)
	}
	// A program that is none is not left in place.
	c.refuse(t, "^leme: kubelet on .*/false: exit status 1.*the former program runs again$", c.command("swap", "kubelet=/bin/false"))
	wantSame(t, "containers", containers, c.containers(t))
	wantSame(t, "objects", objects, c.objects(t))

	cancel()
	clients.done.Wait()
	if len(clients.failed) > 0 || clients.count < 20 {
		t.Errorf("%d of %d requests failed, such as %v", len(clients.failed), clients.count, clients.failed[:min(3, len(clients.failed))])
	}
}
