package objects

import v1 "k8s.io/api/core/v1"

// references are the Secrets and ConfigMaps that a pod names.
func references(pod *v1.Pod) map[ref]bool {
	refs := map[ref]bool{}
	secret := func(name string) {
		if name != "" {
			refs[ref{secrets, pod.Namespace, name}] = true
		}
	}
	configMap := func(name string) {
		if name != "" {
			refs[ref{configMaps, pod.Namespace, name}] = true
		}
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		secret(s.Name)
	}
	env := func(from []v1.EnvFromSource, env []v1.EnvVar) {
		for _, f := range from {
			if f.SecretRef != nil {
				secret(f.SecretRef.Name)
			}
			if f.ConfigMapRef != nil {
				configMap(f.ConfigMapRef.Name)
			}
		}
		for _, e := range env {
			if e.ValueFrom == nil {
				continue
			}
			if e.ValueFrom.SecretKeyRef != nil {
				secret(e.ValueFrom.SecretKeyRef.Name)
			}
			if e.ValueFrom.ConfigMapKeyRef != nil {
				configMap(e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		env(pod.Spec.InitContainers[i].EnvFrom, pod.Spec.InitContainers[i].Env)
	}
	for i := range pod.Spec.Containers {
		env(pod.Spec.Containers[i].EnvFrom, pod.Spec.Containers[i].Env)
	}
	for i := range pod.Spec.EphemeralContainers {
		env(pod.Spec.EphemeralContainers[i].EnvFrom, pod.Spec.EphemeralContainers[i].Env)
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.Secret != nil:
			secret(v.Secret.SecretName)
		case v.ConfigMap != nil:
			configMap(v.ConfigMap.Name)
		case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
			secret(v.CSI.NodePublishSecretRef.Name)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.Secret != nil {
					secret(s.Secret.Name)
				}
				if s.ConfigMap != nil {
					configMap(s.ConfigMap.Name)
				}
			}
		}
	}
	return refs
}
