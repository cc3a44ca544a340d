package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

func isUnimplemented(err error) bool { return status.Code(err) == codes.Unimplemented }

// pod finds the pod that the path names, or answers that there is none.
func (s *Server) pod(w http.ResponseWriter, r *http.Request) (*corev1.Pod, bool) {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")
	pod, ok := s.cfg.Pods.PodByName(namespace, name)
	if !ok || uid != "" && pod.UID != types.UID(uid) {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil, false
	}
	return pod, true
}

func (s *Server) container(w http.ResponseWriter, pod *corev1.Pod, name string) (string, bool) {
	id, ok := s.cfg.Pods.ContainerID(pod.UID, name)
	if !ok {
		http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusNotFound)
	}
	return id, ok
}

// containerLogs sends a container's log from the file that the runtime writes.
func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	namespace, podName, name := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	opts, err := parseLogOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	pod, ok := s.cfg.Pods.PodByName(namespace, podName)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", podName), http.StatusNotFound)
		return
	}
	if kuberuntime.FindContainer(pod, name) == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, podName), http.StatusNotFound)
		return
	}
	path, id, err := s.cfg.Pods.ContainerLog(pod.UID, name, opts.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flushed{w: w, rc: http.NewResponseController(w)}
	if opts.Follow {
		// The client sees that the log is there before its first line comes.
		w.WriteHeader(http.StatusOK)
		if err := out.rc.Flush(); err != nil {
			return
		}
	}
	var stdout, stderr io.Writer = out, out
	if opts.Stream != nil {
		switch *opts.Stream {
		case corev1.LogStreamStdout:
			stderr = io.Discard
		case corev1.LogStreamStderr:
			stdout = io.Discard
		}
	}
	err = logs.ReadLogs(r.Context(), path, id, logOptions(opts, time.Now()), s.cfg.Runtime, stdout, stderr)
	if err == nil || r.Context().Err() != nil {
		return
	}
	klog.FromContext(r.Context()).Info("Reading a container's log failed", "pod", klog.KObj(pod), "container", name, "err", err)
	if !out.written && !opts.Follow {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// flushed sends everything at once: a reader of a log waits for lines, not for buffers.
type flushed struct {
	w       io.Writer
	rc      *http.ResponseController
	written bool
}

func (f *flushed) Write(b []byte) (int, error) {
	f.written = true
	n, err := f.w.Write(b)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

func parseLogOptions(q url.Values) (corev1.PodLogOptions, error) {
	var o corev1.PodLogOptions
	for key, to := range map[string]*bool{"follow": &o.Follow, "previous": &o.Previous, "timestamps": &o.Timestamps} {
		if v, ok := q[key]; ok {
			*to = v[0] != "false" && v[0] != "0"
		}
	}
	for key, to := range map[string]**int64{"tailLines": &o.TailLines, "limitBytes": &o.LimitBytes, "sinceSeconds": &o.SinceSeconds} {
		v := q.Get(key)
		if v == "" || key == "tailLines" && v == "all" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return o, fmt.Errorf("%s: %q is not a number", key, v)
		}
		if n < 0 || n == 0 && key != "tailLines" {
			return o, fmt.Errorf("%s: %d is too small", key, n)
		}
		*to = &n
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return o, fmt.Errorf("sinceTime: %q is not a time", v)
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	if o.SinceSeconds != nil && o.SinceTime != nil {
		return o, fmt.Errorf("at most one of sinceTime and sinceSeconds may be given")
	}
	if v := q.Get("stream"); v != "" {
		if !slices.Contains([]string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}, v) {
			return o, fmt.Errorf("stream: %q is none of All, Stdout and Stderr", v)
		}
		if o.TailLines != nil && v != corev1.LogStreamAll {
			return o, fmt.Errorf("tailLines: cannot be given for one stream alone")
		}
		o.Stream = &v
	}
	return o, nil
}

func logOptions(o corev1.PodLogOptions, now time.Time) *logs.LogOptions {
	l := &logs.LogOptions{TailLines: o.TailLines, LimitBytes: o.LimitBytes, Follow: o.Follow, Timestamp: o.Timestamps}
	switch {
	case o.SinceSeconds != nil:
		l.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	case o.SinceTime != nil:
		l.Since = o.SinceTime.Time
	}
	return l
}

// wanted reads which streams a client wants, under either of their names.
func wanted(w http.ResponseWriter, r *http.Request) (o translator.Options, ok bool) {
	q := r.URL.Query()
	is := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { v := q.Get(n); return v == "1" || v == "true" })
	}
	o = translator.Options{Stdin: is("input", "stdin"), Stdout: is("output", "stdout"), Stderr: is("error", "stderr"), Tty: is("tty")}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		http.Error(w, "you must specify at least one of stdin, stdout, stderr", http.StatusBadRequest)
		return o, false
	}
	if o.Tty {
		o.Stderr = false // a terminal has one stream for both
	}
	return o, true
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	id, ok := s.target(w, r)
	if !ok {
		return
	}
	o, ok := wanted(w, r)
	if !ok {
		return
	}
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		http.Error(w, "you must specify a command", http.StatusBadRequest)
		return
	}
	resp, err := s.cfg.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: command,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.Tty})
	if err != nil {
		streamError(w, r, err)
		return
	}
	stream(w, r, resp.GetUrl(), o)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	id, ok := s.target(w, r)
	if !ok {
		return
	}
	o, ok := wanted(w, r)
	if !ok {
		return
	}
	resp, err := s.cfg.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{ContainerId: id,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.Tty})
	if err != nil {
		streamError(w, r, err)
		return
	}
	stream(w, r, resp.GetUrl(), o)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	id, ok := s.cfg.Pods.SandboxID(pod.UID)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %s has no sandbox that runs", pod.Name), http.StatusNotFound)
		return
	}
	req := &runtimeapi.PortForwardRequest{PodSandboxId: id}
	for _, v := range r.URL.Query()["port"] {
		for p := range strings.SplitSeq(v, ",") {
			port, err := strconv.ParseUint(p, 10, 16)
			if err != nil || port == 0 {
				http.Error(w, fmt.Sprintf("port: %q is not a port", p), http.StatusBadRequest)
				return
			}
			req.Port = append(req.Port, int32(port))
		}
	}
	resp, err := s.cfg.Runtime.PortForward(r.Context(), req)
	if err != nil {
		streamError(w, r, err)
		return
	}
	location, ok := streamURL(w, resp.GetUrl())
	if !ok {
		return
	}
	direct := proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{})
	translator.NewTranslatingHandler(direct, translator.NewTunnelingHandler(direct), wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(w, r)
}

func (s *Server) target(w http.ResponseWriter, r *http.Request) (string, bool) {
	pod, ok := s.pod(w, r)
	if !ok {
		return "", false
	}
	return s.container(w, pod, r.PathValue("container"))
}

// stream connects the client with the runtime's streaming endpoint. Runtimes do not
// speak the newest WebSocket protocol, which can say that stdin has ended: that one
// is translated to SPDY.
func stream(w http.ResponseWriter, r *http.Request, endpoint string, o translator.Options) {
	location, ok := streamURL(w, endpoint)
	if !ok {
		return
	}
	translator.NewTranslatingHandler(
		proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{}),
		translator.NewStreamTranslatorHandler(location, nil, 0, o),
		wsstream.IsWebSocketRequestWithStreamCloseProtocol,
	).ServeHTTP(w, r)
}

func streamURL(w http.ResponseWriter, endpoint string) (*url.URL, bool) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		http.Error(w, fmt.Sprintf("the container runtime gave %q as its streaming endpoint", endpoint), http.StatusInternalServerError)
		return nil, false
	}
	return u, true
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	klog.FromContext(r.Context()).Info("Proxying a stream failed", "path", r.URL.Path, "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func streamError(w http.ResponseWriter, r *http.Request, err error) {
	klog.FromContext(r.Context()).V(2).Info("The container runtime refused a stream", "path", r.URL.Path, "err", err)
	code := http.StatusInternalServerError
	switch status.Code(err) {
	case codes.NotFound:
		code = http.StatusNotFound
	case codes.ResourceExhausted:
		code = http.StatusTooManyRequests
	case codes.InvalidArgument:
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

// run executes a command and sends its output when it has ended.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	id, ok := s.target(w, r)
	if !ok {
		return
	}
	stdout, stderr, err := s.cfg.Runtime.ExecSync(r.Context(), id, strings.Split(r.FormValue("cmd"), " "), 0)
	out := append(stdout, stderr...)
	var exit utilexec.ExitError
	if errors.As(err, &exit) {
		http.Error(w, fmt.Sprintf("%s\ncommand terminated with exit code %d", out, exit.ExitStatus()), http.StatusInternalServerError)
		return
	}
	if err != nil {
		streamError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if _, err := w.Write(out); err != nil {
		klog.FromContext(r.Context()).V(4).Info("Client went away", "err", err)
	}
}
