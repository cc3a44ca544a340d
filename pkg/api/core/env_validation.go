package core

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (r *report) env(env []corev1.EnvVar, p *field.Path) {
	for i := range env {
		at := p.Index(i)
		if r.required(env[i].Name, at.Child("name")) {
			r.invalid(at.Child("name"), env[i].Name, validation.IsRelaxedEnvVarName(env[i].Name)...)
		}
		r.envSource(&env[i], at.Child("valueFrom"))
	}
}

func (r *report) envSource(v *corev1.EnvVar, p *field.Path) {
	from := v.ValueFrom
	if from == nil {
		return
	}
	n := 0
	if from.FieldRef != nil {
		n++
		r.fieldRef(from.FieldRef, envFields, p.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		n++
		r.resourceFieldRef(from.ResourceFieldRef, false, p.Child("resourceFieldRef"))
	}
	if s := from.ConfigMapKeyRef; s != nil {
		n++
		r.keyRef(s.Name, s.Key, p.Child("configMapKeyRef"))
	}
	if s := from.SecretKeyRef; s != nil {
		n++
		r.keyRef(s.Name, s.Key, p.Child("secretKeyRef"))
	}
	if s := from.FileKeyRef; s != nil {
		n++
		at := p.Child("fileKeyRef")
		if r.required(s.Key, at.Child("key")) {
			r.invalid(at.Child("key"), s.Key, validation.IsRelaxedEnvVarName(s.Key)...)
		}
		if r.required(s.VolumeName, at.Child("volumeName")) {
			r.invalid(at.Child("volumeName"), s.VolumeName, validation.IsDNS1123Label(s.VolumeName)...)
		}
		if r.required(s.Path, at.Child("path")) {
			r.noBacksteps(s.Path, at.Child("path"))
		}
	}
	switch {
	case n == 0:
		r.invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		r.invalid(p, "", "may not be specified when `value` is not empty")
	case n > 1:
		r.invalid(p, "", "may not have more than one field specified at a time")
	}
}

// envFiles says that variables are read only from files in volumes that the pod
// itself can have written.
func (r *report) envFiles(env []corev1.EnvVar, s *podScope, p *field.Path) {
	for i := range env {
		if env[i].ValueFrom == nil || env[i].ValueFrom.FileKeyRef == nil {
			continue
		}
		name, at := env[i].ValueFrom.FileKeyRef.VolumeName, p.Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
		if source, ok := s.volumes[name]; !ok {
			r.add(field.NotFound(at, name))
		} else {
			r.invalidIf(source.EmptyDir == nil, at, name, "referenced volume must be of type emptyDir")
		}
	}
}

func (r *report) envFrom(sources []corev1.EnvFromSource, p *field.Path) {
	named := func(name string, at *field.Path) {
		if r.required(name, at.Child("name")) {
			r.invalid(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false)...)
		}
	}
	for i, s := range sources {
		at := p.Index(i)
		if s.Prefix != "" {
			r.invalid(at.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix)...)
		}
		if s.ConfigMapRef != nil {
			named(s.ConfigMapRef.Name, at.Child("configMapRef"))
		}
		if s.SecretRef != nil {
			named(s.SecretRef.Name, at.Child("secretRef"))
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			r.invalid(p, "", "must specify one of: `configMapRef` or `secretRef`")
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			r.invalid(p, "", "may not have more than one field specified at a time")
		}
	}
}

func (r *report) keyRef(name, key string, p *field.Path) {
	r.invalid(p.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false)...)
	if r.required(key, p.Child("key")) {
		r.invalid(p.Child("key"), key, validation.IsConfigMapKey(key)...)
	}
}

// Fields of a pod that it can be told.
var (
	podFields = sets.New(
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.phase", "status.podIP", "status.podIPs",
	)
	envFields = sets.New(
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	)
	volumeFields = sets.New("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
)

// SplitFieldPath splits the path of a field with a subscript, as in
// metadata.labels['key'], into the two. ok tells whether it has one.
func SplitFieldPath(fieldPath string) (name, subscript string, ok bool) {
	inner, closed := strings.CutSuffix(fieldPath, "']")
	name, subscript, open := strings.Cut(inner, "['")
	if !closed || !open || name == "" {
		return fieldPath, "", false
	}
	return name, subscript, true
}

// fieldRef validates a reference to a field of the pod.
func (r *report) fieldRef(ref *corev1.ObjectFieldSelector, supported sets.Set[string], p *field.Path) {
	at := p.Child("fieldPath")
	if !r.required(ref.APIVersion, p.Child("apiVersion")) || !r.required(ref.FieldPath, at) {
		return
	}
	name, subscript, subscripted := SplitFieldPath(ref.FieldPath)
	name = strings.Replace(name, "spec.host", "spec.nodeName", 1)
	unconvertible := func(reason string) {
		r.invalid(at, ref.FieldPath, "error converting fieldPath: "+reason)
	}
	switch {
	case ref.APIVersion != "v1":
		unconvertible("unsupported pod version: " + ref.APIVersion)
	case subscripted && name == "metadata.annotations":
		r.invalid(p, strings.ToLower(subscript), validation.IsQualifiedName(strings.ToLower(subscript))...)
	case subscripted && name == "metadata.labels":
		r.invalid(p, subscript, validation.IsQualifiedName(subscript)...)
	case subscripted:
		unconvertible("field label does not support subscript: " + ref.FieldPath)
	case !podFields.Has(name):
		unconvertible("field label not supported: " + ref.FieldPath)
	case !supported.Has(name):
		r.add(field.NotSupported(at, ref.FieldPath, sets.List(supported)))
	}
}

var (
	containerFields = []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}
	byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
)

// resourceFieldRef validates a reference to a resource of a container.
func (r *report) resourceFieldRef(ref *corev1.ResourceFieldSelector, inVolume bool, p *field.Path) {
	if inVolume && !r.required(ref.ContainerName, p.Child("containerName")) {
		return
	}
	if !r.required(ref.Resource, p.Child("resource")) {
		return
	}
	_, name, _ := strings.Cut(ref.Resource, ".")
	huge := strings.HasPrefix(ref.Resource, "limits."+corev1.ResourceHugePagesPrefix) || strings.HasPrefix(ref.Resource, "requests."+corev1.ResourceHugePagesPrefix)
	if !huge && !oneOf(r, ref.Resource, p.Child("resource"), containerFields...) {
		return
	}
	kind, divisors, spoken := "memory", byteDivisors, ""
	switch {
	case name == "cpu":
		kind, divisors, spoken = "cpu", []string{"1m", "1"}, "1m and 1"
	case name == "ephemeral-storage":
		kind = "local ephemeral storage"
	case huge:
		kind = "hugepages"
	}
	if spoken == "" {
		spoken = strings.Join(divisors, ", ")
	}
	if ref.Divisor.IsZero() {
		return
	}
	for _, d := range divisors {
		if ref.Divisor.Cmp(resource.MustParse(d)) == 0 {
			return
		}
	}
	r.invalid(p.Child("divisor"), ref.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", spoken, kind))
}

// localPath says that a path must stay below the directory that it starts from.
func (r *report) localPath(s string, p *field.Path) bool {
	return r.required(s, p) && r.relativePath(s, p)
}

// relativePath validates a path below a directory that may be the directory itself.
func (r *report) relativePath(s string, p *field.Path) bool {
	ok := r.invalidIf(path.IsAbs(s), p, s, "must be a relative path")
	return r.noBacksteps(s, p) && ok
}

func (r *report) noBacksteps(s string, p *field.Path) bool {
	return r.invalidIf(slices.Contains(strings.Split(s, "/"), ".."), p, s, "must not contain '..'")
}

// fileName is a local path whose name the kubelet can use: names that start with
// two dots are its own.
func (r *report) fileName(s string, p *field.Path) bool {
	ok := r.localPath(s, p)
	return r.invalidIf(strings.HasPrefix(s, "..") && !strings.HasPrefix(s, "../"), p, s, "must not start with '..'") && ok
}
