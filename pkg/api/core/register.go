package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// AddDefaults registers the defaulting of every kind of core/v1 that has
// defaults, and of its list.
func AddDefaults(s *runtime.Scheme) error {
	kind(s, SetDefaultsPod, func(l *corev1.PodList) []corev1.Pod { return l.Items })
	kind(s, SetDefaultsPodTemplate, func(l *corev1.PodTemplateList) []corev1.PodTemplate { return l.Items })
	kind(s, SetDefaultsReplicationController, func(l *corev1.ReplicationControllerList) []corev1.ReplicationController { return l.Items })
	kind(s, SetDefaultsService, func(l *corev1.ServiceList) []corev1.Service { return l.Items })
	kind(s, SetDefaultsEndpoints, func(l *corev1.EndpointsList) []corev1.Endpoints { return l.Items })
	kind(s, SetDefaultsNode, func(l *corev1.NodeList) []corev1.Node { return l.Items })
	kind(s, SetDefaultsNamespace, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items })
	kind(s, SetDefaultsSecret, func(l *corev1.SecretList) []corev1.Secret { return l.Items })
	kind(s, SetDefaultsLimitRange, func(l *corev1.LimitRangeList) []corev1.LimitRange { return l.Items })
	kind(s, SetDefaultsResourceQuota, func(l *corev1.ResourceQuotaList) []corev1.ResourceQuota { return l.Items })
	kind(s, SetDefaultsPersistentVolume, func(l *corev1.PersistentVolumeList) []corev1.PersistentVolume { return l.Items })
	kind(s, SetDefaultsPersistentVolumeClaim, func(l *corev1.PersistentVolumeClaimList) []corev1.PersistentVolumeClaim { return l.Items })

	s.AddTypeDefaultingFunc(&corev1.PodExecOptions{}, func(o any) {
		options := o.(*corev1.PodExecOptions)
		options.Stdout, options.Stderr = true, true
	})
	s.AddTypeDefaultingFunc(&corev1.PodAttachOptions{}, func(o any) {
		options := o.(*corev1.PodAttachOptions)
		options.Stdout, options.Stderr = true, true
	})
	return nil
}

// kind registers set for T and, item by item, for its list L.
func kind[T, L any](s *runtime.Scheme, set func(*T), items func(*L) []T) {
	s.AddTypeDefaultingFunc(any(new(T)).(runtime.Object), func(o any) { set(o.(*T)) })
	s.AddTypeDefaultingFunc(any(new(L)).(runtime.Object), func(o any) {
		list := items(o.(*L))
		for i := range list {
			set(&list[i])
		}
	})
}

// fieldLabels are the field selectors that each kind takes beside metadata.name
// and metadata.namespace, which every kind has.
var fieldLabels = map[string][]string{
	"Pod": {
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
	},
	"Node":                  {"spec.unschedulable"},
	"ReplicationController": {"status.replicas"},
	"Event": {
		"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type",
	},
	"Namespace": {"status.phase"},
	"Secret":    {"type"},
	"Service":   {"spec.clusterIP", "spec.type"},
}

// formerLabels are names that field selectors had before, and what they mean now.
var formerLabels = map[string]map[string]string{
	"Pod": {"spec.host": "spec.nodeName"},
}

// AddFieldLabels registers which field selectors each kind of core/v1 takes. A
// kind that is not listed takes metadata.name and metadata.namespace, as the
// scheme does on its own.
func AddFieldLabels(s *runtime.Scheme) error {
	for name, labels := range fieldLabels {
		known := map[string]string{"metadata.name": "metadata.name"}
		if name != "Node" && name != "Namespace" {
			known["metadata.namespace"] = "metadata.namespace"
		}
		for _, l := range labels {
			known[l] = l
		}
		for former, now := range formerLabels[name] {
			known[former] = now
		}
		convert := func(label, value string) (string, string, error) {
			if now, ok := known[label]; ok {
				return now, value, nil
			}
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}
		if err := s.AddFieldLabelConversionFunc(corev1.SchemeGroupVersion.WithKind(name), convert); err != nil {
			return fmt.Errorf("field labels of %s: %w", name, err)
		}
	}
	return nil
}
