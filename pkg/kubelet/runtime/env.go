package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/fieldpath"
	resourcefield "k8s.io/kubectl/pkg/util/resource"
)

// Objects gives the objects that environment variables refer to.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
}

// EnvSources is what a container's environment is made of besides its specification.
type EnvSources struct {
	Objects Objects
	// Services are those of the pod's namespace and `kubernetes` of the default one.
	Services    []*v1.Service
	PodIPs      []string
	HostIPs     []string
	Allocatable v1.ResourceList
	// Volumes are the pod's, for variables that come from files in them.
	Volumes map[string]Volume
}

// An Env is an environment in the order of its definition; a later value replaces an
// earlier one in its place.
type env struct {
	names  []string
	values map[string]string
}

func (e *env) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// EnvVar is one variable.
type EnvVar struct{ Name, Value string }

// Environment resolves a container's environment.
func Environment(ctx context.Context, pod *v1.Pod, c *v1.Container, src EnvSources) ([]EnvVar, error) {
	services := serviceEnv(pod, src.Services)
	e := &env{values: map[string]string{}}
	for i := range c.EnvFrom {
		data, err := envFrom(ctx, pod, &c.EnvFrom[i], src.Objects)
		if err != nil {
			return nil, err
		}
		for _, key := range slices.Sorted(maps.Keys(data)) {
			e.set(c.EnvFrom[i].Prefix+key, data[key])
		}
	}
	lookup := func(name string) (string, bool) {
		if v, ok := e.values[name]; ok {
			return v, true
		}
		v, ok := services[name]
		return v, ok
	}
	for i := range c.Env {
		v := &c.Env[i]
		value := ""
		switch {
		case v.Value != "":
			value = Expand(v.Value, lookup)
		case v.ValueFrom != nil:
			var ok bool
			var err error
			if value, ok, err = envValueFrom(ctx, pod, c, v.ValueFrom, src); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		e.set(v.Name, value)
	}
	// A pod's own variables win over those of services.
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, ok := e.values[name]; !ok {
			e.set(name, services[name])
		}
	}
	out := make([]EnvVar, 0, len(e.names))
	for _, name := range e.names {
		out = append(out, EnvVar{name, e.values[name]})
	}
	return out, nil
}

func envFrom(ctx context.Context, pod *v1.Pod, from *v1.EnvFromSource, objects Objects) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := objects.ConfigMap(ctx, pod.Namespace, from.ConfigMapRef.Name)
		if err != nil {
			return nil, missing(err, from.ConfigMapRef.Optional)
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		secret, err := objects.Secret(ctx, pod.Namespace, from.SecretRef.Name)
		if err != nil {
			return nil, missing(err, from.SecretRef.Optional)
		}
		data := make(map[string]string, len(secret.Data))
		for k, v := range secret.Data {
			data[k] = string(v)
		}
		return data, nil
	}
	return nil, nil
}

// missing forgives an object that is not there if it is optional.
func missing(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// envValueFrom returns false for an optional value that is not there.
func envValueFrom(ctx context.Context, pod *v1.Pod, c *v1.Container, from *v1.EnvVarSource, src EnvSources) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := FieldValue(pod, from.FieldRef.FieldPath, src.PodIPs, src.HostIPs)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := ResourceValue(pod, c, from.ResourceFieldRef, src.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := src.Objects.ConfigMap(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		value, ok := cm.Data[ref.Key]
		return found(value, ok, ref.Optional, "couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := src.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		value, ok := secret.Data[ref.Key]
		return found(string(value), ok, ref.Optional, "couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
	case from.FileKeyRef != nil:
		ref := from.FileKeyRef
		volume, ok := src.Volumes[ref.VolumeName]
		if !ok {
			return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
		}
		value, ok, err := fileValue(volume.HostPath, ref.Path, ref.Key)
		if err != nil {
			return "", false, err
		}
		return found(value, ok, ref.Optional, "environment variable key %q not found in file %q of volume %q", ref.Key, ref.Path, ref.VolumeName)
	}
	return "", true, nil
}

func found(value string, ok bool, optional *bool, format string, args ...any) (string, bool, error) {
	if !ok && (optional == nil || !*optional) {
		return "", false, fmt.Errorf(format, args...)
	}
	return value, ok, nil
}

// fileValue reads a variable from a file of lines `NAME='value'` in a volume, without
// following links out of it.
func fileValue(volume, path, key string) (string, bool, error) {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", false, fmt.Errorf("opening the volume of an environment file: %w", err)
	}
	defer root.Close()
	raw, err := root.ReadFile(filepath.Clean(path))
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading environment file %s: %w", path, err)
	}
	rest := string(raw)
	for rest != "" {
		var line string
		if trimmed := strings.TrimLeft(rest, " \t"); strings.HasPrefix(trimmed, "#") || strings.TrimSpace(firstLine(trimmed)) == "" {
			_, rest, _ = strings.Cut(trimmed, "\n")
			continue
		} else {
			line = trimmed
		}
		name, after, ok := strings.Cut(line, "=")
		if !ok || strings.Contains(name, "\n") {
			return "", false, fmt.Errorf("environment file %s: %q is not NAME='value'", path, firstLine(line))
		}
		value, after, ok := strings.Cut(strings.TrimPrefix(after, "'"), "'")
		if !ok || !strings.HasPrefix(line[len(name)+1:], "'") {
			return "", false, fmt.Errorf("environment file %s: the value of %s is not in single quotes", path, name)
		}
		if name == key {
			return value, true, nil
		}
		_, rest, _ = strings.Cut(after, "\n")
	}
	return "", false, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// FieldValue is the value of a field that a fieldRef may name.
func FieldValue(pod *v1.Pod, path string, podIPs, hostIPs []string) (string, error) {
	first := func(ips []string) string {
		if len(ips) == 0 {
			return ""
		}
		return ips[0]
	}
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(hostIPs), nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	case "status.podIP":
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// ResourceValue is the value of a resource that a resourceFieldRef names. A limit
// that is not set is what the node has.
func ResourceValue(pod *v1.Pod, c *v1.Container, ref *v1.ResourceFieldSelector, allocatable v1.ResourceList) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		if c = FindContainer(pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	c = c.DeepCopy()
	if c.Resources.Limits == nil {
		c.Resources.Limits = v1.ResourceList{}
	}
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage} {
		if q, ok := c.Resources.Limits[name]; !ok || q.IsZero() {
			if all, ok := allocatable[name]; ok {
				c.Resources.Limits[name] = all.DeepCopy()
			}
		}
	}
	if ref.Divisor.IsZero() {
		ref = &v1.ResourceFieldSelector{Resource: ref.Resource, Divisor: resource.MustParse("1")}
	}
	return resourcefield.ExtractContainerResourceValue(ref, c)
}

// FindContainer returns a pod's container of any kind by its name. An ephemeral container is
// returned as the container that it is in all but its type.
func FindContainer(pod *v1.Pod, name string) *v1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return (*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		}
	}
	return nil
}

// serviceEnv is what a container sees of the services that were there when it started.
func serviceEnv(pod *v1.Pod, services []*v1.Service) map[string]string {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	chosen := map[string]*v1.Service{}
	for _, s := range services {
		switch {
		case s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone:
		case s.Namespace == pod.Namespace && links:
			chosen[s.Name] = s
		case s.Namespace == metaNamespaceDefault && s.Name == "kubernetes" && chosen[s.Name] == nil:
			chosen[s.Name] = s
		}
	}
	out := map[string]string{}
	for name, s := range chosen {
		if len(s.Spec.Ports) == 0 {
			continue
		}
		prefix := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		out[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
		out[prefix+"_SERVICE_PORT"] = fmt.Sprint(s.Spec.Ports[0].Port)
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.Name != "" {
				out[prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = fmt.Sprint(p.Port)
			}
			protocol := string(v1.ProtocolTCP)
			if p.Protocol != "" {
				protocol = string(p.Protocol)
			}
			host := s.Spec.ClusterIP
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			url := fmt.Sprintf("%s://%s:%d", strings.ToLower(protocol), host, p.Port)
			if i == 0 {
				out[prefix+"_PORT"] = url
			}
			link := fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Port, strings.ToUpper(protocol))
			out[link] = url
			out[link+"_PROTO"] = strings.ToLower(protocol)
			out[link+"_PORT"] = fmt.Sprint(p.Port)
			out[link+"_ADDR"] = s.Spec.ClusterIP
		}
	}
	return out
}

const metaNamespaceDefault = "default"

// Expand replaces $(NAME) by what lookup knows of NAME, leaves it if lookup does not know it,
// and makes $$ a single $.
func Expand(s string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			out.WriteByte('$')
			s = s[1:]
		case '(':
			end := strings.IndexByte(s, ')')
			if end < 0 {
				out.WriteString("$(")
				s = s[1:]
				continue
			}
			name := s[1:end]
			if v, ok := lookup(name); ok {
				out.WriteString(v)
			} else {
				out.WriteString("$(" + name + ")")
			}
			s = s[end+1:]
		default:
			out.WriteByte('$')
			out.WriteByte(s[0])
			s = s[1:]
		}
	}
}
