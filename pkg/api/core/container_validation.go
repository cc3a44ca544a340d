package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podScope is what containers need to know of their pod.
type podScope struct {
	spec    *corev1.PodSpec
	volumes map[string]*corev1.VolumeSource
	names   duplicates[string]
}

// grace is how long the pod has to end.
func (s *podScope) grace() int64 {
	if s.spec.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds
	}
	return *s.spec.TerminationGracePeriodSeconds
}

func (r *report) containers(list []corev1.Container, s *podScope, p *field.Path) {
	r.requireIf(len(list) == 0, p, "")
	for i := range list {
		r.container(&list[i], s, p.Index(i))
		r.restartRules(&list[i], p.Index(i))
		r.probesAndHooks(&list[i], s, p.Index(i))
	}
	r.hostPorts(list, p)
}

func (r *report) initContainers(list []corev1.Container, s *podScope, p *field.Path) {
	for i := range list {
		c, at := &list[i], p.Index(i)
		r.container(c, s, at)
		if c.RestartPolicy != nil { // otherwise the rules are one too many as such
			r.restartRules(c, at)
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			r.probesAndHooks(c, s, at)
		} else {
			for _, f := range []struct {
				name string
				set  bool
			}{
				{"lifecycle", c.Lifecycle != nil},
				{"livenessProbe", c.LivenessProbe != nil},
				{"readinessProbe", c.ReadinessProbe != nil},
				{"startupProbe", c.StartupProbe != nil},
			} {
				r.forbidIf(f.set, at.Child(f.name), "may not be set for init containers without restartPolicy=Always")
			}
		}
		// They run one after another, so each has the host's ports to itself.
		r.hostPorts(list[i:i+1], p)
	}
}

func (r *report) ephemeralContainers(list []corev1.EphemeralContainer, s *podScope, p *field.Path) {
	targets := sets.New[string]()
	for _, c := range s.spec.Containers {
		targets.Insert(c.Name)
	}
	for _, c := range s.spec.InitContainers {
		targets.Insert(c.Name)
	}
	for i := range list {
		c, at := (*corev1.Container)(&list[i].EphemeralContainerCommon), p.Index(i)
		unchecked := *c
		unchecked.RestartPolicy, unchecked.RestartPolicyRules = nil, nil
		r.container(&unchecked, s, at)
		if target := list[i].TargetContainerName; target != "" && !targets.Has(target) {
			r.add(field.NotFound(at.Child("targetContainerName"), target))
		}
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ports", c.Ports != nil},
			{"resources", c.Resources.Limits != nil || c.Resources.Requests != nil || c.Resources.Claims != nil},
			{"resizePolicy", c.ResizePolicy != nil},
			{"restartPolicy", c.RestartPolicy != nil},
			{"restartPolicyRules", c.RestartPolicyRules != nil},
			{"livenessProbe", c.LivenessProbe != nil},
			{"readinessProbe", c.ReadinessProbe != nil},
			{"startupProbe", c.StartupProbe != nil},
			{"lifecycle", c.Lifecycle != nil},
		} {
			r.forbidIf(f.set, at.Child(f.name), "cannot be set for an Ephemeral Container")
		}
		for j, m := range c.VolumeMounts {
			r.forbidIf(m.SubPath != "", at.Child("volumeMounts").Index(j).Child("subPath"), "cannot be set for an Ephemeral Container")
			r.forbidIf(m.SubPathExpr != "", at.Child("volumeMounts").Index(j).Child("subPathExpr"), "cannot be set for an Ephemeral Container")
		}
	}
}

// container validates what all kinds of containers have in common.
func (r *report) container(c *corev1.Container, s *podScope, p *field.Path) {
	if r.required(c.Name, p.Child("name")) {
		r.invalid(p.Child("name"), c.Name, validation.IsDNS1123Label(c.Name)...)
		s.names.check(r, c.Name, p.Child("name"))
	}
	r.image(c.Image, p.Child("image"))
	requiredOneOf(r, c.TerminationMessagePolicy, p.Child("terminationMessagePolicy"),
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	requiredOneOf(r, c.ImagePullPolicy, p.Child("imagePullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	r.ports(c.Ports, p.Child("ports"))
	r.env(c.Env, p.Child("env"))
	r.envFiles(c.Env, s, p.Child("env"))
	r.envFrom(c.EnvFrom, p.Child("envFrom"))
	r.mounts(c, s, p)
	r.resources(&c.Resources, s.spec.ResourceClaims, p.Child("resources"), (*report).containerResourceName)
	r.resizePolicy(c.ResizePolicy, s.spec.RestartPolicy, p.Child("resizePolicy"))
	r.restartPolicy(c, p)
	r.securityContext(c.SecurityContext, s, p.Child("securityContext"))
}

func (r *report) image(image string, p *field.Path) bool {
	return r.required(image, p) && r.invalidIf(image != strings.TrimSpace(image), p, image, "must not have leading or trailing whitespace")
}

func (r *report) probesAndHooks(c *corev1.Container, s *podScope, p *field.Path) {
	if l := c.Lifecycle; l != nil {
		at := p.Child("lifecycle")
		r.hook(l.PostStart, s, at.Child("postStart"))
		r.hook(l.PreStop, s, at.Child("preStop"))
	}
	r.probe(c.LivenessProbe, p.Child("livenessProbe"))
	r.probe(c.ReadinessProbe, p.Child("readinessProbe"))
	r.probe(c.StartupProbe, p.Child("startupProbe"))
	once := func(probe *corev1.Probe, at *field.Path) {
		if probe != nil {
			r.invalidIf(probe.SuccessThreshold != 1, at.Child("successThreshold"), probe.SuccessThreshold, "must be 1")
		}
	}
	once(c.LivenessProbe, p.Child("livenessProbe"))
	once(c.StartupProbe, p.Child("startupProbe"))
	if c.ReadinessProbe != nil && c.ReadinessProbe.TerminationGracePeriodSeconds != nil {
		r.invalid(p.Child("readinessProbe", "terminationGracePeriodSeconds"), *c.ReadinessProbe.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
	}
}

// hostNetworkPorts says that ports of containers in the network of the host are its ports. In a
// template they may be left out: a pod gets them.
func (r *report) hostNetworkPorts(spec *corev1.PodSpec, isPod bool, p *field.Path) {
	if !spec.HostNetwork {
		return
	}
	for i, c := range spec.Containers {
		for j, port := range c.Ports {
			left := port.HostPort == 0 && !isPod
			r.invalidIf(!left && port.HostPort != port.ContainerPort, p.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
				"must match `containerPort` when `hostNetwork` is true")
		}
	}
}

func (r *report) ports(ports []corev1.ContainerPort, p *field.Path) {
	names := duplicates[string]{}
	for i, port := range ports {
		at := p.Index(i)
		if port.Name != "" && r.invalid(at.Child("name"), port.Name, validation.IsValidPortName(port.Name)...) {
			names.check(r, port.Name, at.Child("name"))
		}
		if r.requireIf(port.ContainerPort == 0, at.Child("containerPort"), "") {
			r.portNumber(port.ContainerPort, at.Child("containerPort"))
		}
		if port.HostPort != 0 {
			r.portNumber(port.HostPort, at.Child("hostPort"))
		}
		r.protocol(port.Protocol, at.Child("protocol"))
	}
}

func (r *report) portNumber(port int32, p *field.Path) bool {
	return r.invalid(p, port, validation.IsValidPortNum(int(port))...)
}

func (r *report) protocol(protocol corev1.Protocol, p *field.Path) bool {
	return requiredOneOf(r, protocol, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

// hostPorts says that containers that run together cannot share a port of the host.
func (r *report) hostPorts(list []corev1.Container, p *field.Path) {
	taken := duplicates[string]{}
	for i := range list {
		for j, port := range list[i].Ports {
			if port.HostPort != 0 {
				taken.check(r, fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort), p.Index(i).Child("ports").Index(j).Child("hostPort"))
			}
		}
	}
}

func (r *report) resizePolicy(policies []corev1.ContainerResizePolicy, restart corev1.RestartPolicy, p *field.Path) {
	seen := duplicates[corev1.ResourceName]{}
	for i, policy := range policies {
		seen.check(r, policy.ResourceName, p.Index(i))
		requiredOneOf(r, policy.ResourceName, p, corev1.ResourceCPU, corev1.ResourceMemory)
		requiredOneOf(r, policy.RestartPolicy, p, corev1.NotRequired, corev1.RestartContainer)
		r.invalidIf(restart == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired, p, policy.RestartPolicy,
			"must be 'NotRequired' when pod `restartPolicy` is 'Never'")
	}
}

func (r *report) restartPolicy(c *corev1.Container, p *field.Path) {
	optionalOneOf(r, c.RestartPolicy, p.Child("restartPolicy"),
		corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	r.requireIf(c.RestartPolicy == nil && len(c.RestartPolicyRules) > 0, p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
}

func (r *report) restartRules(c *corev1.Container, p *field.Path) {
	rules := p.Child("restartPolicyRules")
	if len(c.RestartPolicyRules) > 20 {
		r.add(field.TooLong(rules, rules, 20))
	}
	for i, rule := range c.RestartPolicyRules {
		at := rules.Index(i)
		oneOf(r, rule.Action, at.Child("action"), corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if !r.requireIf(rule.ExitCodes == nil, at.Child("exitCodes"), "must be specified") {
			continue
		}
		oneOf(r, rule.ExitCodes.Operator, at.Child("exitCodes", "operator"), corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if len(rule.ExitCodes.Values) > 255 {
			r.add(field.TooLong(at.Child("exitCodes", "values"), rule.ExitCodes.Values, 255))
		}
	}
}

// A handler is one of several things to do.
type handler struct {
	name  string
	set   bool
	check func(p *field.Path)
}

// oneHandler says that exactly one handler must be given, and validates the first.
func (r *report) oneHandler(handlers []handler, p *field.Path) {
	found := false
	for _, h := range handlers {
		if !h.set {
			continue
		}
		if r.forbidIf(found, p.Child(h.name), "may not specify more than 1 handler type") {
			h.check(p.Child(h.name))
		}
		found = true
	}
	r.requireIf(!found, p, "must specify a handler type")
}

func (r *report) probe(probe *corev1.Probe, p *field.Path) {
	if probe == nil {
		return
	}
	r.oneHandler([]handler{
		{"exec", probe.Exec != nil, func(p *field.Path) { r.exec(probe.Exec, p) }},
		{"httpGet", probe.HTTPGet != nil, func(p *field.Path) { r.httpGet(probe.HTTPGet, p) }},
		{"tcpSocket", probe.TCPSocket != nil, func(p *field.Path) { r.portNumberOrName(probe.TCPSocket.Port, p.Child("port")) }},
		{"grpc", probe.GRPC != nil, func(p *field.Path) { r.portNumber(probe.GRPC.Port, p.Child("port")) }},
	}, p)
	r.nonNegative(int64(probe.InitialDelaySeconds), p.Child("initialDelaySeconds"))
	r.nonNegative(int64(probe.TimeoutSeconds), p.Child("timeoutSeconds"))
	r.nonNegative(int64(probe.PeriodSeconds), p.Child("periodSeconds"))
	r.nonNegative(int64(probe.SuccessThreshold), p.Child("successThreshold"))
	r.nonNegative(int64(probe.FailureThreshold), p.Child("failureThreshold"))
	if g := probe.TerminationGracePeriodSeconds; g != nil {
		r.invalidIf(*g <= 0, p.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0")
	}
}

func (r *report) hook(h *corev1.LifecycleHandler, s *podScope, p *field.Path) {
	if h == nil {
		return
	}
	r.oneHandler([]handler{
		{"exec", h.Exec != nil, func(p *field.Path) { r.exec(h.Exec, p) }},
		{"httpGet", h.HTTPGet != nil, func(p *field.Path) { r.httpGet(h.HTTPGet, p) }},
		{"tcpSocket", h.TCPSocket != nil, func(p *field.Path) { r.portNumberOrName(h.TCPSocket.Port, p.Child("port")) }},
		{"sleep", h.Sleep != nil, func(p *field.Path) {
			r.invalidIf(h.Sleep.Seconds < 0 || h.Sleep.Seconds > s.grace(), p, h.Sleep.Seconds,
				fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", s.grace()))
		}},
	}, p)
}

func (r *report) exec(e *corev1.ExecAction, p *field.Path) {
	r.requireIf(len(e.Command) == 0, p.Child("command"), "")
}

func (r *report) httpGet(g *corev1.HTTPGetAction, p *field.Path) {
	r.required(g.Path, p.Child("path"))
	r.portNumberOrName(g.Port, p.Child("port"))
	oneOf(r, g.Scheme, p.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, h := range g.HTTPHeaders {
		r.invalid(p.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name)...)
	}
}

func (r *report) portNumberOrName(port intstr.IntOrString, p *field.Path) {
	if port.Type == intstr.Int {
		r.portNumber(port.IntVal, p)
		return
	}
	r.invalid(p, port.StrVal, validation.IsValidPortName(port.StrVal)...)
}
