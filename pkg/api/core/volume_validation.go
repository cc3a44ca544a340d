package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A volumeSource is one of the sources that a volume can have.
type volumeSource struct {
	// name is what the original calls the source where it is one too many, and at
	// where it looks for what is wrong in it: name, unless said otherwise.
	name, at string
	set      bool
	// besides says that the source is validated even where another one is there.
	besides bool
	check   func(p *field.Path)
}

// podSourceOrder is which of several sources of a pod's volume is taken for the one that was meant.
// The others follow.
var podSourceOrder = []string{
	"emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi", "glusterfs", "flocker",
	"persistentVolumeClaim", "rbd", "cinder", "cephFS", "quobyte", "downwarAPI", "fc", "flexVolume", "configMap", "azureFile", "vsphereVolume",
	"photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
}

// persistentSourceOrder is the same for persistent volumes.
var persistentSourceOrder = []string{
	"hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephFS", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
	"scaleIO", "local", "storageos", "csi",
}

// oneSource says that a volume has no more than one source, and validates it. It
// tells whether the volume has any.
func (r *report) oneSource(sources []volumeSource, order []string, p *field.Path) bool {
	found := false
	slices.SortFunc(sources, func(a, b volumeSource) int { return slices.Index(order, a.name) - slices.Index(order, b.name) })
	for _, s := range sources {
		if !s.set {
			continue
		}
		if s.besides || r.forbidIf(found, p.Child(s.name), "may not specify more than 1 volume type") {
			at := s.at
			if at == "" {
				at = s.name
			}
			s.check(p.Child(at))
		}
		found = true
	}
	return found
}

// volumes validates the volumes of a pod and returns those that are valid, which
// its containers can mount.
func (r *report) volumes(volumes []corev1.Volume, podName string, p *field.Path) map[string]*corev1.VolumeSource {
	names, valid := duplicates[string]{}, map[string]*corev1.VolumeSource{}
	for i := range volumes {
		v, at, before := &volumes[i], p.Index(i), len(r.errs)
		if r.required(v.Name, at.Child("name")) && r.invalid(at.Child("name"), v.Name, validation.IsDNS1123Label(v.Name)...) {
			names.check(r, v.Name, at.Child("name"))
		}
		if !r.oneSource(r.podVolumeSources(&v.VolumeSource), podSourceOrder, at) {
			r.add(field.Required(at, "must specify a volume type"))
		}
		if v.Ephemeral != nil && podName != "" && v.Name != "" {
			claim := podName + "-" + v.Name
			r.invalid(at.Child("name"), v.Name, prefixed(fmt.Sprintf("PVC name %q: ", claim), validation.IsDNS1123Subdomain(claim))...)
		}
		if len(r.errs) == before {
			valid[v.Name] = &v.VolumeSource
		}
	}
	return valid
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = prefix + list[i]
	}
	return out
}

func (r *report) podVolumeSources(v *corev1.VolumeSource) []volumeSource {
	emptyDir := volumeSource{name: "emptyDir", set: v.EmptyDir != nil, check: func(p *field.Path) {
		q := v.EmptyDir.SizeLimit
		r.forbidIf(q != nil && q.Sign() < 0, p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
	}}
	return append(append([]volumeSource{emptyDir}, r.commonSources(v)...), []volumeSource{
		{name: "gitRepo", set: v.GitRepo != nil, check: func(p *field.Path) {
			r.required(v.GitRepo.Repository, p.Child("repository"))
			r.relativePath(v.GitRepo.Directory, p.Child("directory"))
		}},
		{name: "secret", set: v.Secret != nil, check: func(p *field.Path) {
			r.required(v.Secret.SecretName, p.Child("secretName"))
			r.keys(v.Secret.Items, v.Secret.DefaultMode, p)
		}},
		{name: "configMap", set: v.ConfigMap != nil, check: func(p *field.Path) {
			r.required(v.ConfigMap.Name, p.Child("name"))
			r.keys(v.ConfigMap.Items, v.ConfigMap.DefaultMode, p)
		}},
		{name: "downwarAPI", at: "downwardAPI", set: v.DownwardAPI != nil, check: func(p *field.Path) {
			r.mode(v.DownwardAPI.DefaultMode, p.Child("defaultMode"))
			for i := range v.DownwardAPI.Items {
				r.downwardFile(&v.DownwardAPI.Items[i], p)
			}
		}},
		{name: "projected", set: v.Projected != nil, check: func(p *field.Path) { r.projected(v.Projected, p) }},
		{name: "persistentVolumeClaim", set: v.PersistentVolumeClaim != nil, check: func(p *field.Path) {
			r.required(v.PersistentVolumeClaim.ClaimName, p.Child("claimName"))
		}},
		{name: "ephemeral", set: v.Ephemeral != nil, check: func(p *field.Path) { r.claimTemplate(v.Ephemeral.VolumeClaimTemplate, p.Child("volumeClaimTemplate")) }},
		{name: "image", set: v.Image != nil, check: func(p *field.Path) {
			r.required(v.Image.Reference, p.Child("reference"))
			if v.Image.PullPolicy != "" {
				oneOf(r, v.Image.PullPolicy, p.Child("pullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
			}
		}},
		{name: "csi", set: v.CSI != nil, check: func(p *field.Path) {
			r.csiDriver(v.CSI.Driver, p.Child("driver"))
			r.localRef(v.CSI.NodePublishSecretRef, p.Child("nodePublishSecretRef"))
			if ref := v.CSI.NodePublishSecretRef; ref != nil && ref.Name != "" {
				r.invalid(p.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false)...)
			}
		}},
		{name: "iscsi", set: v.ISCSI != nil, check: func(p *field.Path) { r.iscsi(v.ISCSI, unknownAuthority, v.ISCSI.SecretRef != nil, p) }},
		{name: "glusterfs", set: v.Glusterfs != nil, check: func(p *field.Path) {
			r.required(v.Glusterfs.EndpointsName, p.Child("endpoints"))
			r.required(v.Glusterfs.Path, p.Child("path"))
		}},
		{name: "rbd", set: v.RBD != nil, check: func(p *field.Path) {
			r.requireIf(len(v.RBD.CephMonitors) == 0, p.Child("monitors"), "")
			r.required(v.RBD.RBDImage, p.Child("image"))
		}},
		{name: "cinder", set: v.Cinder != nil, check: func(p *field.Path) {
			r.required(v.Cinder.VolumeID, p.Child("volumeID"))
			r.localRef(v.Cinder.SecretRef, p.Child("secretRef"))
		}},
		{name: "cephFS", at: "cephfs", set: v.CephFS != nil, check: func(p *field.Path) { r.requireIf(len(v.CephFS.Monitors) == 0, p.Child("monitors"), "") }},
		{name: "flexVolume", set: v.FlexVolume != nil, check: func(p *field.Path) { r.flexVolume(v.FlexVolume.Driver, v.FlexVolume.Options, p) }},
		{name: "azureFile", set: v.AzureFile != nil, check: func(p *field.Path) {
			r.required(v.AzureFile.SecretName, p.Child("secretName"))
			r.required(v.AzureFile.ShareName, p.Child("shareName"))
		}},
		{name: "storageos", set: v.StorageOS != nil, check: func(p *field.Path) {
			r.storageOS(v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, p)
			r.localRef(v.StorageOS.SecretRef, p.Child("secretRef"))
		}},
		{name: "scaleIO", set: v.ScaleIO != nil, check: func(p *field.Path) { r.scaleIO(v.ScaleIO.Gateway, v.ScaleIO.System, v.ScaleIO.VolumeName, p) }},
	}...)
}

// commonSources are the sources that volumes of pods and persistent volumes
// describe with the same types.
func (r *report) commonSources(v *corev1.VolumeSource) []volumeSource {
	return []volumeSource{
		{name: "hostPath", set: v.HostPath != nil, check: func(p *field.Path) {
			if r.required(v.HostPath.Path, p.Child("path")) {
				r.noBacksteps(v.HostPath.Path, p.Child("path"))
			}
			optionalOneOf(r, v.HostPath.Type, p.Child("type"), corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
				corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
		}},
		{name: "gcePersistentDisk", at: "persistentDisk", set: v.GCEPersistentDisk != nil, check: func(p *field.Path) {
			r.required(v.GCEPersistentDisk.PDName, p.Child("pdName"))
			r.partition(v.GCEPersistentDisk.Partition, p.Child("partition"))
		}},
		{name: "awsElasticBlockStore", set: v.AWSElasticBlockStore != nil, check: func(p *field.Path) {
			r.required(v.AWSElasticBlockStore.VolumeID, p.Child("volumeID"))
			r.partition(v.AWSElasticBlockStore.Partition, p.Child("partition"))
		}},
		{name: "nfs", set: v.NFS != nil, check: func(p *field.Path) {
			r.required(v.NFS.Server, p.Child("server"))
			r.required(v.NFS.Path, p.Child("path"))
			r.invalidIf(!strings.HasPrefix(v.NFS.Path, "/"), p.Child("path"), v.NFS.Path, "must be an absolute path")
		}},
		{name: "fc", set: v.FC != nil, check: func(p *field.Path) { r.fibreChannel(v.FC, p) }},
		{name: "flocker", set: v.Flocker != nil, check: func(p *field.Path) {
			f := v.Flocker
			r.requireIf(f.DatasetName == "" && f.DatasetUUID == "", p, "one of datasetName and datasetUUID is required")
			r.invalidIf(f.DatasetName != "" && f.DatasetUUID != "", p, "resource", "datasetName and datasetUUID can not be specified simultaneously")
			r.invalidIf(strings.Contains(f.DatasetName, "/"), p.Child("datasetName"), f.DatasetName, "must not contain '/'")
		}},
		{name: "vsphereVolume", set: v.VsphereVolume != nil, check: func(p *field.Path) { r.required(v.VsphereVolume.VolumePath, p.Child("volumePath")) }},
		{name: "quobyte", set: v.Quobyte != nil, check: func(p *field.Path) { r.quobyte(v.Quobyte, p) }},
		{name: "azureDisk", set: v.AzureDisk != nil, check: func(p *field.Path) { r.azureDisk(v.AzureDisk, p) }},
		{name: "photonPersistentDisk", set: v.PhotonPersistentDisk != nil, check: func(p *field.Path) { r.required(v.PhotonPersistentDisk.PdID, p.Child("pdID")) }},
		{name: "portworxVolume", set: v.PortworxVolume != nil, check: func(p *field.Path) { r.required(v.PortworxVolume.VolumeID, p.Child("volumeID")) }},
	}
}

func (r *report) localRef(ref *corev1.LocalObjectReference, p *field.Path) {
	if ref != nil {
		r.required(ref.Name, p.Child("name"))
	}
}

func (r *report) partition(n int32, p *field.Path) {
	r.invalidIf(n < 0 || n > 255, p, n, validation.InclusiveRangeError(1, 255))
}

func (r *report) lun(n int32, p *field.Path) {
	r.invalidIf(n < 0 || n > 255, p, n, validation.InclusiveRangeError(0, 255))
}

func (r *report) csiDriver(name string, p *field.Path) {
	if !r.required(name, p) {
		return
	}
	if len(name) > 63 {
		r.add(field.TooLong(p, name, 63))
	}
	r.invalid(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name))...)
}

func (r *report) mode(mode *int32, p *field.Path) {
	if mode != nil {
		r.invalidIf(*mode < 0 || *mode > 0o777, p, *mode, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}

// keys validates which keys of a Secret or ConfigMap become which files.
func (r *report) keys(items []corev1.KeyToPath, defaultMode *int32, p *field.Path) {
	r.mode(defaultMode, p.Child("defaultMode"))
	for i, item := range items {
		at := p.Child("items").Index(i)
		r.required(item.Key, at.Child("key"))
		r.fileName(item.Path, at.Child("path"))
		r.mode(item.Mode, at.Child("mode"))
	}
}

func (r *report) downwardFile(f *corev1.DownwardAPIVolumeFile, p *field.Path) {
	r.fileName(f.Path, p.Child("path"))
	switch {
	case f.FieldRef != nil:
		r.fieldRef(f.FieldRef, volumeFields, p.Child("fieldRef"))
		r.invalidIf(f.ResourceFieldRef != nil, p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
	case f.ResourceFieldRef != nil:
		r.resourceFieldRef(f.ResourceFieldRef, true, p.Child("resourceFieldRef"))
	default:
		r.add(field.Required(p, "one of fieldRef and resourceFieldRef is required"))
	}
	r.mode(f.Mode, p.Child("mode"))
}

// claimTemplate validates the template of a claim that lives as long as its pod.
func (r *report) claimTemplate(t *corev1.PersistentVolumeClaimTemplate, p *field.Path) {
	if !r.requireIf(t == nil, p, "") {
		return
	}
	r.merge(ValidateTemplateMeta(&t.ObjectMeta, p.Child("metadata")))
	r.claimSpec(&t.Spec, false, p.Child("spec"))
}

// ValidateTemplateMeta says what is wrong with the metadata of a template for objects
// that Kubernetes names itself.
func ValidateTemplateMeta(m *metav1.ObjectMeta, p *field.Path) field.ErrorList {
	r := report{errs: apivalidation.ValidateAnnotations(m.Annotations, p.Child("annotations"))}
	r.labels(m.Labels, p.Child("labels"))
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", m.Name != ""}, {"generateName", m.GenerateName != ""}, {"namespace", m.Namespace != ""}, {"uID", m.UID != ""},
		{"resourceVersion", m.ResourceVersion != ""}, {"selfLink", m.SelfLink != ""}, {"generation", m.Generation != 0},
		{"creationTimestamp", !m.CreationTimestamp.IsZero()}, {"deletionTimestamp", m.DeletionTimestamp != nil},
		{"deletionGracePeriodSeconds", m.DeletionGracePeriodSeconds != nil}, {"ownerReferences", m.OwnerReferences != nil},
		{"finalizers", m.Finalizers != nil}, {"managedFields", m.ManagedFields != nil},
	} {
		r.forbidIf(f.set, p.Child(f.name), "cannot be set")
	}
	return r.errs
}
