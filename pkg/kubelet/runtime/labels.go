package runtime

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelettypes "k8s.io/kubelet/pkg/types"
	"k8s.io/utils/dump"
)

// Annotations on containers, as the original writes them.
// ContainerLogsDir has a link to each container's log, for log collectors.
const ContainerLogsDir = "/var/log/containers"

const (
	annotationHash              = "io.kubernetes.container.hash"
	annotationRestartCount      = "io.kubernetes.container.restartCount"
	annotationMessagePath       = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy     = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop           = "io.kubernetes.container.preStopHandler"
	annotationPorts             = "io.kubernetes.container.ports"
	annotationDeletionGrace     = "io.kubernetes.pod.deletionGracePeriod"
	annotationTerminationGrace  = "io.kubernetes.pod.terminationGracePeriod"
	maxContainerLogSymlinkParts = 255
)

// Hash identifies the parts of a container's specification whose change restarts it:
// its name and its image.
func Hash(c *v1.Container) uint64 {
	// Marshalling a map of strings cannot fail.
	identity, _ := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(identity))
	return uint64(h.Sum32())
}

func sandboxLabels(pod *v1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[kubelettypes.KubernetesPodNameLabel] = pod.Name
	labels[kubelettypes.KubernetesPodNamespaceLabel] = pod.Namespace
	labels[kubelettypes.KubernetesPodUIDLabel] = string(pod.UID)
	return labels
}

func containerLabels(pod *v1.Pod, c *v1.Container) map[string]string {
	return map[string]string{
		kubelettypes.KubernetesPodNameLabel:       pod.Name,
		kubelettypes.KubernetesPodNamespaceLabel:  pod.Namespace,
		kubelettypes.KubernetesPodUIDLabel:        string(pod.UID),
		kubelettypes.KubernetesContainerNameLabel: c.Name,
	}
}

func containerAnnotations(pod *v1.Pod, c *v1.Container, restartCount int) (map[string]string, error) {
	a := map[string]string{
		annotationHash:          strconv.FormatUint(Hash(c), 16),
		annotationRestartCount:  strconv.Itoa(restartCount),
		annotationMessagePath:   c.TerminationMessagePath,
		annotationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		a[annotationDeletionGrace] = strconv.FormatInt(*g, 10)
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		a[annotationTerminationGrace] = strconv.FormatInt(*g, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		raw, err := json.Marshal(c.Lifecycle.PreStop)
		if err != nil {
			return nil, fmt.Errorf("recording the preStop hook: %w", err)
		}
		a[annotationPreStop] = string(raw)
	}
	if len(c.Ports) > 0 {
		raw, err := json.Marshal(c.Ports)
		if err != nil {
			return nil, fmt.Errorf("recording the ports: %w", err)
		}
		a[annotationPorts] = string(raw)
	}
	return a, nil
}

// PodLogDir is the directory of a pod's logs below the directory of all pods' logs.
func PodLogDir(root, namespace, name string, uid types.UID) string {
	return filepath.Join(root, namespace+"_"+name+"_"+string(uid))
}

// containerLogPath is the path of a container's log below its pod's log directory.
func containerLogPath(container string, restartCount int) string {
	return filepath.Join(container, strconv.Itoa(restartCount)+".log")
}

// logLink is the name in ContainerLogsDir by which log collectors find a
// container's log. File systems allow 255 bytes, so the parts before the id yield.
func logLink(pod *v1.Pod, container, id string) string {
	const suffix = ".log"
	prefix := fmt.Sprintf("%s_%s_%s", pod.Name, pod.Namespace, container)
	if most := maxContainerLogSymlinkParts - len(id) - len(suffix) - 1; len(prefix) > most {
		prefix = prefix[:most]
	}
	return prefix + "-" + id + suffix
}

// Annotations on static pods and their mirrors. A mirror repeats the hash of the static pod that it
// shows, so that a mirror of another specification is recognized.
const (
	AnnotationConfigHash   = "kubernetes.io/config.hash"
	AnnotationConfigMirror = v1.MirrorPodAnnotationKey
	AnnotationConfigSource = "kubernetes.io/config.source"
	AnnotationConfigSeen   = "kubernetes.io/config.seen"
)

// IsStatic tells whether the pod comes from another source than the API.
func IsStatic(pod *v1.Pod) bool {
	source, ok := pod.Annotations[AnnotationConfigSource]
	return ok && source != "api"
}

// FromClaim tells whether a pod has an extended resource from its ResourceClaim for these, so that the node need have none.
func FromClaim(pod *v1.Pod, name v1.ResourceName) bool {
	s := pod.Status.ExtendedResourceClaimStatus
	return s != nil && slices.ContainsFunc(s.RequestMappings, func(r v1.ContainerExtendedResourceRequest) bool { return r.ResourceName == string(name) })
}

// IsMirror tells whether the pod only shows a static pod in the API.
func IsMirror(pod *v1.Pod) bool {
	_, ok := pod.Annotations[AnnotationConfigMirror]
	return ok
}

// IsCritical tells whether the node keeps the pod when others have to go.
func IsCritical(pod *v1.Pod) bool {
	return IsStatic(pod) || IsMirror(pod) || pod.Spec.Priority != nil && *pod.Spec.Priority >= 2_000_000_000
}
