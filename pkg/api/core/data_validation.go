package core

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	frozen   = "field is immutable when `immutable` is set"
	redacted = "<secret contents redacted>"
)

// ValidateConfigMap says what is wrong with a new ConfigMap.
func ValidateConfigMap(cm *corev1.ConfigMap) field.ErrorList {
	var r report
	r.objectMeta(cm, true, apivalidation.NameIsDNSSubdomain, metaPath)
	size := 0
	for k, v := range ordered(cm.Data) {
		at := field.NewPath("data").Key(k)
		r.invalid(at, k, validation.IsConfigMapKey(k)...)
		_, twice := cm.BinaryData[k]
		r.invalidIf(twice, at, k, "duplicate of key present in binaryData")
		size += len(v)
	}
	for k, v := range ordered(cm.BinaryData) {
		r.invalid(field.NewPath("binaryData").Key(k), k, validation.IsConfigMapKey(k)...)
		size += len(v)
	}
	if size > corev1.MaxSecretSize {
		r.add(field.TooLong(field.NewPath(""), cm, corev1.MaxSecretSize))
	}
	return r.errs
}

// ValidateConfigMapUpdate says what is wrong with an update of a ConfigMap.
func ValidateConfigMapUpdate(cm, old *corev1.ConfigMap) field.ErrorList {
	var r report
	r.objectMetaUpdate(cm, old, metaPath)
	if isTrue(old.Immutable) {
		r.forbidIf(!isTrue(cm.Immutable), field.NewPath("immutable"), frozen)
		r.forbidIf(!maps.Equal(cm.Data, old.Data), field.NewPath("data"), frozen)
		r.forbidIf(!maps.EqualFunc(cm.BinaryData, old.BinaryData, bytes.Equal), field.NewPath("binaryData"), frozen)
	}
	r.merge(ValidateConfigMap(cm))
	return r.errs
}

// ValidateSecret says what is wrong with a new Secret. What is in it is not shown.
func ValidateSecret(secret *corev1.Secret) field.ErrorList {
	var r report
	r.objectMeta(secret, true, apivalidation.NameIsDNSSubdomain, metaPath)
	data, size := field.NewPath("data"), 0
	for k, v := range ordered(secret.Data) {
		r.invalid(data.Key(k), k, validation.IsConfigMapKey(k)...)
		size += len(v)
	}
	if size > corev1.MaxSecretSize {
		r.add(field.TooLong(data, "", corev1.MaxSecretSize))
	}
	need := func(keys ...string) {
		for _, k := range keys {
			_, ok := secret.Data[k]
			r.requireIf(!ok, data.Key(k), "")
		}
	}
	needJSON := func(k string) {
		v, ok := secret.Data[k]
		if !r.requireIf(!ok, data.Key(k), "") {
			return
		}
		if err := json.Unmarshal(v, &map[string]any{}); err != nil {
			r.invalid(data.Key(k), redacted, err.Error())
		}
	}
	switch secret.Type {
	case corev1.SecretTypeServiceAccountToken:
		r.requireIf(secret.Annotations[corev1.ServiceAccountNameKey] == "", metaPath.Child("annotations").Key(corev1.ServiceAccountNameKey), "")
	case corev1.SecretTypeDockercfg:
		needJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		needJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth: // one of the two is enough
		if _, ok := secret.Data[corev1.BasicAuthUsernameKey]; !ok {
			if _, ok := secret.Data[corev1.BasicAuthPasswordKey]; !ok {
				need(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
			}
		}
	case corev1.SecretTypeSSHAuth:
		r.requireIf(len(secret.Data[corev1.SSHAuthPrivateKey]) == 0, data.Key(corev1.SSHAuthPrivateKey), "")
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return r.errs
}

// ValidateSecretUpdate says what is wrong with an update of a Secret.
func ValidateSecretUpdate(secret, old *corev1.Secret) field.ErrorList {
	var r report
	r.objectMetaUpdate(secret, old, metaPath)
	r.immutable(secret.Type, old.Type, field.NewPath("type"))
	if isTrue(old.Immutable) {
		r.forbidIf(!isTrue(secret.Immutable), field.NewPath("immutable"), frozen)
		r.forbidIf(!maps.EqualFunc(secret.Data, old.Data, bytes.Equal), field.NewPath("data"), frozen)
	}
	r.merge(ValidateSecret(secret))
	return r.errs
}

// ValidateServiceAccount says what is wrong with a new ServiceAccount.
func ValidateServiceAccount(sa *corev1.ServiceAccount) field.ErrorList {
	var r report
	r.objectMeta(sa, true, apivalidation.NameIsDNSSubdomain, metaPath)
	return r.errs
}

// ValidateServiceAccountUpdate says what is wrong with an update of a ServiceAccount.
func ValidateServiceAccountUpdate(sa, old *corev1.ServiceAccount) field.ErrorList {
	var r report
	r.objectMetaUpdate(sa, old, metaPath)
	r.merge(ValidateServiceAccount(sa))
	return r.errs
}

// isQualified says whether a name has a domain.
func isQualified(name string) bool { return strings.Count(name, "/") == 1 }
