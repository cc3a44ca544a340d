package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// A swapRequest asks for a component to run from another program.
type swapRequest struct {
	Component string `json:"component"`
	// Binary is the program's path, or InLeme.
	Binary string `json:"binary,omitempty"`
	// Node is the only node on which to do so; empty means all.
	Node string `json:"node,omitempty"`
}

// Swap has a component of a running cluster run from another program, or inside leme
// if that is what binary says, now and whenever the cluster is started.
func Swap(ctx context.Context, dir, component, binary, node string) error {
	return askCluster(ctx, dir, "/swap", swapRequest{Component: component, Binary: binary, Node: node})
}

// swap does so on one node after the other. A node whose component fails from the new
// program gets the former one back, and ends it.
func (r *running) swap(ctx context.Context, s swapRequest) error {
	// Half done, it would be worse than to take longer than whoever asked is willing to wait.
	ctx = context.WithoutCancel(ctx)
	r.changing.Lock()
	defer r.changing.Unlock()
	first := r.state.Config.Node.Name
	everywhere := slices.Contains(nodeComponents, s.Component)
	var nodes []string // on which it runs
	if s.Node == "" || s.Node == first {
		nodes = append(nodes, first)
	}
	if everywhere {
		for _, f := range r.state.Nodes {
			if s.Node == "" || s.Node == f.Name {
				nodes = append(nodes, f.Name)
			}
		}
	}
	if len(nodes) == 0 {
		if _, ok := r.state.node(s.Node); ok {
			return fmt.Errorf("%s runs on the node %s alone", s.Component, first)
		}
		return fmt.Errorf("there is no node %s", s.Node)
	}
	next, with := r.state.clone(), r.with
	if s.Node != "" && everywhere {
		next.setBinary(s.Node, s.Component, s.Binary)
	} else {
		next.setBinary("", s.Component, s.Binary)
	}
	// What was asked for this time only is asked for no more, but on nodes that stay.
	if given := with[s.Component]; given != "" {
		with = maps.Clone(with)
		delete(with, s.Component)
		for _, name := range append([]string{first}, next.nodeNames()...) {
			if !slices.Contains(nodes, name) {
				next.setBinary(name, s.Component, given)
			}
		}
	}
	for _, name := range nodes {
		if err := checkProgram(r.components, s.Component, next.binary(name, s.Component, with)); err != nil {
			return err
		}
	}
	for i, name := range nodes {
		err := r.swapOn(ctx, name, s.Component, next, with)
		if err == nil {
			continue
		}
		for _, done := range nodes[:i] {
			err = errors.Join(err, r.swapOn(ctx, done, s.Component, r.state, r.with))
		}
		return fmt.Errorf("%s on %s: %w", s.Component, name, err)
	}
	if err := next.save(); err != nil {
		return err
	}
	r.setState(next, with)
	return nil
}

// swapOn has a component run on a node as a state says.
func (r *running) swapOn(ctx context.Context, node, component string, s *State, with map[string]string) error {
	if f, ok := s.node(node); ok {
		return r.swapWithin(ctx, *f, component, s, with)
	}
	former, next := r.service(component, r.state, r.with), r.service(component, s, with)
	return replaceComponent(ctx, r.tasks[component], next, former, healthURL(component, s.Ports))
}

const (
	// swapEnd is how long a component may take to end.
	swapEnd = 60 * time.Second
	// swapStart is how long it may take to be healthy.
	swapStart = 60 * time.Second
)

// replaceComponent runs a component from another program, and the former one again if
// that does not become healthy.
func replaceComponent(ctx context.Context, t *task, next, former service, health string) error {
	if err := t.replace(next, swapEnd); err != nil {
		return err
	}
	err := awaitHealthy(ctx, t, health)
	if err == nil {
		return nil
	}
	if backErr := t.replace(former, swapEnd); backErr != nil {
		return fmt.Errorf("%w; and going back to the former program failed: %w", err, backErr)
	}
	if backErr := awaitHealthy(ctx, t, health); backErr != nil {
		return fmt.Errorf("%w; and after going back to the former program: %w", err, backErr)
	}
	return fmt.Errorf("%w; the former program runs again", err)
}

// healthURL is where a component says that it is well, to everybody on its own machine.
func healthURL(component string, p Ports) string {
	scheme, port, path := "http", 0, "/healthz"
	switch component {
	case "kube-apiserver":
		scheme, port, path = "https", p.APIServer, "/readyz"
	case "kube-controller-manager":
		scheme, port = "https", p.ControllerManager
	case "kube-scheduler":
		scheme, port, path = "https", p.Scheduler, "/readyz" // it sees what it has to schedule
	case "kubelet":
		port = p.KubeletHealth
	case "kube-proxy":
		port = p.ProxyHealth
	}
	return fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, port, path)
}

// awaitHealthy waits until a component that has just been started is well.
func awaitHealthy(ctx context.Context, t *task, url string) error {
	ctx, cancel := context.WithTimeout(ctx, swapStart)
	defer cancel()
	// Some have a certificate that they signed themselves. The question holds no secret,
	// and the answer decides nothing but how long to wait.
	insecure := &tls.Config{InsecureSkipVerify: true}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure, DisableKeepAlives: true}}
	var last error
	err := poll(ctx, func() (bool, error) {
		if s := t.current(); s.Restarts >= 3 {
			return false, errors.New(s.Error)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err == nil {
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			resp.Body.Close()
		}
		last = err
		return err == nil, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not healthy after %s: %w", swapStart, last)
	}
	return err
}
