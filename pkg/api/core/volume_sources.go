package core

import (
	"net"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// Qualified names of iSCSI nodes, by the authority that gave them.
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`^iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui\.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa\.[[:alnum:]]{32}$`),
}

const unknownAuthority = " starting with iqn, eui, or naa"

// iscsiName validates the name of an iSCSI node. hint is what is said more of a
// name by none of the authorities.
func (r *report) iscsiName(name, hint string, p *field.Path) {
	authority, _, _ := strings.Cut(name, ".")
	format := iscsiNames[authority]
	if format == nil {
		r.invalid(p, name, "must be valid format"+hint)
		return
	}
	r.invalidIf(!format.MatchString(name), p, name, "must be valid format")
}

func (r *report) iscsi(v *corev1.ISCSIVolumeSource, hint string, hasSecret bool, p *field.Path) {
	r.required(v.TargetPortal, p.Child("targetPortal"))
	if r.required(v.IQN, p.Child("iqn")) {
		r.iscsiName(v.IQN, hint, p.Child("iqn"))
	}
	r.lun(v.Lun, p.Child("lun"))
	r.requireIf((v.DiscoveryCHAPAuth || v.SessionCHAPAuth) && !hasSecret, p.Child("secretRef"), "")
	if v.InitiatorName != nil {
		r.iscsiName(*v.InitiatorName, hint, p.Child("initiatorname"))
	}
}

func (r *report) fibreChannel(v *corev1.FCVolumeSource, p *field.Path) {
	r.requireIf(len(v.TargetWWNs) == 0 && len(v.WWIDs) == 0, p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")
	r.invalidIf(len(v.TargetWWNs) > 0 && len(v.WWIDs) > 0, p.Child("targetWWNs"), v.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	if len(v.TargetWWNs) == 0 {
		return
	}
	if r.requireIf(v.Lun == nil, p.Child("lun"), "lun is required if targetWWNs is specified") {
		r.lun(*v.Lun, p.Child("lun"))
	}
}

func (r *report) quobyte(v *corev1.QuobyteVolumeSource, p *field.Path) {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	const longest = 64
	switch {
	case v.Registry == "":
		r.add(field.Required(p.Child("registry"), pairs))
	case len(v.Tenant) > longest:
		r.add(field.Required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(v.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				r.invalid(p.Child("registry"), v.Registry, pairs)
			}
		}
	}
	r.required(v.Volume, p.Child("volume"))
}

func (r *report) azureDisk(v *corev1.AzureDiskVolumeSource, p *field.Path) {
	r.required(v.DiskName, p.Child("diskName"))
	r.required(v.DataDiskURI, p.Child("diskURI"))
	optionalOneOf(r, v.CachingMode, p.Child("cachingMode"), corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	optionalOneOf(r, v.Kind, p.Child("kind"), corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	prefix, example := "http", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if v.Kind != nil && *v.Kind == corev1.AzureManagedDisk {
		prefix, example = "/subscriptions", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	} else if strings.HasPrefix(v.DataDiskURI, "http") && !strings.HasPrefix(v.DataDiskURI, "https") {
		prefix = "https"
	}
	if !strings.HasPrefix(v.DataDiskURI, prefix) {
		r.add(field.NotSupported(p.Child("diskURI"), v.DataDiskURI, []string{example}))
	}
}

func (r *report) storageOS(name, namespace string, p *field.Path) {
	if r.required(name, p.Child("volumeName")) {
		r.invalid(p.Child("volumeName"), name, validation.IsDNS1123Label(name)...)
	}
	if namespace != "" {
		r.invalid(p.Child("volumeNamespace"), namespace, validation.IsDNS1123Label(namespace)...)
	}
}

func (r *report) scaleIO(gateway, system, volume string, p *field.Path) {
	r.required(gateway, p.Child("gateway"))
	r.required(system, p.Child("system"))
	r.required(volume, p.Child("volumeName"))
}

func (r *report) flexVolume(driver string, options map[string]string, p *field.Path) {
	r.required(driver, p.Child("driver"))
	for k := range ordered(options) {
		domain, _, _ := strings.Cut(k, "/")
		for _, reserved := range []string{"kubernetes.io", "k8s.io"} {
			r.invalidIf(domain == reserved || strings.HasSuffix(domain, "."+reserved), p.Child("options").Key(k), k, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

// projected validates several sources that share a directory.
func (r *report) projected(v *corev1.ProjectedVolumeSource, p *field.Path) {
	r.mode(v.DefaultMode, p.Child("defaultMode"))
	files := sets.New[string]()
	claimFor := func(path, shown string) {
		r.invalidIf(path != "" && files.Has(path), p, shown, "conflicting duplicate paths")
		files.Insert(path)
	}
	claim := func(path string) { claimFor(path, path) }
	items := func(list []corev1.KeyToPath, source string) {
		for _, item := range list {
			claimFor(item.Path, source)
		}
	}
	for i := range v.Sources {
		s, at := &v.Sources[i], p.Child("sources").Index(i)
		n := 0
		if s.Secret != nil {
			n++
			r.required(s.Secret.Name, at.Child("secret", "name"))
			r.keys(s.Secret.Items, nil, at.Child("secret"))
			items(s.Secret.Items, s.Secret.Name)
		}
		if s.ConfigMap != nil && r.second(&n, at) {
			r.required(s.ConfigMap.Name, at.Child("configMap", "name"))
			r.keys(s.ConfigMap.Items, nil, at.Child("configMap"))
			items(s.ConfigMap.Items, s.ConfigMap.Name)
		}
		if s.DownwardAPI != nil && r.second(&n, at) {
			for j := range s.DownwardAPI.Items {
				r.downwardFile(&s.DownwardAPI.Items[j], at.Child("downwardAPI"))
				claim(s.DownwardAPI.Items[j].Path)
			}
		}
		if s.ServiceAccountToken != nil && r.second(&n, at) {
			r.tokenProjection(s.ServiceAccountToken, p, at.Child("serviceAccountToken"))
			claim(s.ServiceAccountToken.Path)
		}
		if s.ClusterTrustBundle != nil && r.second(&n, at) {
			r.trustBundleProjection(s.ClusterTrustBundle, at.Child("clusterTrustBundle"))
			claim(s.ClusterTrustBundle.Path)
		}
		if s.PodCertificate != nil && r.second(&n, at) {
			r.certificateProjection(s.PodCertificate, at.Child("podCertificate"))
			for _, path := range []string{s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath, s.PodCertificate.CertificateChainPath} {
				claim(path)
			}
		}
	}
}

// second counts a source, and says that there may be no second one.
func (r *report) second(n *int, p *field.Path) bool {
	*n++
	return r.forbidIf(*n > 1, p, "may not specify more than 1 volume type per source")
}

func (r *report) tokenProjection(t *corev1.ServiceAccountTokenProjection, volume, p *field.Path) {
	if s := t.ExpirationSeconds; s != nil {
		r.invalidIf(*s < 10*60, p.Child("expirationSeconds"), *s, "may not specify a duration less than 10 minutes")
		r.invalidIf(*s > 1<<32, p.Child("expirationSeconds"), *s, "may not specify a duration larger than 2^32 seconds")
	}
	r.fileName(t.Path, volume.Child("path"))
}

func (r *report) trustBundleProjection(b *corev1.ClusterTrustBundleProjection, p *field.Path) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		r.invalid(p, goNames{b}, "only one of name and signerName may be used")
	case b.Name != nil:
		r.requireIf(*b.Name == "", p.Child("name"), "must be a valid object name")
		r.invalid(p.Child("name"), *b.Name, prefixed("not a valid clustertrustbundlename: ", trustBundleName(*b.Name))...)
		r.invalidIf(b.LabelSelector != nil, p.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified")
	case b.SignerName != nil:
		r.requireIf(*b.SignerName == "", p.Child("signerName"), "must be a valid signer name")
		r.merge(rules.SignerName(*b.SignerName, p.Child("signerName")))
		r.labelSelector(b.LabelSelector, p.Child("labelSelector"))
	default:
		r.add(field.Required(p, "either name or signerName must be specified"))
	}
	r.fileName(b.Path, p.Child("path"))
}

// trustBundleName validates the name of a ClusterTrustBundle that belongs to no
// signer, or whose signer is written before a colon.
func trustBundleName(name string) []string {
	return validation.IsDNS1123Subdomain(name[strings.LastIndexByte(name, ':')+1:])
}

var certificateKeys = []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}

// Certificates of pods live between an hour and ninety-one days, those of
// Kubernetes' own signers at most a day.
const (
	minCertificateSeconds    = 60 * 60
	maxCertificateSeconds    = 91 * 24 * 60 * 60
	maxOwnCertificateSeconds = 24 * 60 * 60
)

func (r *report) certificateProjection(c *corev1.PodCertificateProjection, p *field.Path) {
	r.merge(rules.SignerName(c.SignerName, p.Child("signerName")))
	oneOf(r, c.KeyType, p.Child("keyType"), certificateKeys...)
	if s := c.MaxExpirationSeconds; s != nil {
		at := p.Child("maxExpirationSeconds")
		r.invalidIf(*s < minCertificateSeconds, at, *s, "if provided, maxExpirationSeconds must be >= 3600")
		if strings.HasPrefix(c.SignerName, "kubernetes.io/") {
			r.invalidIf(*s > maxOwnCertificateSeconds, at, *s, "if provided, maxExpirationSeconds must be <= 86400")
		} else {
			r.invalidIf(*s > maxCertificateSeconds, at, *s, "if provided, maxExpirationSeconds must be <= 7862400")
		}
	}
	files := 0
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath},
	} {
		if f.path != "" {
			files++
			r.fileName(f.path, p.Child(f.name))
		}
	}
	r.requireIf(files == 0, p, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	for k := range ordered(c.UserAnnotations) {
		r.merge(validation.IsDomainPrefixedKey(p.Child("userAnnotations"), strings.ToLower(k)))
	}
}

func (r *report) labels(labels map[string]string, p *field.Path) bool {
	return r.merge(metavalidation.ValidateLabels(labels, p))
}
