package bootstrap

import (
	"context"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

const (
	// identityLabel tells the leases of servers from others.
	identityLabel = "apiserver.kubernetes.io/identity"
	identity      = "kube-apiserver"
	// IdentitySelector selects these leases by their labels.
	IdentitySelector = identityLabel + "=" + identity

	// identityLife is how long a server that does not renew its lease is thought to live.
	identityLife = time.Hour
	// identityRenewal leaves time to try again, and is seldom enough for an idle cluster.
	identityRenewal = 10 * time.Minute
)

// Identity keeps the lease by which others know that this server, called id, is there, and where
// they reach it, unless that is empty.
func Identity(client kubernetes.Interface, id, address string) server.PostStartHookFunc {
	return func(hc server.PostStartHookContext) error {
		c := lease.NewController(clock.RealClock{}, client, id+"_"+string(uuid.NewUUID()), int32(identityLife.Seconds()), nil, identityRenewal,
			id, metav1.NamespaceSystem, func(l *coordinationv1.Lease) error {
				metav1.SetMetaDataLabel(&l.ObjectMeta, identityLabel, identity)
				if address != "" {
					metav1.SetMetaDataAnnotation(&l.ObjectMeta, corev1.AnnotationPeerAdvertiseAddress, address)
				}
				host, err := os.Hostname()
				metav1.SetMetaDataLabel(&l.ObjectMeta, corev1.LabelHostname, host)
				return err
			})
		go func() {
			if namespaceExists(hc.Context, client) {
				c.Run(hc.Context)
			}
		}()
		return nil
	}
}

// namespaceExists waits for the namespace of leases, which a new cluster gets at the same
// time. It is false when the server ends first.
func namespaceExists(ctx context.Context, client kubernetes.Interface) bool {
	return wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		return err == nil, nil
	}) == nil
}

// ExpiredIdentities removes the leases of servers that are long gone.
func ExpiredIdentities(client kubernetes.Interface) server.PostStartHookFunc {
	return func(hc server.PostStartHookContext) error {
		go wait.JitterUntilWithContext(hc.Context, func(ctx context.Context) {
			if err := removeExpired(ctx, client, time.Now()); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Removing the leases of servers that are gone")
			}
		}, identityLife, 0.1, true)
		return nil
	}
}

func removeExpired(ctx context.Context, client kubernetes.Interface, now time.Time) error {
	api := client.CoordinationV1().Leases(metav1.NamespaceSystem)
	all, err := api.List(ctx, metav1.ListOptions{LabelSelector: IdentitySelector})
	if err != nil {
		return err
	}
	for _, l := range all.Items {
		if !expired(&l, now) {
			continue
		}
		err := api.Delete(ctx, l.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr.To(l.ResourceVersion)}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// expired says whether nobody renews the lease. One that does not say is nobody's.
func expired(l *coordinationv1.Lease, now time.Time) bool {
	s := l.Spec
	return s.RenewTime == nil || s.LeaseDurationSeconds == nil || s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds)*time.Second).Before(now)
}
