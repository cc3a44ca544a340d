package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/cluster/machine"
)

// A nodeRequest names a further node.
type nodeRequest struct {
	Name string `json:"name"`
}

// AddNode adds a node to a running cluster and returns its name when it is ready.
func AddNode(ctx context.Context, dir, name string) (string, error) {
	var added string
	if err := ask(ctx, dataDir(dir).controlSocket(), "/nodes/add", nodeRequest{name}, &added); err != nil {
		return "", explainSilence(dir, err)
	}
	return added, nil
}

// RemoveNode removes a further node and everything of it.
func RemoveNode(ctx context.Context, dir, name string) error {
	return askCluster(ctx, dir, "/nodes/remove", nodeRequest{name})
}

// StopNode switches a further node off, at once, with everything that runs on it.
func StopNode(ctx context.Context, dir, name string) error {
	return askCluster(ctx, dir, "/nodes/stop", nodeRequest{name})
}

// StartNode switches a node on again, and returns when it is ready.
func StartNode(ctx context.Context, dir, name string) error {
	return askCluster(ctx, dir, "/nodes/start", nodeRequest{name})
}

func (r *running) addNode(ctx context.Context, name string) (string, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	s, with := r.now()
	if name != "" {
		if msgs := validation.NameIsDNSSubdomain(name, false); len(msgs) > 0 || len(name) > 63 {
			return "", fmt.Errorf("%q is no name for a node: %s", name, strings.Join(append(msgs, "at most 63 characters"), ", "))
		}
	}
	next := s.clone()
	f, err := next.addNode(name)
	if err != nil {
		return "", err
	}
	next.Config.Nodes = 1 + len(next.Nodes)
	if err := checkRuntime(s.Config.RuntimeDir, true); err != nil {
		return "", err
	}
	if err := newPodNetwork(next).prepare(ctx); err != nil {
		return "", err
	}
	if err := next.save(); err != nil {
		return "", err
	}
	r.setState(next, with)
	started := time.Now()
	r.further[f.Name] = r.startNode(f)
	if r.tasks[routesService] == nil {
		r.followRoutes()
	}
	if err := r.awaitStarted(ctx, f.Name, started); err != nil {
		return "", errors.Join(err, r.remove(context.WithoutCancel(ctx), f))
	}
	return f.Name, nil
}

// awaitStarted waits until a node that was started at a time is ready.
func (r *running) awaitStarted(ctx context.Context, name string, started time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := r.client()
	if err != nil {
		return err
	}
	if err := r.awaitFurther(ctx, client, name, started); err != nil {
		return fmt.Errorf("node %s is not ready: %w", name, err)
	}
	return nil
}

// find returns a further node by name.
func (r *running) find(name string) (FurtherNode, error) {
	s, _ := r.now()
	if name == s.Config.Node.Name {
		return FurtherNode{}, fmt.Errorf("%s is this machine itself: `leme stop` and `leme down` are for it", name)
	}
	f, ok := s.node(name)
	if !ok {
		return FurtherNode{}, fmt.Errorf("there is no node %s", name)
	}
	return *f, nil
}

func (r *running) switchOn(ctx context.Context, name string) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	f, err := r.find(name)
	if err != nil {
		return err
	}
	if !f.Stopped {
		return nil
	}
	f.Stopped = false
	if err := r.keep(f); err != nil {
		return err
	}
	started := time.Now()
	r.further[name] = r.startNode(f)
	return r.awaitStarted(ctx, name, started)
}

func (r *running) switchOff(ctx context.Context, name string) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	f, err := r.find(name)
	if err != nil || f.Stopped {
		return err
	}
	f.Stopped = true
	if err := r.keep(f); err != nil {
		return err
	}
	return r.cutPower(ctx, f)
}

// keep remembers what has changed about a node.
func (r *running) keep(f FurtherNode) error {
	s, with := r.now()
	next := s.clone()
	have, _ := next.node(f.Name)
	*have = f
	if err := next.save(); err != nil {
		return err
	}
	r.setState(next, with)
	return nil
}

// cutPower ends a node at once, with everything that runs on it.
func (r *running) cutPower(ctx context.Context, f FurtherNode) error {
	if t := r.further[f.Name]; t != nil {
		t.cut.Store(true)
		if err := t.stop(30 * time.Second); err != nil {
			return err
		}
		delete(r.further, f.Name)
	}
	s, _ := r.now()
	return killNode(ctx, s, f)
}

// killNode ends the machine of a node, and what this machine had for it.
func killNode(ctx context.Context, s *State, f FurtherNode) error {
	m, err := machine.Find(initMark(dataDir(s.Config.DataDir), f.Name))
	if err != nil {
		return err
	}
	if m != nil {
		defer m.Close()
		if err := m.Kill(ctx); err != nil {
			return err
		}
	}
	if err := machine.RemoveCgroups(ctx, s.nodeID(f)); err != nil {
		return err
	}
	return machine.RemoveLink(s.nodeID(f))
}

func (r *running) removeNode(ctx context.Context, name string) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	f, err := r.find(name)
	if err != nil {
		return err
	}
	return r.remove(ctx, f)
}

// remove leaves nothing of a node. What says that it exists goes last.
func (r *running) remove(ctx context.Context, f FurtherNode) error {
	if err := r.cutPower(ctx, f); err != nil {
		return err
	}
	client, err := r.client()
	if err != nil {
		return err
	}
	if err := client.CoreV1().Nodes().Delete(ctx, f.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing the node object: %w", err)
	}
	if err := os.RemoveAll(r.dir.node(f.Name)); err != nil {
		return err
	}
	s, with := r.now()
	next := s.clone()
	next.removeNode(f.Name)
	next.Config.Nodes = 1 + len(next.Nodes)
	if err := next.save(); err != nil {
		return err
	}
	r.setState(next, with)
	return nil
}

// swapWithin has a component run on a further node as a state says.
func (r *running) swapWithin(ctx context.Context, f FurtherNode, component string, s *State, with map[string]string) error {
	if err := r.writeNodeFiles(s, f, with); err != nil {
		return err
	}
	if f.Stopped {
		return nil // it starts as it is told
	}
	return r.askNode(ctx, f.Name, "/swap", swapRequest{Component: component}, nil)
}

// askNode asks the process that runs a further node.
func (r *running) askNode(ctx context.Context, name, path string, request, result any) error {
	m, err := machine.Find(initMark(r.dir, name))
	if err != nil {
		return err
	}
	if m == nil {
		return errors.New("its machine does not run")
	}
	defer m.Close()
	return ask(ctx, m.Path(machineDir.controlSocket()), path, request, result)
}

// NodeStatus is how a further node fares.
type NodeStatus struct {
	Name    string `json:"name"`
	IP      string `json:"ip"`
	Stopped bool   `json:"stopped,omitempty"`
	// Restarts is how often the node had to be started again.
	Restarts int `json:"restarts,omitempty"`
	// Error is why its parts cannot be asked.
	Error    string          `json:"error,omitempty"`
	Services []ServiceStatus `json:"services,omitempty"`
}

func (r *running) nodeStatuses(ctx context.Context, s *State, with map[string]string) []NodeStatus {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var out []NodeStatus
	for _, f := range s.Nodes {
		n := NodeStatus{Name: f.Name, IP: s.nodeIP(f).String(), Stopped: f.Stopped}
		for _, svc := range r.supervisor.list() {
			if svc.Name == nodeService+f.Name {
				n.Restarts, n.Error = svc.Restarts, svc.Error
			}
		}
		if !f.Stopped {
			if err := r.askNode(ctx, f.Name, "/status", nil, &n.Services); err == nil {
				n.Error = ""
				for i := range n.Services { // the node has a copy
					n.Services[i].Binary = s.binary(f.Name, n.Services[i].Name, with)
				}
			} else if n.Error == "" {
				n.Error = "starting"
			}
		}
		out = append(out, n)
	}
	return out
}
