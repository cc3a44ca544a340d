package pods

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Volumes makes a pod's volumes ready on the node. All methods are safe for
// concurrent use; calls for one pod are never concurrent.
type Volumes interface {
	// Mount returns once every volume that a container of the pod mounts (or maps as a
	// device) is there, or with the first reason why it cannot be. It is called again for
	// a running pod whenever an object that the pod refers to has changed or Refresh
	// has come, and then only rewrites what differs. It does not retry: the caller does.
	Mount(ctx context.Context, pod *v1.Pod) (Mounted, error)
	// Unmount undoes Mount and removes the pod's directory below the kubelet's root,
	// whichever kubelet made it. It is idempotent and leaves other pods' data alone.
	Unmount(ctx context.Context, uid types.UID) error
	// SubPath makes subPath below a mounted volume safe to bind into a container, so that
	// no symbolic link leads out of the volume, and returns the host path to bind.
	// Missing directories are created. index is the mount's place in the container.
	SubPath(ctx context.Context, pod *v1.Pod, container *v1.Container, index int, volume runtime.Volume, subPath string) (string, error)
	// UIDs lists the pods that have a directory below the kubelet's root.
	UIDs() ([]types.UID, error)
}

// Mounted is the result of a Mount.
type Mounted struct {
	// Volumes are the pod's volumes by name.
	Volumes map[string]runtime.Volume
	// Refresh is when content grows stale without any object changing (a token is
	// due for renewal); zero if never.
	Refresh time.Time
}

// Cgroups owns the cgroups above the containers'.
type Cgroups interface {
	// Ensure creates the pod's cgroup with its limits, or brings the limits of an existing
	// one up to date, and returns its name as CRI's cgroup parent (empty if
	// cgroups per QoS class are off).
	Ensure(ctx context.Context, pod *v1.Pod) (parent string, err error)
	// Grow raises the limits of the pod's cgroup, if there is one, that are lower than the pod's, and lowers none.
	Grow(ctx context.Context, pod *v1.Pod) error
	// Shrinkable tells why the pod's memory limit cannot be lowered to the pod's, if it is to be.
	Shrinkable(ctx context.Context, pod *v1.Pod) error
	// Actual is what the pod's cgroup enforces, as far as it does.
	Actual(pod *v1.Pod) (v1.ResourceRequirements, error)
	// Remove ends the processes left in the pod's cgroup and removes it. Idempotent.
	Remove(ctx context.Context, uid types.UID) error
	// UIDs lists the pods that have a cgroup.
	UIDs() ([]types.UID, error)
}

// Devices gives containers what there is on the machine besides CPU and memory.
type Devices interface {
	// Prepare makes ready what the pod's containers will be given. It is idempotent, and does not retry.
	Prepare(ctx context.Context, pod *v1.Pod) error
	// Of returns what a container of a prepared pod is given. It is asked before each start.
	Of(ctx context.Context, pod *v1.Pod, container *v1.Container) (runtime.Devices, error)
	// Release takes back what the pod's containers had. Idempotent.
	Release(ctx context.Context, uid types.UID) error
	// UIDs lists the pods that have been given something.
	UIDs() ([]types.UID, error)
}

// Images makes images present on the node. The events Pulling, Pulled, Failed and
// BackOff are its own to send.
type Images interface {
	// Ensure applies the pull policy and returns the reference by which CRI
	// knows the image. An error that has `Reason() string` says what the container is
	// waiting for (ErrImagePull, ImagePullBackOff, ErrImageNeverPull, InvalidImageName, …)
	// and one that has `RetryAt() time.Time` when asking again may help.
	Ensure(ctx context.Context, request ImageRequest) (ref string, err error)
	// Forget drops what is remembered of a pod that is gone.
	Forget(uid types.UID)
}

// ImageRequest asks for the image of a container or of an image volume.
type ImageRequest struct {
	Pod *v1.Pod
	// Object is the pod, or the container within it, that events refer to.
	Object *v1.ObjectReference
	Image  string
	Policy v1.PullPolicy
	// Sandbox is the sandbox that the image is for.
	Sandbox *runtimeapi.PodSandboxConfig
}

// Reasoned is an error that says what a container is waiting for.
type Reasoned interface {
	error
	Reason() string
}
