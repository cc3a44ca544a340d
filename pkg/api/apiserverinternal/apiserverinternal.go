// Package apiserverinternal knows what is true of the kinds of
// internal.apiserver.k8s.io/v1alpha1 wherever they are handled: what makes them invalid
// (the Validate functions). They have no defaults.
package apiserverinternal

import (
	"fmt"
	"slices"
	"strings"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateStorageVersion says what is wrong with a new StorageVersion, which is named
// after a resource: "apps.deployments".
func ValidateStorageVersion(v *internalv1alpha1.StorageVersion) field.ErrorList {
	return core.ValidateObjectMeta(&v.ObjectMeta, false, func(name string, _ bool) []string {
		i := strings.LastIndex(name, ".")
		if i < 0 {
			return []string{"name must be in the form of <group>.<resource>"}
		}
		return append(prefixed("the group segment ", validation.IsDNS1123Subdomain(name[:i])),
			prefixed("the resource segment ", validation.IsDNS1035Label(name[i+1:]))...)
	}, field.NewPath("metadata"))
}

// ValidateStorageVersionStatusUpdate says what is wrong with an update of the status of a
// StorageVersion: what each server writes and reads, and what they agree on.
func ValidateStorageVersionStatusUpdate(v, _ *internalv1alpha1.StorageVersion) field.ErrorList {
	p := field.NewPath("status")
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range v.Status.StorageVersions {
		server, p := &v.Status.StorageVersions[i], p.Child("storageVersions").Index(i)
		if seen[server.APIServerID] {
			errs = append(errs, field.Duplicate(p.Child("apiServerID"), server.APIServerID))
		}
		seen[server.APIServerID] = true
		errs = append(errs, validateServer(server, p)...)
	}
	errs = append(errs, validateCommon(&v.Status, p.Child("commonEncodingVersion"))...)
	return append(errs, validateConditions(v.Status.Conditions, p)...)
}

func validateServer(s *internalv1alpha1.ServerStorageVersion, p *field.Path) field.ErrorList {
	errs := rules.Messages(p.Child("apiServerID"), s.APIServerID, apivalidation.NameIsDNSSubdomain(s.APIServerID, false))
	version := func(version string, p *field.Path) {
		if messages := apiVersionErrors(version); len(messages) > 0 {
			errs = append(errs, field.Invalid(p, version, strings.Join(messages, ",")))
		}
	}
	version(s.EncodingVersion, p.Child("encodingVersion"))
	decodable, served := p.Child("decodableVersions"), p.Child("servedVersions")
	for i, v := range s.DecodableVersions {
		version(v, decodable.Index(i))
	}
	if !slices.Contains(s.DecodableVersions, s.EncodingVersion) {
		errs = append(errs, field.Invalid(decodable, s.DecodableVersions, "decodableVersions must include encodingVersion "+s.EncodingVersion))
	}
	for i, v := range s.ServedVersions {
		version(v, served.Index(i))
		if !slices.Contains(s.DecodableVersions, v) {
			errs = append(errs, field.Invalid(served.Index(i), v, fmt.Sprintf("individual served version : %s must be included in decodableVersions : %s", v, s.DecodableVersions)))
		}
	}
	return errs
}

// validateCommon checks what is said to be the version that all servers write.
func validateCommon(s *internalv1alpha1.StorageVersionStatus, p *field.Path) field.ErrorList {
	common, agreed := "", len(s.StorageVersions) > 0
	for i, server := range s.StorageVersions {
		agreed = agreed && (i == 0 || server.EncodingVersion == common)
		common = server.EncodingVersion
	}
	switch said := s.CommonEncodingVersion; {
	case said == nil && agreed:
		return field.ErrorList{field.Invalid(p, said, "the common encoding version is "+common)}
	case said == nil:
		return nil
	case !agreed:
		return field.ErrorList{field.Invalid(p, *said, "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet")}
	case *said != common:
		return field.ErrorList{field.Invalid(p, *said, "the actual common encoding version is "+common)}
	}
	return nil
}

func validateConditions(conditions []internalv1alpha1.StorageVersionCondition, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[internalv1alpha1.StorageVersionConditionType]int{}
	for i, c := range conditions {
		p := p.Index(i) // the original leaves out "conditions"
		if first, ok := seen[c.Type]; ok {
			errs = append(errs, field.Invalid(p.Child("type"), string(c.Type), fmt.Sprintf("the type of the condition is not unique, it also appears in conditions[%d]", first)))
		}
		seen[c.Type] = i
		errs = append(errs, rules.Messages(p.Child("type"), string(c.Type), validation.IsQualifiedName(string(c.Type)))...)
		errs = append(errs, rules.Messages(p.Child("status"), string(c.Status), validation.IsQualifiedName(string(c.Status)))...)
		for _, f := range [][2]string{{"reason", c.Reason}, {"message", c.Message}} {
			if f[1] == "" {
				errs = append(errs, field.Required(p.Child(f[0]), ""))
			}
		}
	}
	return errs
}

// apiVersionErrors are what is wrong with an API version such as "apps/v1".
func apiVersionErrors(version string) []string {
	group, name, hasGroup := strings.Cut(version, "/")
	if !hasGroup {
		name = group
	}
	if strings.Contains(name, "/") {
		return []string{"an apiVersion is " + validation.RegexError(
			"a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
			"[a-z]([-a-z0-9]*[a-z0-9])?", "my-name", "abc-123") + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')"}
	}
	part := func(which, value string, check func(string) []string) []string {
		if value == "" {
			return []string{which + validation.EmptyError()}
		}
		return prefixed(which, check(value))
	}
	var messages []string
	if hasGroup {
		messages = part("group part: ", group, validation.IsDNS1123Subdomain)
	}
	return append(messages, part("version part: ", name, validation.IsDNS1035Label)...)
}

func prefixed(prefix string, messages []string) []string {
	for i := range messages {
		messages[i] = prefix + messages[i]
	}
	return messages
}
