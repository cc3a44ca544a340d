package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/prometheus/slis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Handler is the HTTPS API, with authentication and authorization before it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	k := s.cfg.Kubelet
	s.installHealth(mux)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("POST /stats/summary", s.summary)
	mux.Handle("GET /metrics", s.metricsHandler())
	mux.Handle("GET /metrics/slis", sliHandler())
	mux.HandleFunc("GET /metrics/resource", func(w http.ResponseWriter, r *http.Request) { serveMetrics(w, r, s.cfg.Stats.Resource(r.Context())) })
	mux.HandleFunc("GET /metrics/cadvisor", func(w http.ResponseWriter, r *http.Request) { serveMetrics(w, r, s.cfg.Stats.Containers(r.Context())) })
	mux.HandleFunc("GET /metrics/probes", func(w http.ResponseWriter, r *http.Request) { serveMetrics(w, r, s.cfg.Probes) })
	mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)

	if k.EnableDebuggingHandlers == nil || *k.EnableDebuggingHandlers {
		s.installDebugging(mux)
	} else {
		for _, prefix := range []string{"/run/", "/exec/", "/attach/", "/portForward/", "/containerLogs/", "/runningpods/", "/configz", "/debug/", "/logs/"} {
			mux.HandleFunc(prefix, func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "Debug endpoints are disabled.", http.StatusMethodNotAllowed)
			})
		}
	}
	return s.counted(mux, s.authorized(mux))
}

func (s *Server) installDebugging(mux *http.ServeMux) {
	k := s.cfg.Kubelet
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.containerLogs)
	for _, path := range []string{"{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			mux.HandleFunc(method+" /exec/"+path, s.exec)
			mux.HandleFunc(method+" /attach/"+path, s.attach)
		}
		mux.HandleFunc("POST /run/"+path, s.run)
	}
	for _, path := range []string{"{namespace}/{pod}", "{namespace}/{pod}/{uid}"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			mux.HandleFunc(method+" /portForward/"+path, s.portForward)
		}
	}
	mux.HandleFunc("GET /runningpods/", s.runningPods)
	mux.HandleFunc("GET /configz", s.configz)
	if k.EnableSystemLogHandler == nil || *k.EnableSystemLogHandler {
		mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir("/var/log/"))))
	}
	if k.EnableProfilingHandler == nil || *k.EnableProfilingHandler {
		if k.EnableContentionProfiling {
			runtime.SetBlockProfileRate(1)
		}
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	}
	if k.EnableDebugFlagsHandler == nil || *k.EnableDebugFlagsHandler {
		mux.HandleFunc("PUT /debug/flags/v", setVerbosity)
	}
}

// installHealth adds /healthz and a path for each check.
func (s *Server) installHealth(mux *http.ServeMux) {
	checks := append([]Check{{"ping", func(*http.Request) error { return nil }}}, s.cfg.Checks...)
	run := func(w http.ResponseWriter, r *http.Request, checks []Check) {
		_, verbose := r.URL.Query()["verbose"]
		var out strings.Builder
		failed := false
		for _, c := range checks {
			if err := c.Do(r); err != nil {
				failed = true
				klog.FromContext(r.Context()).Info("Health check failed", "check", c.Name, "err", err)
				fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
				continue
			}
			fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case failed:
			http.Error(w, out.String()+"healthz check failed", http.StatusInternalServerError)
		case verbose:
			fmt.Fprint(w, out.String()+"healthz check passed\n")
		default:
			fmt.Fprint(w, "ok")
		}
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { run(w, r, checks) })
	for i := range checks {
		mux.HandleFunc("GET /healthz/"+checks[i].Name, func(w http.ResponseWriter, r *http.Request) { run(w, r, checks[i:i+1]) })
	}
}

func (s *Server) pods(w http.ResponseWriter, r *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range s.cfg.Pods.Pods() {
		list.Items = append(list.Items, *p)
	}
	writeJSON(w, r, &list)
}

// runningPods lists what the runtime runs, whether the API knows of it or not.
func (s *Server) runningPods(w http.ResponseWriter, r *http.Request) {
	containers, err := s.cfg.Runtime.ListContainers(r.Context(), &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	index := map[types.UID]int{}
	for _, c := range containers {
		uid := types.UID(c.Labels[kubelettypes.KubernetesPodUIDLabel])
		if uid == "" {
			continue
		}
		i, ok := index[uid]
		if !ok {
			i = len(list.Items)
			index[uid] = i
			list.Items = append(list.Items, corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid,
				Namespace: c.Labels[kubelettypes.KubernetesPodNamespaceLabel], Name: c.Labels[kubelettypes.KubernetesPodNameLabel]}})
		}
		spec := &list.Items[i].Spec
		spec.Containers = append(spec.Containers, corev1.Container{Name: c.Labels[kubelettypes.KubernetesContainerNameLabel], Image: c.Image.GetImage()})
	}
	writeJSON(w, r, &list)
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	only := r.FormValue("only_cpu_and_memory") == "true"
	summary, err := s.cfg.Stats.Summary(r.Context(), only)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, r, summary)
}

func (s *Server) configz(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, map[string]any{"kubeletconfig": s.cfg.Kubelet})
}

func writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(b); err != nil {
		klog.FromContext(r.Context()).V(4).Info("Client went away", "err", err)
	}
}

func serveMetrics(w http.ResponseWriter, r *http.Request, g metrics.Gatherer) {
	if g == nil {
		g = metrics.NewKubeRegistry()
	}
	metrics.HandlerFor(g, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError}).ServeHTTP(w, r)
}

func sliHandler() http.Handler {
	registry := metrics.NewKubeRegistry()
	slis.Register(registry)
	return metrics.HandlerFor(registry, metrics.HandlerOpts{})
}

func setVerbosity(w http.ResponseWriter, r *http.Request) {
	var level klog.Level
	body := http.MaxBytesReader(w, r.Body, 16)
	var text string
	if _, err := fmt.Fscan(body, &text); err != nil {
		http.Error(w, "the body must be a log level", http.StatusBadRequest)
		return
	}
	if err := level.Set(text); err != nil {
		http.Error(w, fmt.Sprintf("%q is no log level", text), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "successfully set klog.logging.verbosity to %s\n", text)
}

// checkpoint saves a container's state to a file, if the runtime can.
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	name := r.PathValue("container")
	id, ok := s.container(w, pod, name)
	if !ok {
		return
	}
	var timeout int64
	if t := r.FormValue("timeout"); t != "" {
		if _, err := fmt.Sscan(t, &timeout); err != nil || timeout < 0 {
			http.Error(w, "timeout must be a number of seconds", http.StatusBadRequest)
			return
		}
	}
	file := filepath.Join(s.cfg.RootDir, "checkpoints",
		fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", pod.Name, pod.Namespace, name, time.Now().Format(time.RFC3339)))
	err := s.cfg.Runtime.CheckpointContainer(r.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: file, Timeout: timeout})
	switch {
	case isUnimplemented(err):
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed: the container runtime cannot do it: %v", pod.Namespace, pod.Name, name, err), http.StatusNotFound)
	case err != nil:
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed: %v", pod.Namespace, pod.Name, name, err), http.StatusInternalServerError)
	default:
		writeJSON(w, r, map[string][]string{"items": {file}})
	}
}
