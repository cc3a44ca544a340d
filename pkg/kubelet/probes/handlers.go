package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpchealth "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	criclient "k8s.io/cri-client/pkg"
	utilexec "k8s.io/utils/exec"

	"github.com/leme-k8s/leme/pkg/component"
)

// Outcome is what one attempt found.
type Outcome string

// The outcomes. Warning counts as success and deserves an event.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Warning Outcome = "warning"
)

const maxBody = 10 << 10

// ExecFunc runs a command in a container and returns what it wrote.
type ExecFunc func(ctx context.Context, containerID string, command []string, timeout time.Duration) (string, error)

// Version is the release that requests to containers say they are of: major.minor.
var Version = strings.Join(strings.SplitN(component.Version, ".", 3)[:2], ".")

// attempt runs a probe once. An error means that nothing could be found out.
func attempt(ctx context.Context, exec ExecFunc, probe *v1.Probe, c *v1.Container, id, podIP string) (Outcome, string, error) {
	timeout := time.Duration(probe.TimeoutSeconds) * time.Second
	switch {
	case probe.Exec != nil:
		return execAttempt(ctx, exec, probe.Exec.Command, id, timeout)
	case probe.HTTPGet != nil:
		req, err := HTTPRequest(ctx, probe.HTTPGet, c, podIP, "kube-probe/"+Version)
		if err != nil {
			return "", "", err
		}
		return httpAttempt(req, timeout)
	case probe.TCPSocket != nil:
		port, err := Port(probe.TCPSocket.Port, c)
		if err != nil {
			return "", "", err
		}
		return tcpAttempt(ctx, hostPort(probe.TCPSocket.Host, podIP, port), timeout)
	case probe.GRPC != nil:
		service := ""
		if probe.GRPC.Service != nil {
			service = *probe.GRPC.Service
		}
		return grpcAttempt(ctx, hostPort("", podIP, int(probe.GRPC.Port)), service, timeout)
	}
	return "", "", fmt.Errorf("missing probe handler for %s", c.Name)
}

func execAttempt(ctx context.Context, exec ExecFunc, command []string, id string, timeout time.Duration) (Outcome, string, error) {
	out, err := exec(ctx, id, command, timeout)
	if len(out) > maxBody {
		out = out[:maxBody]
	}
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return Success, out, nil
	case errors.As(err, &exit):
		if exit.ExitStatus() == 0 {
			return Success, out, nil
		}
		return Failure, out, nil
	case errors.Is(err, criclient.ErrCommandTimedOut) || status.Code(err) == codes.DeadlineExceeded:
		return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout), nil
	}
	return "", "", err
}

// Port is the number of a port that is a number or the name of one of the container's.
func Port(p intstr.IntOrString, c *v1.Container) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				port = int(cp.ContainerPort)
			}
		}
		if port == 0 {
			var err error
			if port, err = strconv.Atoi(p.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port: %s in container %s", p.StrVal, c.Name)
			}
		}
	}
	if port <= 0 || port > 65535 {
		return 0, fmt.Errorf("invalid port number: %d", port)
	}
	return port, nil
}

func hostPort(host, podIP string, port int) string {
	if host == "" {
		host = podIP
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// HTTPRequest is the request of an HTTP handler.
func HTTPRequest(ctx context.Context, action *v1.HTTPGetAction, c *v1.Container, podIP, agent string) (*http.Request, error) {
	port, err := Port(action.Port, c)
	if err != nil {
		return nil, err
	}
	// The path may carry a query and must reach the server as it is written.
	u, err := url.Parse(action.Path)
	if err != nil {
		u = &url.URL{Path: action.Path}
	}
	u.Scheme = strings.ToLower(string(action.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	u.Host = hostPort(action.Host, podIP, port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range action.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	// A header that is there but empty is not sent at all.
	for name, value := range map[string]string{"User-Agent": agent, "Accept": "*/*"} {
		if have, ok := req.Header[name]; !ok {
			req.Header.Set(name, value)
		} else if len(have) == 1 && have[0] == "" && name == "Accept" {
			req.Header.Del(name)
		}
	}
	return req, nil
}

// HTTPClient is a client for one request to a container: it proves nothing about the server, keeps no
// connection and knows no proxy.
func HTTPClient(timeout time.Duration, redirect func(*http.Request, []*http.Request) error) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: redirect,
		Transport: &http.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // a probe asks whether the server answers, not who it is
			DisableKeepAlives:  true,
			DisableCompression: true,
			DialContext:        dialer(timeout).DialContext,
		},
	}
}

// dialer closes connections at once, so that frequent probes do not fill the kernel's tables.
func dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, KeepAlive: -1, Control: lingerOff}
}

func httpAttempt(req *http.Request, timeout time.Duration) (Outcome, string, error) {
	host := req.URL.Hostname()
	resp, err := HTTPClient(timeout, func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != host {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}).Do(req)
	if err != nil {
		return Failure, err.Error(), nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return Failure, "", fmt.Errorf("reading the response: %w", err)
	}
	body := string(raw)
	switch {
	case resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest:
		return Warning, "Probe terminated redirects, Response body: " + body, nil
	case resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusBadRequest:
		return Success, body, nil
	}
	return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
}

func tcpAttempt(ctx context.Context, address string, timeout time.Duration) (Outcome, string, error) {
	conn, err := dialer(timeout).DialContext(ctx, "tcp", address)
	if err != nil {
		return Failure, err.Error(), nil
	}
	_ = conn.Close()
	return Success, "", nil
}

func grpcAttempt(ctx context.Context, address, service string, timeout time.Duration) (Outcome, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithUserAgent("kube-probe/"+Version),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer(timeout).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return Failure, fmt.Sprintf("error: failed to connect service at %q: %v", address, err), nil
	}
	defer conn.Close()
	resp, err := grpchealth.NewHealthClient(conn).Check(metadata.NewOutgoingContext(ctx, metadata.MD{}),
		&grpchealth.HealthCheckRequest{Service: service})
	switch code := status.Code(err); {
	case err == nil && resp.GetStatus() == grpchealth.HealthCheckResponse_SERVING:
		return Success, "service healthy", nil
	case err == nil:
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", resp.GetStatus()), nil
	case code == codes.Unimplemented:
		return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %v", err), nil
	case code == codes.DeadlineExceeded || code == codes.Unavailable:
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", address, timeout, err), nil
	default:
		return Failure, fmt.Sprintf("error: health rpc failed: %v", err), nil
	}
}
