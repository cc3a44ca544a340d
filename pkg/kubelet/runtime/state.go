package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// State is what the runtime has of one pod, newest first.
type State struct {
	UID        types.UID
	Namespace  string
	Name       string
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox is one of a pod's sandboxes.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	CreatedAt time.Time
	// IPs are empty for a pod in the host's network.
	IPs            []string
	HostNetwork    bool
	RuntimeHandler string
}

// ContainerState is a container's place in its life.
type ContainerState string

// The states of a container.
const (
	Created ContainerState = "created"
	Running ContainerState = "running"
	Exited  ContainerState = "exited"
	Unknown ContainerState = "unknown"
)

// Container is one incarnation of one of a pod's containers.
type Container struct {
	ID           string
	Name         string
	SandboxID    string
	RestartCount int
	Hash         uint64
	State        ContainerState
	CreatedAt    time.Time
	StartedAt    time.Time
	FinishedAt   time.Time
	ExitCode     int
	// Reason and Message are the runtime's; Message gets the termination message, too.
	Reason  string
	Message string
	// Image is the image as the pod names it, ImageID the one that runs.
	Image   string
	ImageID string
	LogPath string
	// PreStop and Grace were recorded when the container was created; they serve
	// when its pod is no longer known.
	PreStop   *v1.LifecycleHandler
	Ports     []v1.ContainerPort
	Grace     *int64
	Resources *runtimeapi.LinuxContainerResources
	User      *runtimeapi.LinuxContainerUser
	Mounts    []*runtimeapi.Mount

	messagePath   string
	messagePolicy v1.TerminationMessagePolicy
}

// Newest returns the newest incarnation of a container.
func (s *State) Newest(name string) *Container {
	if s == nil {
		return nil
	}
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	return nil
}

// Previous returns the incarnation before the newest one.
func (s *State) Previous(name string) *Container {
	newest := s.Newest(name)
	if newest == nil {
		return nil
	}
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Name == name && c.ID != newest.ID {
			return c
		}
	}
	return nil
}

// ReadySandbox returns the newest sandbox if it is ready.
func (s *State) ReadySandbox() *Sandbox {
	if s == nil || len(s.Sandboxes) == 0 || !s.Sandboxes[0].Ready {
		return nil
	}
	return &s.Sandboxes[0]
}

// AnyRunning tells whether a container or a sandbox still runs.
func (s *State) AnyRunning() bool {
	return s != nil && (slices.ContainsFunc(s.Sandboxes, func(b Sandbox) bool { return b.Ready }) ||
		slices.ContainsFunc(s.Containers, func(c Container) bool { return c.State == Running || c.State == Created }))
}

// An Observer reads pods' states from CRI. A container's status is asked for only when
// the cheap list says that its state has changed.
type Observer struct {
	cri cri.RuntimeService

	mu         sync.Mutex
	containers map[string]Container // by id
	sandboxes  map[string]Sandbox   // by id
}

// NewObserver returns an Observer with nothing seen yet.
func NewObserver(service cri.RuntimeService) *Observer {
	return &Observer{cri: service, containers: map[string]Container{}, sandboxes: map[string]Sandbox{}}
}

// Pod observes one pod.
func (o *Observer) Pod(ctx context.Context, uid types.UID) (*State, error) {
	states, err := o.observe(ctx, map[string]string{kubelettypes.KubernetesPodUIDLabel: string(uid)})
	if err != nil {
		return nil, err
	}
	if s := states[uid]; s != nil {
		return s, nil
	}
	return &State{UID: uid}, nil
}

// All observes every pod and forgets what the runtime no longer has.
func (o *Observer) All(ctx context.Context) (map[types.UID]*State, error) {
	states, err := o.observe(ctx, nil)
	if err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, s := range states {
		for _, b := range s.Sandboxes {
			live[b.ID] = true
		}
		for _, c := range s.Containers {
			live[c.ID] = true
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, c := range o.containers {
		// What another call found meanwhile is younger than this list.
		if !live[id] && time.Since(c.CreatedAt) > time.Minute {
			delete(o.containers, id)
		}
	}
	for id, b := range o.sandboxes {
		if !live[id] && time.Since(b.CreatedAt) > time.Minute {
			delete(o.sandboxes, id)
		}
	}
	return states, nil
}

// Refresh makes the next observation ask anew for a container's status, whose
// resources have changed.
func (o *Observer) Refresh(containerID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.containers, containerID)
}

func (o *Observer) observe(ctx context.Context, labels map[string]string) (map[types.UID]*State, error) {
	// Sandboxes first: a container whose sandbox appeared in between is left to the next look.
	sandboxes, err := o.cri.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: labels})
	if err != nil {
		return nil, fmt.Errorf("listing pod sandboxes: %w", err)
	}
	containers, err := o.cri.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: labels})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	states := map[types.UID]*State{}
	state := func(l map[string]string) *State {
		uid := types.UID(l[kubelettypes.KubernetesPodUIDLabel])
		if uid == "" || l[kubelettypes.KubernetesPodNameLabel] == "" {
			return nil // not made by a kubelet
		}
		if states[uid] == nil {
			states[uid] = &State{UID: uid, Namespace: l[kubelettypes.KubernetesPodNamespaceLabel], Name: l[kubelettypes.KubernetesPodNameLabel]}
		}
		return states[uid]
	}
	for _, b := range sandboxes {
		s := state(b.Labels)
		if s == nil {
			continue
		}
		sandbox, err := o.sandbox(ctx, b)
		if err != nil {
			return nil, err
		}
		if sandbox != nil {
			s.Sandboxes = append(s.Sandboxes, *sandbox)
		}
	}
	for _, c := range containers {
		s := state(c.Labels)
		if s == nil {
			continue
		}
		container, err := o.container(ctx, c)
		if err != nil {
			return nil, err
		}
		if container != nil {
			s.Containers = append(s.Containers, *container)
		}
	}
	for _, s := range states {
		slices.SortFunc(s.Sandboxes, func(a, b Sandbox) int { return b.CreatedAt.Compare(a.CreatedAt) })
		slices.SortFunc(s.Containers, func(a, b Container) int { return b.CreatedAt.Compare(a.CreatedAt) })
	}
	return states, nil
}

func (o *Observer) sandbox(ctx context.Context, listed *runtimeapi.PodSandbox) (*Sandbox, error) {
	ready := listed.State == runtimeapi.PodSandboxState_SANDBOX_READY
	o.mu.Lock()
	known, ok := o.sandboxes[listed.Id]
	o.mu.Unlock()
	if ok && known.Ready == ready {
		return &known, nil
	}
	resp, err := o.cri.PodSandboxStatus(ctx, listed.Id, false)
	if IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the status of sandbox %s: %w", listed.Id, err)
	}
	st := resp.GetStatus()
	b := Sandbox{
		ID: listed.Id, Attempt: listed.GetMetadata().GetAttempt(), RuntimeHandler: listed.RuntimeHandler,
		Ready:       st.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt:   time.Unix(0, listed.CreatedAt),
		HostNetwork: st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
	}
	if net := st.GetNetwork(); net != nil && !b.HostNetwork {
		if net.Ip != "" {
			b.IPs = append(b.IPs, net.Ip)
		}
		for _, more := range net.AdditionalIps {
			b.IPs = append(b.IPs, more.Ip)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sandboxes[b.ID] = b
	return &b, nil
}

// Forget has the status of a container asked for anew: it was changed while it runs.
func (o *Observer) Forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.containers, id)
}

func (o *Observer) container(ctx context.Context, listed *runtimeapi.Container) (*Container, error) {
	state := containerState(listed.State)
	o.mu.Lock()
	known, ok := o.containers[listed.Id]
	o.mu.Unlock()
	if ok && known.State == state {
		return &known, nil
	}
	resp, err := o.cri.ContainerStatus(ctx, listed.Id, false)
	if IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the status of container %s: %w", listed.Id, err)
	}
	c := newContainer(listed, resp.GetStatus())
	if c.State == Exited {
		c.Message = terminationMessage(&c)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.containers[c.ID] = c
	return &c, nil
}

func newContainer(listed *runtimeapi.Container, st *runtimeapi.ContainerStatus) Container {
	a := st.GetAnnotations()
	c := Container{
		ID: listed.Id, Name: listed.Labels[kubelettypes.KubernetesContainerNameLabel], SandboxID: listed.PodSandboxId,
		State: containerState(st.State), CreatedAt: time.Unix(0, st.CreatedAt),
		ExitCode: int(st.ExitCode), Reason: st.Reason, Message: st.Message,
		Image: st.GetImage().GetImage(), ImageID: st.ImageRef, LogPath: st.LogPath,
		Resources: st.GetResources().GetLinux(), User: st.GetUser().GetLinux(), Mounts: st.Mounts,
		messagePath: a[annotationMessagePath], messagePolicy: v1.TerminationMessagePolicy(a[annotationMessagePolicy]),
	}
	if u := st.GetImage().GetUserSpecifiedImage(); u != "" {
		c.Image = u
	}
	if c.ImageID == "" {
		c.ImageID = st.ImageId
	}
	if st.StartedAt > 0 {
		c.StartedAt = time.Unix(0, st.StartedAt)
	}
	if st.FinishedAt > 0 {
		c.FinishedAt = time.Unix(0, st.FinishedAt)
	}
	// Annotations that do not parse were not written by a kubelet; their zero values are safe.
	c.RestartCount, _ = strconv.Atoi(a[annotationRestartCount])
	c.Hash, _ = strconv.ParseUint(a[annotationHash], 16, 64)
	for _, key := range []string{annotationTerminationGrace, annotationDeletionGrace} {
		if g, err := strconv.ParseInt(a[key], 10, 64); err == nil {
			c.Grace = &g
		}
	}
	if raw := a[annotationPreStop]; raw != "" {
		hook := &v1.LifecycleHandler{}
		if json.Unmarshal([]byte(raw), hook) == nil {
			c.PreStop = hook
		}
	}
	if raw := a[annotationPorts]; raw != "" {
		_ = json.Unmarshal([]byte(raw), &c.Ports)
	}
	return c
}

func containerState(s runtimeapi.ContainerState) ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	default:
		return Unknown
	}
}

// FullID is a container's id as the API shows it.
func FullID(runtimeName, id string) string {
	if id == "" {
		return ""
	}
	return runtimeName + "://" + id
}

// TrimID undoes FullID.
func TrimID(full string) string {
	if _, id, ok := strings.Cut(full, "://"); ok {
		return id
	}
	return full
}
