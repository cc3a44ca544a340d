package pod

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericfilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// streams opens streams into containers, through their kubelet. Clients speak
// WebSocket or SPDY; kubelets are spoken to in SPDY.
type streams struct {
	pods *Store
	d    Dependencies
}

// Destroy implements rest.Storage.
func (streams) Destroy() {}

// ConnectMethods implements rest.Connecter. Browsers open WebSockets with GET.
func (streams) ConnectMethods() []string { return []string{"GET", "POST"} }

// target returns the kubelet's URL for a stream and the way there.
func (s streams) target(ctx context.Context, action, name, container string, query url.Values) (*url.URL, http.RoundTripper, error) {
	if err := s.authorize(ctx); err != nil {
		return nil, nil, err
	}
	p, err := get(ctx, s.pods, name)
	if err != nil {
		return nil, nil, err
	}
	path := fmt.Sprintf("/%s/%s/%s", action, p.Namespace, p.Name)
	if action != "portForward" {
		if container, err = containerOf(p, container); err != nil {
			return nil, nil, err
		}
		path += "/" + container
	}
	if p.Spec.NodeName == "" {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	c, err := s.d.Kubelets.Connection(ctx, p.Spec.NodeName)
	if err != nil {
		return nil, nil, err
	}
	return &url.URL{Scheme: "https", Host: c.Host, Path: path, RawQuery: query.Encode()}, c.Transport, nil
}

// authorize demands the right to create, whatever the method of the request: with
// GET alone, who may read could run commands.
func (s streams) authorize(ctx context.Context) error {
	attributes, err := genericfilters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if attributes.GetVerb() == "create" {
		return nil
	}
	record, ok := attributes.(*authorizer.AttributesRecord)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("unexpected attributes %T", attributes))
	}
	create := *record
	create.Verb = "create"
	decision, reason, err := s.d.Authorizer.Authorize(ctx, &create)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	info, _ := request.RequestInfoFrom(ctx)
	resource := corev1.Resource("pods")
	if info != nil && info.Subresource != "" {
		resource.Resource += "/" + info.Subresource
	}
	return apierrors.NewForbidden(resource, attributes.GetName(), fmt.Errorf("%s", reason))
}

// upgrade passes the connection through.
func (s streams) upgrade(location *url.URL, transport http.RoundTripper, responder rest.Responder) *proxy.UpgradeAwareHandler {
	h := proxy.NewUpgradeAwareHandler(location, transport, false, true, proxy.NewErrorResponder(responder))
	h.MaxBytesPerSec = s.d.MaxBytesPerSec
	return h
}

// translate passes a connection through, or translates it if the client speaks
// the present WebSocket protocol.
func (s streams) translate(location *url.URL, transport http.RoundTripper, responder rest.Responder, o translator.Options) http.Handler {
	return translator.NewTranslatingHandler(
		s.upgrade(location, transport, responder),
		translator.NewStreamTranslatorHandler(location, transport, s.d.MaxBytesPerSec, o),
		wsstream.IsWebSocketRequestWithStreamCloseProtocol)
}

// streamQuery tells the kubelet which streams there are.
func streamQuery(o translator.Options) url.Values {
	q := url.Values{}
	for name, set := range map[string]bool{
		corev1.ExecStdinParam: o.Stdin, corev1.ExecStdoutParam: o.Stdout, corev1.ExecStderrParam: o.Stderr, corev1.ExecTTYParam: o.Tty,
	} {
		if set {
			q.Set(name, "1")
		}
	}
	return q
}

// exec is pods/exec.
type exec struct{ streams }

// New implements rest.Storage.
func (exec) New() runtime.Object { return &corev1.PodExecOptions{} }

// NewConnectOptions implements rest.Connecter.
func (exec) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodExecOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (e exec) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := options.(*corev1.PodExecOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	which := translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	query := streamQuery(which)
	query["command"] = o.Command
	location, transport, err := e.target(ctx, "exec", name, o.Container, query)
	if err != nil {
		return nil, err
	}
	return e.translate(location, transport, responder, which), nil
}

// attach is pods/attach.
type attach struct{ streams }

// New implements rest.Storage.
func (attach) New() runtime.Object { return &corev1.PodAttachOptions{} }

// NewConnectOptions implements rest.Connecter.
func (attach) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodAttachOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (a attach) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := options.(*corev1.PodAttachOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	which := translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	location, transport, err := a.target(ctx, "attach", name, o.Container, streamQuery(which))
	if err != nil {
		return nil, err
	}
	return a.translate(location, transport, responder, which), nil
}

// portForward is pods/portforward.
type portForward struct{ streams }

// New implements rest.Storage.
func (portForward) New() runtime.Object { return &corev1.PodPortForwardOptions{} }

// NewConnectOptions implements rest.Connecter.
func (portForward) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodPortForwardOptions{}, false, ""
}

// Connect implements rest.Connecter.
func (f portForward) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	o, ok := options.(*corev1.PodPortForwardOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	query := url.Values{}
	if len(o.Ports) > 0 {
		var ports []string
		for _, p := range o.Ports {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		query.Set(corev1.PortHeader, strings.Join(ports, ","))
	}
	location, transport, err := f.target(ctx, "portForward", name, "", query)
	if err != nil {
		return nil, err
	}
	h := f.upgrade(location, transport, responder)
	return translator.NewTranslatingHandler(h, translator.NewTunnelingHandler(h), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
}

var (
	_ rest.Connecter = exec{}
	_ rest.Connecter = attach{}
	_ rest.Connecter = portForward{}
)
