package pods

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/probes"
)

// hook runs a container's lifecycle hook to its end, or to that of ctx.
func (w *worker) hook(ctx context.Context, pod *v1.Pod, c *v1.Container, id string, h *v1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		// CRI itself knows no end without a time-out; the context brings it.
		output, err := w.m.Runtime.Exec(ctx, id, h.Exec.Command, 0)
		if err != nil {
			return fmt.Errorf("command %q: %w, output: %q", strings.Join(h.Exec.Command, " "), err, output)
		}
		return nil
	case h.HTTPGet != nil:
		return w.httpHook(ctx, pod, c, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			w.m.metrics.cutSleeps.Inc()
			return ctx.Err()
		}
	}
	return fmt.Errorf("container %s: a lifecycle hook must be exec, httpGet or sleep", c.Name)
}

func (w *worker) httpHook(ctx context.Context, pod *v1.Pod, c *v1.Container, action *v1.HTTPGetAction) error {
	state, err := w.m.Observer.Pod(ctx, w.uid)
	if err != nil {
		return err
	}
	ips := w.m.Runtime.PodIPs(pod, state.ReadySandbox())
	if action.Host == "" && len(ips) == 0 {
		return fmt.Errorf("failed to find networking container for pod %s", klog.KObj(pod))
	}
	ip := ""
	if len(ips) > 0 {
		ip = ips[0]
	}
	req, err := probes.HTTPRequest(ctx, action, c, ip, "kube-lifecycle/"+probes.Version)
	if err != nil {
		return err
	}
	resp, err := probes.HTTPClient(0, nil).Do(req)
	if err != nil && strings.EqualFold(req.URL.Scheme, "https") && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		// Hooks that said HTTPS were once sent as HTTP, and there are servers that rely on it.
		w.m.Recorder.Eventf(pod, v1.EventTypeWarning, "LifecycleHTTPFallback", "request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host)
		req.URL.Scheme = "http"
		req.Header.Del("Authorization")
		if resp, err = probes.HTTPClient(0, nil).Do(req); err == nil {
			w.m.metrics.fallbacks.Inc()
		}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode >= http.StatusInternalServerError {
		klog.FromContext(ctx).V(2).Info("Lifecycle hook was answered with an error", "pod", klog.KObj(pod), "status", resp.StatusCode)
	}
	return nil
}
