package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// WarningsPod are what the author of a pod should know. An update, which can
// change little, is not warned of what was there before.
func WarningsPod(pod, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var w warnings
	if messages := validation.IsDNS1123Label(pod.Name); len(messages) > 0 {
		w.add("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", messages)
	}
	w.pod(&pod.ObjectMeta, &pod.Spec, nil)
	return w
}

// WarningsPodTemplateSpec are what the author of a template for pods should know,
// whatever was there before.
func WarningsPodTemplateSpec(template, _ *corev1.PodTemplateSpec, p *field.Path) []string {
	if template == nil {
		return nil
	}
	var w warnings
	w.pod(&template.ObjectMeta, &template.Spec, p)
	return w
}

func (w *warnings) pod(meta *metav1.ObjectMeta, spec *corev1.PodSpec, p *field.Path) {
	child := func(name string) *field.Path {
		if p == nil {
			return field.NewPath(name)
		}
		return p.Child(name)
	}
	w.podAnnotations(meta.Annotations, spec, child("metadata"), p != nil)
	p = child("spec")
	w.scheduling(spec, p)
	for i := range spec.Volumes {
		w.volume(&spec.Volumes[i], p.Child("volumes").Index(i))
	}

	ips := sets.New[string]()
	for i, alias := range spec.HostAliases {
		at := p.Child("hostAliases").Index(i).Child("ip")
		if ips.Has(alias.IP) {
			w.add("%s: duplicate ip %q", at, alias.IP)
		}
		ips.Insert(alias.IP)
		*w = append(*w, validation.GetWarningsForIP(at, alias.IP)...)
	}
	if spec.DNSConfig != nil {
		for i, ip := range spec.DNSConfig.Nameservers {
			*w = append(*w, validation.GetWarningsForIP(p.Child("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	secrets := sets.New[string]()
	for i, s := range spec.ImagePullSecrets {
		at := p.Child("imagePullSecrets").Index(i).Child("name")
		if s.Name == "" {
			w.add("%s: invalid empty name %q", at, s.Name)
		}
		if secrets.Has(s.Name) {
			w.add("%s: duplicate name %q", at, s.Name)
		}
		secrets.Insert(s.Name)
	}
	if g := spec.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.add("%s: must be >= 0; negative values are invalid and will be treated as 1", p.Child("terminationGracePeriodSeconds"))
	}

	w.fractions(spec.Overhead, p.Child("overhead"), corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		w.fractions(c.Resources.Requests, at.Child("resources", "requests"), corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
		w.fractions(c.Resources.Limits, at.Child("resources", "limits"), corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
		names := sets.New[string]()
		for i, e := range c.Env {
			if names.Has(e.Name) && !extends(e) {
				w.add("%s: hides previous definition of %q, which may be dropped when using apply", at.Child("env").Index(i), e.Name)
			}
			names.Insert(e.Name)
		}
	})
	w.ports(spec, p)
}

// extends says whether a variable adds to the one that it hides.
func extends(e corev1.EnvVar) bool {
	reference := "$(" + e.Name + ")"
	return strings.Contains(e.Value, reference) && e.Value != reference
}

func (w *warnings) podAnnotations(annotations map[string]string, spec *corev1.PodSpec, p *field.Path, template bool) {
	w.annotation(annotations, "scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`, p)
	w.annotation(annotations, "seccomp.security.alpha.kubernetes.io/pod", `non-functional in v1.27+; use the "seccompProfile" field instead`, p)
	w.annotation(annotations, "security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`, p)
	w.annotation(annotations, "security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`, p)
	if spec.SecurityContext != nil && spec.SecurityContext.AppArmorProfile != nil && template {
		return
	}
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		w.annotation(annotations, "container.seccomp.security.alpha.kubernetes.io/"+c.Name, `non-functional in v1.27+; use the "seccompProfile" field instead`, p)
		if !template || c.SecurityContext == nil || c.SecurityContext.AppArmorProfile == nil {
			w.annotation(annotations, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name, `deprecated since v1.30; use the "appArmorProfile" field instead`, p)
		}
	})
}

func (w *warnings) scheduling(spec *corev1.PodSpec, p *field.Path) {
	const nullSelector = "%s: a null labelSelector results in matching no pod"
	for key := range ordered(spec.NodeSelector) {
		if message, former := rules.FormerNodeLabel(key); former {
			w.add("%s: %s", p.Child("nodeSelector").Key(key), message)
		}
	}
	for i, c := range spec.TopologySpreadConstraints {
		at := p.Child("topologySpreadConstraints").Index(i)
		w.label(c.TopologyKey, at.Child("topologyKey"))
		if c.LabelSelector == nil {
			w.add(nullSelector, at.Child("labelSelector"))
		}
	}
	a := spec.Affinity
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		at := p.Child("affinity", "nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				w.nodeSelectorTerm(&r.NodeSelectorTerms[i], at.Child(required, "nodeSelectorTerms").Index(i))
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			w.nodeSelectorTerm(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, at.Child(preferred).Index(i).Child("preference"))
		}
	}
	EachPodAffinityTerm(a, p.Child("affinity"), func(term *corev1.PodAffinityTerm, weight *int32, p *field.Path) {
		if weight != nil {
			p = p.Child("podAffinityTerm")
		}
		if term.LabelSelector == nil {
			w.add(nullSelector, p.Child("labelSelector"))
		}
	})
}

func (w *warnings) volume(v *corev1.Volume, p *field.Path) {
	w.oldVolumes(p, []oldVolume{
		{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", v.PhotonPersistentDisk != nil},
		{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", v.GitRepo != nil},
		{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", v.ScaleIO != nil},
		{"flocker", "deprecated in v1.22, non-functional in v1.25+", v.Flocker != nil},
		{"storageOS", "deprecated in v1.22, non-functional in v1.25+", v.StorageOS != nil},
		{"quobyte", "deprecated in v1.22, non-functional in v1.25+", v.Quobyte != nil},
		{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", v.Glusterfs != nil},
		{"cephfs", "deprecated in v1.28, non-functional in v1.31+", v.CephFS != nil},
		{"rbd", "deprecated in v1.28, non-functional in v1.31+", v.RBD != nil},
	})
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		w.claimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec, p.Child("ephemeral", "volumeClaimTemplate", "spec"))
	}
	switch {
	case v.ConfigMap != nil:
		w.overlaps(v.Name, fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyFiles(v.ConfigMap.Items, ""))
	case v.Secret != nil:
		w.overlaps(v.Name, fmt.Sprintf("Secret %q", v.Secret.SecretName), keyFiles(v.Secret.Items, ""))
	case v.DownwardAPI != nil:
		w.overlaps(v.Name, "DownwardAPI", downwardFiles(v.DownwardAPI.Items, ""))
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s == (corev1.VolumeProjection{}) {
				w.add("volume %q (Projected) has no sources provided", v.Name)
			}
		}
		w.overlaps(v.Name, "Projected", projectedFiles(v.Projected.Sources))
	}
}

// A volumeFile is a file in a volume, and where it comes from if the volume has
// several sources.
type volumeFile struct{ path, source string }

func keyFiles(items []corev1.KeyToPath, source string) (files []volumeFile) {
	for _, item := range items {
		files = append(files, volumeFile{item.Path, source})
	}
	return files
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, source string) (files []volumeFile) {
	for _, item := range items {
		files = append(files, volumeFile{item.Path, source})
	}
	return files
}

func projectedFiles(sources []corev1.VolumeProjection) (files []volumeFile) {
	for _, s := range sources {
		switch {
		case s.ConfigMap != nil:
			files = append(files, keyFiles(s.ConfigMap.Items, fmt.Sprintf(" (ConfigMap %q)", s.ConfigMap.Name))...)
		case s.Secret != nil:
			files = append(files, keyFiles(s.Secret.Items, fmt.Sprintf(" (Secret %q)", s.Secret.Name))...)
		case s.DownwardAPI != nil:
			files = append(files, downwardFiles(s.DownwardAPI.Items, " (DownwardAPI)")...)
		case s.ServiceAccountToken != nil:
			files = append(files, volumeFile{s.ServiceAccountToken.Path, " (ServiceAccountToken)"})
		case s.ClusterTrustBundle != nil:
			name := s.ClusterTrustBundle.SignerName
			if s.ClusterTrustBundle.Name != nil {
				name = s.ClusterTrustBundle.Name
			}
			if name != nil {
				files = append(files, volumeFile{s.ClusterTrustBundle.Path, fmt.Sprintf(" (ClusterTrustBundle %q)", *name)})
			}
		case s.PodCertificate != nil:
			// The files of one certificate are told from its last to its first.
			for _, f := range []volumeFile{
				{s.PodCertificate.CertificateChainPath, " (PodCertificate chain)"},
				{s.PodCertificate.KeyPath, " (PodCertificate key)"},
				{s.PodCertificate.CredentialBundlePath, " (PodCertificate credential bundle)"},
			} {
				if f.path != "" {
					files = append(files, f)
				}
			}
		}
	}
	return files
}

// overlaps warns of files of a volume that are in each other's way.
func (w *warnings) overlaps(volume, kind string, files []volumeFile) {
	var seen []volumeFile
	told := sets.New[string]()
	for _, f := range files {
		for _, other := range seen {
			if f.path == "" || other.path == "" || !within(f.path, other.path) && !within(other.path, f.path) {
				continue
			}
			message := fmt.Sprintf("volume %q (%s): overlapping paths: %q%s with %q%s", volume, kind, f.path, f.source, other.path, other.source)
			if !told.Has(message) {
				told.Insert(message)
				*w = append(*w, message)
			}
		}
		seen = append(seen, f)
	}
}

// within says whether a path is another one, or below it.
func within(path, dir string) bool {
	path, dir = strings.TrimRight(path, "/"), strings.TrimRight(dir, "/")
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// A portPlace is a port of a container and where it is written.
type portPlace struct {
	port corev1.ContainerPort
	at   *field.Path
}

// ports warns of ports that are written twice.
func (w *warnings) ports(spec *corev1.PodSpec, p *field.Path) {
	var all []portPlace
	byName := map[string]*field.Path{}
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		for i, port := range c.Ports {
			place := portPlace{port, at.Child("ports").Index(i)}
			if port.HostIP != "" && port.HostPort == 0 {
				w.add("%s: hostIP set without hostPort: %+v", place.at, port)
			}
			for _, other := range all {
				if overlap := place.overlap(other); overlap != "" {
					w.add("%s: %s port definition with %s", place.at, overlap, other.at)
				}
			}
			all = append(all, place)
			if first := byName[port.Name]; port.Name != "" {
				if first == nil {
					byName[port.Name] = place.at
				} else {
					w.add("%s: duplicate port name %q with %s, services and probes that select ports by name will use %s", place.at, port.Name, first, first)
				}
			}
		}
	})
}

// overlap says how two ports are in each other's way, if they are.
func (p portPlace) overlap(other portPlace) string {
	a, b := p.port, other.port
	if a.Protocol != b.Protocol || a.ContainerPort != b.ContainerPort {
		return ""
	}
	switch {
	case a.HostPort == b.HostPort && a.HostIP == b.HostIP:
		return "duplicate"
	case a.HostPort == 0 || b.HostPort == 0:
		return "overlapping"
	case a.HostPort == b.HostPort && (a.HostIP == "" || b.HostIP == ""):
		return "dangerously ambiguous"
	}
	return ""
}
