package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
)

// AuthenticationInfo keeps the ConfigMap from which aggregated API servers learn
// which client certificates and which front proxies this server trusts. Both
// arguments may be nil.
func AuthenticationInfo(clientCA dynamiccertificates.CAContentProvider, proxy *authenticatorfactory.RequestHeaderConfig) Keeper {
	const name = "extension-apiserver-authentication"
	return Keeper{"start-cluster-authentication-info-controller", func(ctx context.Context, client kubernetes.Interface) error {
		want, err := authenticationInfo(clientCA, proxy)
		if err != nil {
			return err
		}
		api := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
		cm, err := api.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}, Data: want}
			_, err = api.Create(ctx, cm, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		have := maps.Clone(cm.Data)
		if cm.Data == nil {
			cm.Data = map[string]string{}
		}
		maps.Copy(cm.Data, want)
		if maps.Equal(have, cm.Data) {
			return nil
		}
		_, err = api.Update(ctx, cm, metav1.UpdateOptions{})
		return err
	}}
}

func authenticationInfo(clientCA dynamiccertificates.CAContentProvider, proxy *authenticatorfactory.RequestHeaderConfig) (map[string]string, error) {
	data := map[string]string{}
	if clientCA != nil {
		data["client-ca-file"] = string(clientCA.CurrentCABundleContent())
	}
	if proxy == nil {
		return data, nil
	}
	data["requestheader-client-ca-file"] = string(proxy.CAContentProvider.CurrentCABundleContent())
	for key, values := range map[string][]string{
		"requestheader-username-headers":     proxy.UsernameHeaders.Value(),
		"requestheader-uid-headers":          proxy.UIDHeaders.Value(),
		"requestheader-group-headers":        proxy.GroupHeaders.Value(),
		"requestheader-extra-headers-prefix": proxy.ExtraHeaderPrefixes.Value(),
		"requestheader-allowed-names":        proxy.AllowedClientNames.Value(),
	} {
		if values == nil {
			values = []string{}
		}
		text, err := json.Marshal(values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		data[key] = string(text)
	}
	return data, nil
}
