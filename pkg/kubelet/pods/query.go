package pods

import (
	"fmt"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// apiPod is the pod's object in the API: of a static pod, its mirror; nil if there is none.
func (m *Manager) apiPod(pod *v1.Pod) *v1.Pod {
	if !runtime.IsStatic(pod) {
		if pod.ResourceVersion == "" {
			return nil // an orphan
		}
		return pod
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mirrors[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
}

// Pods returns the desired pods with their latest statuses.
func (m *Manager) Pods() []*v1.Pod {
	var out []*v1.Pod
	for _, w := range m.all() {
		if pod := w.desired(); pod != nil {
			out = append(out, pod)
		}
	}
	return out
}

// Pod returns a desired pod with its latest status.
func (m *Manager) Pod(uid types.UID) (*v1.Pod, bool) {
	m.mu.Lock()
	w := m.workers[uid]
	if w == nil {
		// Clients know a static pod by its mirror.
		for name, mirror := range m.mirrors {
			if mirror.UID == uid {
				m.mu.Unlock()
				return m.PodByName(name.Namespace, name.Name)
			}
		}
	}
	m.mu.Unlock()
	if w == nil {
		return nil, false
	}
	pod := w.desired()
	return pod, pod != nil
}

// PodByName returns a desired pod with its latest status. Of several pods of a name, one that has not ended.
func (m *Manager) PodByName(namespace, name string) (*v1.Pod, bool) {
	var found *v1.Pod
	for _, w := range m.all() {
		pod := w.desired()
		if pod == nil || pod.Namespace != namespace || pod.Name != name {
			continue
		}
		if found == nil || pod.DeletionTimestamp == nil {
			found = pod
		}
	}
	return found, found != nil
}

func (w *worker) desired() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed && w.pod.ResourceVersion == "" && !runtime.IsStatic(w.pod) {
		return nil
	}
	return withStatus(w.m.allocated(w.pod), w.status.DeepCopy())
}

func (w *worker) ended() *End {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

func (m *Manager) observed(uid types.UID) *runtime.State {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// ContainerID returns CRI's id of a pod's newest container of a name.
func (m *Manager) ContainerID(uid types.UID, container string) (string, bool) {
	c := m.observed(uid).Newest(container)
	if c == nil {
		return "", false
	}
	return c.ID, true
}

// SandboxID returns CRI's id of a pod's newest sandbox.
func (m *Manager) SandboxID(uid types.UID) (string, bool) {
	state := m.observed(uid)
	if state == nil || len(state.Sandboxes) == 0 {
		return "", false
	}
	return state.Sandboxes[0].ID, true
}

// ContainerLog returns the path of a container's log, or of the one before, and the container's id.
func (m *Manager) ContainerLog(uid types.UID, container string, previous bool) (path, id string, err error) {
	state := m.observed(uid)
	c := state.Newest(container)
	if c != nil && c.State == runtime.Created {
		if last := state.Previous(container); last != nil {
			c = last
		}
	}
	// A container that has ended and waits to be started anew is itself the previous one.
	if previous && c != nil && (c.State != runtime.Exited || !m.restarting(uid, container)) {
		if c = state.Previous(container); c == nil {
			return "", "", fmt.Errorf("previous terminated container %q in pod %q not found", container, m.podName(uid))
		}
	}
	if c == nil {
		return "", "", fmt.Errorf("container %q in pod %q is waiting to start: %s", container, m.podName(uid), m.waiting(uid, container))
	}
	if c.LogPath != "" {
		return c.LogPath, c.ID, nil
	}
	return filepath.Join(runtime.PodLogDir(m.Runtime.LogDir, state.Namespace, state.Name, uid), container, strconv.Itoa(c.RestartCount)+".log"), c.ID, nil
}

func (m *Manager) podName(uid types.UID) string {
	if pod, ok := m.Pod(uid); ok {
		return pod.Name
	}
	return string(uid)
}

// restarting reports whether a container has ended and is to be started again.
func (m *Manager) restarting(uid types.UID, container string) bool {
	pod, ok := m.Pod(uid)
	if !ok {
		return false
	}
	st := containerStatus(&pod.Status, container)
	return st != nil && st.State.Waiting != nil
}

// waiting says what a container without a log is waiting for.
func (m *Manager) waiting(uid types.UID, container string) string {
	pod, ok := m.Pod(uid)
	if !ok {
		return "pod not found"
	}
	st := containerStatus(&pod.Status, container)
	if st == nil || st.State.Waiting == nil {
		return "ContainerCreating"
	}
	switch r := st.State.Waiting.Reason; r {
	case "ErrImagePull":
		return "image can't be pulled"
	case "ImagePullBackOff":
		return "trying and failing to pull image"
	default:
		return r
	}
}
