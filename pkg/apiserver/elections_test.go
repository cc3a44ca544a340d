package apiserver_test

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestCoordinatedElection lets two components stand for a lease, of which the second emulates an older version.
func TestCoordinatedElection(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags(
		"--feature-gates=CoordinatedLeaderElection=true", "--runtime-config=coordination.k8s.io/v1beta1=true")).Client(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	stand := func(name, emulation string) <-chan struct{} {
		t.Helper()
		leads := make(chan struct{})
		candidate, _, err := leaderelection.NewCandidate(c, "default", name, "component", "1.37.0", emulation, coordinationv1.OldestEmulationVersion)
		if err != nil {
			t.Fatal(err)
		}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: "component"}, Client: c.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { close(leads) }, OnStoppedLeading: func() {},
			},
			Coordinated: true, Name: "component",
		})
		if err != nil {
			t.Fatal(err)
		}
		go candidate.Run(ctx)
		go elector.Run(ctx)
		return leads
	}
	await := func(name string, leads <-chan struct{}) {
		t.Helper()
		select {
		case <-leads:
		case <-time.After(2 * time.Minute):
			lease, err := c.CoordinationV1().Leases("default").Get(ctx, "component", metav1.GetOptions{})
			t.Fatalf("%s does not lead: %v, %v", name, lease.Spec, err)
		}
	}
	await("the first", stand("first", "1.37.0"))
	await("the second", stand("second", "1.36.0"))

	lease, err := c.CoordinationV1().Leases("kube-system").Get(ctx, "leader-election-controller", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		t.Errorf("no server elects: %v", err)
	}
}
