package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func podName(i int) string { return fmt.Sprintf("web-7d4b9c6f5-%05d", i) }

// pod is like those of a Deployment.
func pod(i int) *corev1.Pod {
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/check", "--fast"}}}, PeriodSeconds: 5}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        podName(i),
			Labels:      map[string]string{"app": "web", "pod-template-hash": "7d4b9c6f5", "tier": "front"},
			Annotations: map[string]string{"example.com/checksum": "8f14e45fceea167a5a36dedd4bea2543"},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2.3", Args: []string{"--listen=:8080", "--verbose"},
				Env:            []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "two"}},
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources:      corev1.ResourceRequirements{Requests: amounts, Limits: amounts},
				ReadinessProbe: probe, LivenessProbe: probe,
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes:                       []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			NodeSelector:                  map[string]string{"disk": "ssd"},
			TerminationGracePeriodSeconds: ptr.To[int64](30),
		},
	}
}

// definition is like those of operators: some dozens of fields with descriptions, and status.
func definition(i int) (*unstructured.Unstructured, error) {
	text := func(description string) map[string]any {
		return map[string]any{"type": "string", "description": description, "maxLength": int64(253)}
	}
	fields := map[string]any{}
	for f := range 40 {
		fields[fmt.Sprint("field", f)] = map[string]any{"type": "object", "description": "One of many settings of a thing, which has parts of its own.",
			"properties": map[string]any{"name": text("The name of the part."), "value": text("What the part is set to."), "from": text("Where the value comes from.")}}
	}
	names := map[string]any{"plural": fmt.Sprint("things", i), "singular": fmt.Sprint("thing", i), "kind": fmt.Sprint("Thing", i), "listKind": fmt.Sprintf("Thing%dList", i)}
	crd := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": fmt.Sprintf("things%d.bench.example.com", i)},
		"spec": map[string]any{"group": "bench.example.com", "scope": "Namespaced", "names": names, "versions": []any{map[string]any{
			"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
				"spec": map[string]any{"type": "object", "properties": fields}, "status": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
			}}},
		}}},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&unstructured.Unstructured{Object: crd})
	return &unstructured.Unstructured{Object: content}, err
}
