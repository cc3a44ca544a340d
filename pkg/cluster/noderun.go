package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/cluster/machine"
)

// RunNode runs a further node, inside its machine, until its standard input ends:
// whoever started it holds the other end, and cannot leave it behind. With idle, only
// containerd runs.
func RunNode(ctx context.Context, components Components, idle bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end, or an error, is all there is to know
		cancel()
	}()
	if err := machine.JoinServices(); err != nil {
		return err
	}
	spec, err := loadNodeSpec(machineDir.nodeSpec())
	if err != nil {
		return err
	}
	n := &nodeProcess{
		agent:      &agent{dir: machineDir, spec: spec, components: components},
		supervisor: &supervisor{clock: clock.RealClock{}}, tasks: map[string]*task{},
	}
	if err := n.agent.prepare(ctx); err != nil {
		return err
	}
	base, clients := n.supervisor.group(ctx), n.supervisor.group(ctx)
	base.start(n.agent.containerd())
	if !idle {
		base.start(n.agent.followPodCIDR())
		for _, name := range nodeComponents {
			n.tasks[name] = clients.start(n.agent.component(name))
		}
		go func() {
			if err := ensureImages(ctx, machineDir.containerdSocket(), pauseImage); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "The first pod will have to wait for an image")
			}
		}()
	}
	control, err := serveControl(ctx, machineDir.controlSocket(), n.routes())
	if err != nil {
		return err
	}
	defer control.Close()
	<-ctx.Done()
	return errors.Join(clients.stop(10*time.Second), base.stop(10*time.Second))
}

// A nodeProcess is the process that runs a further node.
type nodeProcess struct {
	agent      *agent
	supervisor *supervisor
	tasks      map[string]*task // kubelet and proxy
}

func (n *nodeProcess) routes() []route {
	return []route{
		handler("GET /status", func(context.Context, struct{}) (any, error) { return n.supervisor.list(), nil }),
		handler("POST /swap", func(ctx context.Context, s swapRequest) (any, error) { return nil, n.swap(ctx, s.Component) }),
	}
}

// swap has a component run as the node's file says now.
func (n *nodeProcess) swap(ctx context.Context, component string) error {
	spec, err := loadNodeSpec(machineDir.nodeSpec())
	if err != nil {
		return err
	}
	t := n.tasks[component]
	if t == nil {
		return fmt.Errorf("a node runs no %s", component)
	}
	former := n.agent.component(component)
	n.agent.spec = spec
	return replaceComponent(ctx, t, n.agent.component(component), former, healthURL(component, spec.Ports))
}
