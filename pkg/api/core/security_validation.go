package core

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

func (r *report) userID(id *int64, p *field.Path) {
	if id != nil {
		r.invalid(p, *id, validation.IsValidUserID(*id)...)
	}
}

func (r *report) groupID(id *int64, p *field.Path) {
	if id != nil {
		r.invalid(p, *id, validation.IsValidGroupID(*id)...)
	}
}

func (r *report) podSecurityContext(spec *corev1.PodSpec, p *field.Path) {
	c := spec.SecurityContext
	if c == nil {
		return
	}
	at := p.Child("securityContext")
	r.groupID(c.FSGroup, at.Child("fsGroup"))
	r.userID(c.RunAsUser, at.Child("runAsUser"))
	r.groupID(c.RunAsGroup, at.Child("runAsGroup"))
	for i := range c.SupplementalGroups {
		r.groupID(&c.SupplementalGroups[i], at.Child("supplementalGroups").Index(i))
	}
	optionalOneOf(r, c.SupplementalGroupsPolicy, at.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	optionalOneOf(r, c.FSGroupChangePolicy, at.Child("fsGroupChangePolicy"), corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	optionalOneOf(r, c.SELinuxChangePolicy, at.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	r.sysctls(spec, at.Child("sysctls"))
	r.seccomp(c.SeccompProfile, at.Child("seccompProfile"))
	r.appArmor(c.AppArmorProfile, at.Child("appArmorProfile"))
	r.windowsOptions(c.WindowsOptions, at.Child("windowsOptions"))
}

var (
	sysctlName = regexp.MustCompile("^" + sysctlFormat + "$")

	// Sysctls that belong to a namespace that a pod can share with its host.
	ipcSysctls = []string{"kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."}
	netSysctls = []string{"net."}
)

const sysctlFormat = `([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?`

func (r *report) sysctls(spec *corev1.PodSpec, p *field.Path) {
	seen := duplicates[string]{}
	for i, s := range spec.SecurityContext.Sysctls {
		at := p.Index(i).Child("name")
		if !r.required(s.Name, at) {
			continue
		}
		if !r.invalidIf(len(s.Name) > 253 || !sysctlName.MatchString(s.Name), at, s.Name,
			fmt.Sprintf("must have at most 253 characters and match regex %s", sysctlName)) {
			continue
		}
		dotted := normalSysctl(s.Name)
		in := func(prefixes []string) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(dotted, prefix) })
		}
		r.invalidIf(spec.HostNetwork && in(netSysctls), at, s.Name, "may not be specified when 'hostNetwork' is true")
		r.invalidIf(spec.HostIPC && in(ipcSysctls), at, s.Name, "may not be specified when 'hostIPC' is true")
		seen.check(r, s.Name, at)
	}
}

// normalSysctl writes the name of a sysctl with dots between its parts, whichever
// separator came first in it.
func normalSysctl(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(c rune) rune {
		switch c {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return c
	}, name)
}

func (r *report) securityContext(c *corev1.SecurityContext, s *podScope, p *field.Path) {
	if c == nil {
		return
	}
	r.userID(c.RunAsUser, p.Child("runAsUser"))
	r.groupID(c.RunAsGroup, p.Child("runAsGroup"))
	if c.ProcMount != nil && oneOf(r, *c.ProcMount, p.Child("procMount"), corev1.DefaultProcMount, corev1.UnmaskedProcMount) {
		r.invalidIf(*c.ProcMount == corev1.UnmaskedProcMount && !isFalse(s.spec.HostUsers), p.Child("procMount"), *c.ProcMount, "`hostUsers` must be false to use `Unmasked`")
	}
	r.seccomp(c.SeccompProfile, p.Child("seccompProfile"))
	if isFalse(c.AllowPrivilegeEscalation) {
		r.invalidIf(isTrue(c.Privileged), p, goNames{c}, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		admin := c.Capabilities != nil && slices.Contains(c.Capabilities.Add, "CAP_SYS_ADMIN")
		r.invalidIf(admin, p, goNames{c}, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
	}
	r.windowsOptions(c.WindowsOptions, p.Child("windowsOptions"))
	r.appArmor(c.AppArmorProfile, p.Child("appArmorProfile"))
}

func (r *report) seccomp(c *corev1.SeccompProfile, p *field.Path) {
	if c == nil {
		return
	}
	at := p.Child("localhostProfile")
	if c.Type == corev1.SeccompProfileTypeLocalhost {
		if r.requireIf(c.LocalhostProfile == nil, at, "must be set when seccomp type is Localhost") {
			r.relativePath(*c.LocalhostProfile, at)
		}
	} else {
		r.invalidIf(c.LocalhostProfile != nil, at, goNames{c}, "can only be set when seccomp type is Localhost")
	}
	if r.requireIf(c.Type == "", p.Child("type"), "type is required when seccompProfile is set") {
		oneOf(r, c.Type, p.Child("type"), corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
}

func (r *report) appArmor(c *corev1.AppArmorProfile, p *field.Path) {
	if c == nil {
		return
	}
	if r.requireIf(c.Type == "", p.Child("type"), "type is required when appArmorProfile is set") {
		oneOf(r, c.Type, p.Child("type"), corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
	at := p.Child("localhostProfile")
	if c.Type != corev1.AppArmorProfileTypeLocalhost {
		known := c.Type == corev1.AppArmorProfileTypeRuntimeDefault || c.Type == corev1.AppArmorProfileTypeUnconfined
		if known && c.LocalhostProfile != nil {
			r.invalid(at, *c.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
		return
	}
	const limit = 4095
	if c.LocalhostProfile == nil || *c.LocalhostProfile == "" {
		r.add(field.Required(at, "must be set when AppArmor type is Localhost"))
		return
	}
	name := *c.LocalhostProfile
	if r.invalidIf(strings.TrimSpace(name) != name, at, name, "must not be padded with whitespace") {
		r.requireIf(strings.TrimSpace(name) == "", at, "must be set when AppArmor type is Localhost")
	}
	if len(name) > limit {
		r.add(field.TooLongMaxLength(at, name, limit))
	}
}

// Names of Windows users: a NetBIOS or DNS domain, and what a user's name may not hold.
var (
	netBIOSName    = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	windowsDNSName = regexp.MustCompile(`^[[:alnum:]][[:alnum:]-.]+[[:alnum:]]$`)
)

const (
	maxGMSACredentialSpec = 64 * 1024
	maxWindowsDomain      = 256
	maxWindowsUser        = 104
	notInWindowsUser      = `"/\:;|=,+*?<>@[]`
)

func (r *report) windowsOptions(o *corev1.WindowsSecurityContextOptions, p *field.Path) {
	if o == nil {
		return
	}
	if n := o.GMSACredentialSpecName; n != nil {
		r.invalid(p.Child("gmsaCredentialSpecName"), *n, apivalidation.NameIsDNSSubdomain(*n, false)...)
	}
	if s := o.GMSACredentialSpec; s != nil {
		at := p.Child("gmsaCredentialSpec")
		r.invalidIf(*s == "", at, *s, "gmsaCredentialSpec cannot be an empty string")
		r.invalidIf(len(*s) > maxGMSACredentialSpec, at, *s, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxGMSACredentialSpec/1024))
	}
	if u := o.RunAsUserName; u != nil {
		r.windowsUser(*u, p.Child("runAsUserName"))
	}
}

func (r *report) windowsUser(name string, p *field.Path) {
	bad := func(reason string) { r.invalid(p, name, "runAsUserName"+reason) }
	switch {
	case name == "":
		bad(" cannot be an empty string")
		return
	case strings.ContainsFunc(name, unicode.IsControl):
		bad(" cannot contain control characters")
		return
	case strings.Count(name, `\`) > 1:
		bad(" cannot contain more than one backslash")
		return
	}
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		user = domain
	} else {
		if len(domain) >= maxWindowsDomain {
			bad(fmt.Sprintf("'s Domain length must be under %d characters", maxWindowsDomain))
		}
		if !netBIOSName.MatchString(domain) && !windowsDNSName.MatchString(domain) {
			bad("'s Domain doesn't match the NetBios nor the DNS format")
		}
	}
	switch {
	case user == "":
		bad("'s User cannot be empty")
	case len(user) > maxWindowsUser:
		bad(fmt.Sprintf("'s User length must not be longer than %d characters", maxWindowsUser))
	}
	if user != "" && strings.Trim(user, ". ") == "" {
		bad("'s User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, notInWindowsUser) {
		bad("'s User cannot contain the following characters: " + notInWindowsUser)
	}
}

// hostProcess says that a pod of processes of a Windows host has no others, and
// is on the host's network.
func (r *report) hostProcess(spec *corev1.PodSpec, p *field.Path) {
	var podValue *bool
	if c := spec.SecurityContext; c != nil && c.WindowsOptions != nil {
		podValue = c.WindowsOptions.HostProcess
	}
	with, without := false, false
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		value := hostProcessOf(c, spec)
		if podValue != nil && *value != *podValue {
			r.invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *value,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *podValue))
		}
		with, without = with || isTrue(value), without || !isTrue(value)
	})
	if !with {
		return
	}
	r.invalidIf(without, p, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	r.invalidIf(!spec.HostNetwork, p.Child("hostNetwork"), spec.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers")
}

// hostProcessOf is whether a container is a process of its Windows host, if it or its pod says so.
func hostProcessOf(c *corev1.Container, spec *corev1.PodSpec) *bool {
	if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil && sc.WindowsOptions.HostProcess != nil {
		return sc.WindowsOptions.HostProcess
	}
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		return sc.WindowsOptions.HostProcess
	}
	return nil
}

// ValidateUnprivileged says what is wrong with the spec of a pod, or of a template
// for pods, in a cluster whose policy is that no container is as mighty as its host.
func ValidateUnprivileged(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var r report
	ofHost := false
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		r.forbidIf(c.SecurityContext != nil && isTrue(c.SecurityContext.Privileged), at.Child("securityContext", "privileged"), "disallowed by cluster policy")
		ofHost = ofHost || isTrue(hostProcessOf(c, spec))
	})
	r.forbidIf(ofHost, p, "hostProcess containers are disallowed by cluster policy")
	return r.errs
}

// eachContainer visits all containers of a pod, whatever their kind.
func eachContainer(spec *corev1.PodSpec, p *field.Path, visit func(c *corev1.Container, p *field.Path)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], p.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i], p.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		visit((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), p.Child("ephemeralContainers").Index(i))
	}
}

// os says that a pod for one operating system asks for nothing of another's.
func (r *report) os(spec *corev1.PodSpec, p *field.Path) {
	if spec.OS == nil {
		return
	}
	if !r.required(string(spec.OS.Name), p.Child("os", "name")) {
		return
	}
	switch spec.OS.Name {
	case corev1.Linux:
		const reason = "windows options cannot be set for a linux pod"
		if c := spec.SecurityContext; c != nil {
			r.forbidIf(c.WindowsOptions != nil, p.Child("securityContext", "windowsOptions"), reason)
		}
		eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
			r.forbidIf(c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil, at.Child("securityContext", "windowsOptions"), reason)
		})
	case corev1.Windows:
		r.windowsPod(spec, p)
	default:
		oneOf(r, spec.OS.Name, p.Child("os"), corev1.Linux, corev1.Windows)
	}
}

func (r *report) windowsPod(spec *corev1.PodSpec, p *field.Path) {
	type setting struct {
		name string
		set  bool
	}
	forbid := func(p *field.Path, settings ...setting) {
		for _, s := range settings {
			r.forbidIf(s.set, p.Child(s.name), "cannot be set for a windows pod")
		}
	}
	if c := spec.SecurityContext; c != nil {
		forbid(p.Child("securityContext"),
			setting{"appArmorProfile", c.AppArmorProfile != nil},
			setting{"seLinuxOptions", c.SELinuxOptions != nil},
			setting{"seccompProfile", c.SeccompProfile != nil},
			setting{"fsGroup", c.FSGroup != nil},
			setting{"fsGroupChangePolicy", c.FSGroupChangePolicy != nil},
			setting{"sysctls", len(c.Sysctls) > 0},
			setting{"runAsUser", c.RunAsUser != nil},
			setting{"runAsGroup", c.RunAsGroup != nil},
			setting{"supplementalGroups", c.SupplementalGroups != nil},
			setting{"supplementalGroupsPolicy", c.SupplementalGroupsPolicy != nil},
			setting{"seLinuxChangePolicy", c.SELinuxChangePolicy != nil},
		)
	}
	forbid(p,
		setting{"hostUsers", spec.HostUsers != nil},
		setting{"hostPID", spec.HostPID},
		setting{"hostIPC", spec.HostIPC},
		setting{"shareProcessNamespace", spec.ShareProcessNamespace != nil},
	)
	r.forbidIf(spec.Resources != nil, p.Child("resources"), "may not be set for a windows pod")
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		forbid(at.Child("securityContext"),
			setting{"appArmorProfile", sc.AppArmorProfile != nil},
			setting{"seLinuxOptions", sc.SELinuxOptions != nil},
			setting{"seccompProfile", sc.SeccompProfile != nil},
			setting{"capabilities", sc.Capabilities != nil},
			setting{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil},
			setting{"privileged", sc.Privileged != nil},
			setting{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
			setting{"procMount", sc.ProcMount != nil},
			setting{"runAsUser", sc.RunAsUser != nil},
			setting{"runAsGroup", sc.RunAsGroup != nil},
		)
	})
}

// profileAnnotations validates the annotations that security profiles were given
// in before they had fields.
func (r *report) profileAnnotations(annotations map[string]string, spec *corev1.PodSpec, p *field.Path) {
	const deprecatedSeccompPod, deprecatedSeccompContainer = "seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"
	names := sets.New[string]()
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) { names.Insert(c.Name) })
	for key, value := range ordered(annotations) {
		container, isAppArmor := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		switch {
		case key == deprecatedSeccompPod, strings.HasPrefix(key, deprecatedSeccompContainer):
			at := p.Child(key)
			if file, ok := strings.CutPrefix(value, "localhost/"); ok {
				r.relativePath(file, at)
			} else {
				r.invalidIf(value != "runtime/default" && value != "docker/default" && value != "unconfined", at, value, "must be a valid seccomp profile")
			}
		case isAppArmor && !names.Has(container):
			r.invalid(p.Key(key), container, "container not found")
		case isAppArmor:
			known := value == "" || value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault || value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
				strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
			r.invalidIf(!known, p.Key(key), value, fmt.Sprintf("invalid AppArmor profile name: %q", value))
		}
	}
}

// appArmorConflicts says that an annotation and the field that replaced it must
// say the same.
func (r *report) appArmorConflicts(annotations map[string]string, spec *corev1.PodSpec, p *field.Path) {
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return // has no such field
	}
	eachContainer(spec, p, func(c *corev1.Container, at *field.Path) {
		value, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if !ok || c.SecurityContext == nil || c.SecurityContext.AppArmorProfile == nil {
			return
		}
		profile := c.SecurityContext.AppArmorProfile
		at = at.Child("securityContext", "appArmorProfile")
		file, isLocal := strings.CutPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		want := corev1.AppArmorProfileTypeRuntimeDefault
		switch {
		case isLocal:
			want = corev1.AppArmorProfileTypeLocalhost
		case value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
			want = corev1.AppArmorProfileTypeUnconfined
		case value != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
			return
		}
		if !r.forbidIf(profile.Type != want, at.Child("type"), "apparmor type in annotation and field must match") {
			return
		}
		r.forbidIf(isLocal && (profile.LocalhostProfile == nil || *profile.LocalhostProfile != file), at.Child("localhostProfile"), "apparmor profile in annotation and field must match")
	})
}
