// Package imagelocality prefers nodes that have the pod's images already.
package imagelocality

import (
	"context"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "ImageLocality"

// Below 23 MiB an image is pulled at once; a container counts for 1000 MiB at most.
const (
	minThreshold          = 23 << 20
	maxContainerThreshold = 1000 << 20
)

// Plugin implements score.
type Plugin struct{ handle fwk.Handle }

var (
	_ fwk.ScorePlugin = &Plugin{}
	_ fwk.SignPlugin  = &Plugin{}
)

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{handle: h}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// Score weighs the bytes of the pod's images on the node.
func (p *Plugin) Score(_ context.Context, _ fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	nodes, err := p.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	images := images(pod)
	var sum int64
	for _, image := range images {
		if state, ok := node.GetImageStates()[canonical(image)]; ok {
			// An image on few nodes counts less, lest all its pods pile up there.
			sum += int64(float64(state.Size) * float64(state.NumNodes) / float64(len(nodes)))
		}
	}
	return score(sum, len(images)), nil
}

func score(sum int64, images int) int64 {
	highest := maxContainerThreshold * int64(images)
	sum = min(max(sum, minThreshold), highest)
	return fwk.MaxNodeScore * (sum - minThreshold) / (highest - minThreshold)
}

func images(pod *v1.Pod) []string {
	var out []string
	for i := range pod.Spec.InitContainers {
		out = append(out, pod.Spec.InitContainers[i].Image)
	}
	for i := range pod.Spec.Containers {
		out = append(out, pod.Spec.Containers[i].Image)
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			out = append(out, image.Reference)
		}
	}
	return out
}

// canonical adds the tag that an image without one means.
func canonical(image string) string {
	if strings.LastIndex(image, ":") <= strings.LastIndex(image, "/") {
		return image + ":latest"
	}
	return image
}

// ScoreExtensions returns nil: the scores are in range.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return nil }

// EventsToRegister returns nothing: the plugin never rejects a pod.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return nil, nil
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (p *Plugin) ByNode() {}

// SignPod tells pods apart by their images.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	names := images(pod)
	for i := range names {
		names[i] = canonical(names[i])
	}
	slices.Sort(names)
	return []fwk.SignFragment{{Key: fwk.ImageNamesSignerName, Value: names}}, nil
}
