package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
	"sigs.k8s.io/knftables"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/leme-k8s/leme/pkg/cluster/machine"
)

// Stop ends the cluster's pods and processes and keeps its data. Containers get up
// to grace to end by themselves.
func Stop(ctx context.Context, dir string, grace time.Duration, out io.Writer) error {
	d := dataDir(dir)
	if err := needRoot("stop"); err != nil {
		return err
	}
	s, err := loadState(d)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no cluster in %s", d)
	}
	if err != nil {
		return err
	}
	l, err := takeOver(ctx, d)
	if err != nil {
		return err
	}
	defer l.release()
	if err := endAllPods(ctx, d, s, podEnd{grace: grace}); err != nil {
		fmt.Fprintf(out, "Some pods could not be ended in order: %v\n", err)
	}
	if err := killNodes(ctx, s); err != nil {
		return err
	}
	if err := endProcesses(ctx, d, func(p clusterProcess) bool { return !p.shim || p.pod }); err != nil {
		return err
	}
	if err := removeNetwork(ctx, s); err != nil {
		return err
	}
	fmt.Fprintf(out, "Stopped. `leme up` brings the cluster back, `leme down` removes it.\n")
	return nil
}

// Down removes the cluster and everything that belongs to it. Nothing there is
// nothing to do.
func Down(ctx context.Context, dir string, out io.Writer) error {
	d := dataDir(dir)
	if err := needRoot("down"); err != nil {
		return err
	}
	if _, err := os.Stat(d.stateFile()); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(out, "There is no cluster in %s.\n", d)
		return nil
	}
	l, err := takeOver(ctx, d)
	if err != nil {
		return err
	}
	defer l.release()
	if err := remove(ctx, d, out); err != nil {
		return err
	}
	if err := os.Remove(string(d)); err != nil && !errors.Is(err, unix.EBUSY) { // a mount of the user's
		return err
	}
	fmt.Fprintf(out, "Removed the cluster in %s.\n", d)
	return nil
}

func needRoot(command string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("`leme %s` ends processes and removes mounts of root: run it as root, for example with sudo", command)
}

// takeOver ends the process that runs the cluster, if there is one, and returns the lock.
func takeOver(ctx context.Context, d dataDir) (*lock, error) {
	const patience = 40 * time.Second // more than the process needs to end in order
	deadline := time.Now().Add(patience)
	told := 0
	for {
		l, pid, err := tryLock(d)
		if l != nil || err != nil {
			return l, err
		}
		switch {
		case pid > 1 && pid != told:
			told = pid
			_ = unix.Kill(pid, unix.SIGTERM)
		case time.Now().After(deadline.Add(5 * time.Second)):
			return nil, fmt.Errorf("process %d holds the cluster and does not end", pid)
		case time.Now().After(deadline) && pid > 1:
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// remove takes everything away, in an order in which it can be done again from the
// start if it was interrupted. The caller holds the lock.
func remove(ctx context.Context, d dataDir, out io.Writer) error {
	s, err := loadState(d)
	if errors.Is(err, fs.ErrNotExist) {
		return removeFiles(d) // a start that had chosen nothing yet
	}
	if err != nil {
		return err
	}
	if err := endLeftovers(ctx, d); err != nil {
		return err
	}
	if err := killNodes(ctx, s); err != nil {
		return err
	}
	// In order, so that CNI plugins undo what they did; what that misses is removed below.
	if err := endPods(ctx, d, s, podEnd{remove: true}); err != nil {
		fmt.Fprintf(out, "Some pods could not be ended in order: %v\n", err)
	}
	if err := endProcesses(ctx, d, func(clusterProcess) bool { return true }); err != nil {
		return err
	}
	if err := removeContainers(ctx, d, s); err != nil {
		return err
	}
	if err := machine.RemoveCgroups(ctx, s.id()); err != nil {
		return err
	}
	if err := removeNetwork(ctx, s); err != nil {
		return err
	}
	if err := unmergeKubeconfig(d); err != nil {
		return err
	}
	if err := removeOutside(d, s); err != nil {
		return err
	}
	return removeFiles(d)
}

// removeContainers ends the containers that are left when there is no containerd any
// more, above all those that somebody other than Kubernetes had it make.
func removeContainers(ctx context.Context, d dataDir, s *State) error {
	bundles, err := filepath.Glob(d.run("s/io.containerd.runtime.v2.task/*/*"))
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		id := filepath.Base(bundle)
		// What containerd does with a container whose shim has died.
		cmd := exec.CommandContext(ctx, filepath.Join(s.Config.RuntimeDir, "containerd-shim-runc-v2"),
			"-namespace", filepath.Base(filepath.Dir(bundle)), "-id", id, "-bundle", bundle, "delete")
		cmd.Dir = bundle
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("removing the container %s: %w: %s", id, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// removeFiles empties the data directory. What says that there is a cluster goes last.
func removeFiles(d dataDir) error {
	if err := unmountBelow(string(d)); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path := d.path(e.Name()); path != d.stateFile() {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	err = os.Remove(d.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// killNodes ends the further nodes, and what this machine has for them.
func killNodes(ctx context.Context, s *State) error {
	for _, f := range s.Nodes {
		if err := killNode(ctx, s, f); err != nil {
			return fmt.Errorf("node %s: %w", f.Name, err)
		}
	}
	return nil
}

// removeNetwork removes the routes and rules of the node, the proxy's too.
func removeNetwork(ctx context.Context, s *State) error {
	return errors.Join(
		newPodNetwork(s).remove(ctx),
		deleteTable(ctx, knftables.IPv4Family, s.ProxyTable),
		deleteTable(ctx, knftables.IPv6Family, s.ProxyTable),
		removeHostPorts(ctx, knftables.IPv4Family),
		removeHostPorts(ctx, knftables.IPv6Family),
	)
}

// hostPortTable is the table of the CNI plugin portmap, which keeps it when it is
// empty and shares it with everybody who uses the plugin.
const hostPortTable = "cni_hostport"

func removeHostPorts(ctx context.Context, family knftables.Family) error {
	nft, err := knftables.New(family, hostPortTable)
	if err != nil {
		return err
	}
	for _, chain := range []string{"hostports", "hostip_hostports"} {
		rules, err := nft.ListRules(ctx, chain)
		if knftables.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if len(rules) > 0 {
			return nil // somebody's
		}
	}
	return deleteTable(ctx, family, hostPortTable)
}

// removeOutside removes what parts of the cluster put at fixed places of the machine:
// links to logs, which the original kubelet makes, and CNI's record of results.
func removeOutside(d dataDir, s *State) error {
	var errs []error
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.HasPrefix(target, string(d)+"/") {
			errs = append(errs, os.Remove(l))
		}
	}
	results, _ := filepath.Glob("/var/lib/cni/results/" + s.id() + "-*")
	for _, r := range results {
		errs = append(errs, os.Remove(r))
	}
	for _, dir := range []string{"/var/log/containers", "/var/lib/cni/results", "/var/lib/cni"} {
		_ = os.Remove(dir) // if it is empty
	}
	return errors.Join(errs...)
}

// podEnd is how pods are ended.
type podEnd struct {
	grace  time.Duration
	remove bool
}

// endAllPods ends the pods of all nodes.
func endAllPods(ctx context.Context, d dataDir, s *State, how podEnd) error {
	nodes, ctx := errgroup.WithContext(ctx)
	nodes.Go(func() error { return endPods(ctx, d, s, how) })
	for _, f := range s.Nodes {
		nodes.Go(func() error {
			if err := endPodsOf(ctx, d, f, how); err != nil {
				return fmt.Errorf("node %s: %w", f.Name, err)
			}
			return nil
		})
	}
	return nodes.Wait()
}

// endPods ends this machine's pods through containerd, started for the purpose.
func endPods(ctx context.Context, d dataDir, s *State, how podEnd) (err error) {
	processes, err := clusterProcesses(d)
	if err != nil || !slices.ContainsFunc(processes, func(p clusterProcess) bool { return p.shim && p.node == thisMachine }) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, how.grace+30*time.Second)
	defer cancel()
	g := (&supervisor{clock: clock.RealClock{}}).group(ctx)
	g.start(containerdService(d, s.Config.RuntimeDir, []string{d.environment()}))
	defer func() { err = errors.Join(err, g.stop(5*time.Second)) }()
	return endPodsAt(ctx, d.containerdSocket(), how)
}

// endPodsOf ends the pods of a further node that runs.
func endPodsOf(ctx context.Context, d dataDir, f FurtherNode, how podEnd) (err error) {
	m, err := machine.Find(initMark(d, f.Name))
	if m == nil || err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(ctx, how.grace+30*time.Second)
	defer cancel()
	running, end := context.WithCancel(ctx)
	cmd, err := nodeCommand(running, d, f, true)
	if err != nil {
		end()
		return err
	}
	defer cmd.log.Close()
	if err := m.Start(cmd.Cmd); err != nil {
		end()
		return err
	}
	defer func() {
		end()
		if waitErr := cmd.Wait(); !errors.Is(waitErr, context.Canceled) {
			err = errors.Join(err, waitErr)
		}
	}()
	return endPodsAt(ctx, m.Path(machineDir.containerdSocket()), how)
}

// endPodsAt ends all pods of a containerd.
func endPodsAt(ctx context.Context, socket string, how podEnd) error {
	c, err := newCRIClient(socket)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.ready(ctx); err != nil {
		return err
	}
	sandboxes, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	pods, ctx := errgroup.WithContext(ctx)
	pods.SetLimit(16)
	for _, sandbox := range sandboxes.Items {
		pods.Go(func() error { return c.endPod(ctx, sandbox.Id, how) })
	}
	return pods.Wait()
}

func (c *criClient) endPod(ctx context.Context, id string, how podEnd) error {
	containers, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		PodSandboxId: id, State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, container := range containers.Containers {
		g.Go(func() error {
			_, err := c.runtime.StopContainer(gctx, &cri.StopContainerRequest{ContainerId: container.Id, Timeout: graceSeconds(container, how.grace)})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil || !how.remove {
		return err
	}
	_, err = c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// graceSeconds is the grace period that the pod asks for, at most limit.
func graceSeconds(c *cri.Container, limit time.Duration) int64 {
	most := int64(limit.Seconds())
	asked, err := strconv.ParseInt(c.Annotations["io.kubernetes.pod.terminationGracePeriod"], 10, 64)
	if err != nil {
		return most
	}
	return min(asked, most)
}
