// Package extender asks webhooks what they think of a placement: the extenders of
// KubeSchedulerConfiguration.
package extender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	restclient "k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// Plugin is what stands for all extenders among the plugins that rejected a pod.
const Plugin = "Extender"

// maxAnswer bounds what an extender may send.
const maxAnswer = 256 << 20

// Extender is one webhook.
type Extender struct {
	config  configv1.Extender
	client  *http.Client
	managed sets.Set[v1.ResourceName]
}

var _ fwk.Extender = &Extender{}

// New makes an extender. Its configuration must be valid.
func New(c configv1.Extender) (*Extender, error) {
	rest := &restclient.Config{Timeout: c.HTTPTimeout.Duration}
	if t := c.TLSConfig; t != nil {
		rest.TLSClientConfig = restclient.TLSClientConfig{
			Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
			CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
		}
	}
	if c.EnableHTTPS && len(rest.CAFile)+len(rest.CAData) == 0 {
		rest.Insecure = true // as in the original: without authorities to check against, none are asked
	}
	client, err := restclient.HTTPClientFor(rest)
	if err != nil {
		return nil, err
	}
	e := &Extender{config: c, client: client, managed: sets.New[v1.ResourceName]()}
	for _, r := range c.ManagedResources {
		e.managed.Insert(v1.ResourceName(r.Name))
	}
	return e, nil
}

// Name returns the extender's address.
func (e *Extender) Name() string { return e.config.URLPrefix }

// IsIgnorable reports whether pods are scheduled while the extender does not answer.
func (e *Extender) IsIgnorable() bool { return e.config.Ignorable }

// IsFilter reports whether the extender filters nodes.
func (e *Extender) IsFilter() bool { return e.config.FilterVerb != "" }

// IsPrioritizer reports whether the extender scores nodes.
func (e *Extender) IsPrioritizer() bool { return e.config.PrioritizeVerb != "" }

// IsBinder reports whether the extender binds pods.
func (e *Extender) IsBinder() bool { return e.config.BindVerb != "" }

// SupportsPreemption reports whether the extender has a say in whom to preempt.
func (e *Extender) SupportsPreemption() bool { return e.config.PreemptVerb != "" }

// IsInterested reports whether a pod asks for a resource that the extender manages; one
// that manages none is asked about every pod.
func (e *Extender) IsInterested(pod *v1.Pod) bool {
	return e.managed.Len() == 0 || slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c v1.Container) bool {
		for name := range c.Resources.Requests {
			if e.managed.Has(name) {
				return true
			}
		}
		for name := range c.Resources.Limits {
			if e.managed.Has(name) {
				return true
			}
		}
		return false
	})
}

// Filter asks which of the nodes are fine.
func (e *Extender) Filter(pod *v1.Pod, nodes []fwk.NodeInfo) ([]fwk.NodeInfo, extenderv1.FailedNodesMap, extenderv1.FailedNodesMap, error) {
	if !e.IsFilter() {
		return nodes, nil, nil, nil
	}
	var result extenderv1.ExtenderFilterResult
	if err := e.post(e.config.FilterVerb, e.args(pod, nodes), &result); err != nil {
		return nil, nil, nil, err
	}
	if result.Error != "" {
		return nil, nil, nil, errors.New(result.Error)
	}
	fine := sets.New[string]()
	switch {
	case e.config.NodeCacheCapable && result.NodeNames != nil:
		fine.Insert(*result.NodeNames...)
	case result.Nodes != nil:
		for i := range result.Nodes.Items {
			fine.Insert(result.Nodes.Items[i].Name)
		}
	}
	var left []fwk.NodeInfo
	for _, n := range nodes {
		if name := n.Node().Name; fine.Has(name) {
			left = append(left, n)
			fine.Delete(name)
		}
	}
	if fine.Len() > 0 {
		return nil, nil, nil, fmt.Errorf("extender %s names nodes that it was not asked about: %v", e.Name(), sets.List(fine))
	}
	return left, result.FailedNodes, result.FailedAndUnresolvableNodes, nil
}

func (e *Extender) args(pod *v1.Pod, nodes []fwk.NodeInfo) *extenderv1.ExtenderArgs {
	args := &extenderv1.ExtenderArgs{Pod: pod}
	if e.config.NodeCacheCapable {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Node().Name
		}
		args.NodeNames = &names
		return args
	}
	args.Nodes = &v1.NodeList{}
	for _, n := range nodes {
		args.Nodes.Items = append(args.Nodes.Items, *n.Node())
	}
	return args
}

// Prioritize asks for scores, from 0 to 10, and says what they weigh.
func (e *Extender) Prioritize(pod *v1.Pod, nodes []fwk.NodeInfo) (*extenderv1.HostPriorityList, int64, error) {
	scores := extenderv1.HostPriorityList{}
	if e.IsPrioritizer() {
		if err := e.post(e.config.PrioritizeVerb, e.args(pod, nodes), &scores); err != nil {
			return nil, 0, err
		}
	}
	return &scores, e.config.Weight, nil
}

// Bind has the extender bind a pod.
func (e *Extender) Bind(b *v1.Binding) error {
	if !e.IsBinder() {
		return errors.New("unexpected empty bindVerb in extender")
	}
	var result extenderv1.ExtenderBindingResult
	if err := e.post(e.config.BindVerb, &extenderv1.ExtenderBindingArgs{PodName: b.Name, PodNamespace: b.Namespace, PodUID: b.UID, Node: b.Target.Name}, &result); err != nil {
		return err
	}
	if result.Error != "" {
		return errors.New(result.Error)
	}
	return nil
}

// ProcessPreemption asks which candidates the extender agrees with, and with which victims.
func (e *Extender) ProcessPreemption(pod *v1.Pod, victims map[string]*extenderv1.Victims, nodes fwk.NodeInfoLister) (map[string]*extenderv1.Victims, error) {
	if !e.SupportsPreemption() {
		return nil, fmt.Errorf("preempt verb is not defined for extender %s but run into ProcessPreemption", e.Name())
	}
	args := &extenderv1.ExtenderPreemptionArgs{Pod: pod}
	if e.config.NodeCacheCapable {
		args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
		for node, v := range victims {
			meta := &extenderv1.MetaVictims{NumPDBViolations: v.NumPDBViolations}
			for _, p := range v.Pods {
				meta.Pods = append(meta.Pods, &extenderv1.MetaPod{UID: string(p.UID)})
			}
			args.NodeNameToMetaVictims[node] = meta
		}
	} else {
		args.NodeNameToVictims = victims
	}
	var result extenderv1.ExtenderPreemptionResult
	if err := e.post(e.config.PreemptVerb, args, &result); err != nil {
		return nil, err
	}
	out := map[string]*extenderv1.Victims{}
	for name, meta := range result.NodeNameToMetaVictims {
		node, err := nodes.Get(name)
		if err != nil {
			return nil, err
		}
		v := &extenderv1.Victims{NumPDBViolations: meta.NumPDBViolations}
		for _, m := range meta.Pods {
			i := slices.IndexFunc(node.GetPods(), func(p fwk.PodInfo) bool { return p.GetPod().UID == types.UID(m.UID) })
			if i < 0 {
				return nil, fmt.Errorf("extender %s claims to preempt pod (UID: %s) on node %s, but the pod is not found on that node", e.Name(), m.UID, name)
			}
			v.Pods = append(v.Pods, node.GetPods()[i].GetPod())
		}
		out[name] = v
	}
	return out, nil
}

// post sends a question and reads the answer.
func (e *Extender) post(verb string, args, result any) (err error) {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	url := strings.TrimRight(e.config.URLPrefix, "/") + "/" + verb
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("extender: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, url, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(result); err != nil {
		return fmt.Errorf("extender at URL %v: %w", url, err)
	}
	return nil
}
