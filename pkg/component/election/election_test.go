package election

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func configOf(t *testing.T, client *fake.Clientset, id string) leaderelection.LeaderElectionConfig {
	t.Helper()
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, "kube-system", "c", client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	return leaderelection.LeaderElectionConfig{Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second}
}

// Who stands by leads within two seconds of a clean stop, and not before the other's work is over.
func TestHandover(t *testing.T) {
	// By luck, whoever tries again only now and then may do so in time: not at each of these moments.
	for i := range 20 {
		synctest.Test(t, func(t *testing.T) { handOver(t, time.Minute+time.Duration(i)*200*time.Millisecond, 3*time.Second) })
		// Soon after the second has begun to look.
		synctest.Test(t, func(t *testing.T) { handOver(t, time.Duration(i)*50*time.Millisecond, 0) })
	}
}

// handOver stops the first of two after some time. It brings to its end what it began, which takes a while.
func handOver(t *testing.T, after, ending time.Duration) {
	client := fake.NewClientset()
	first, stopFirst := context.WithCancel(t.Context())
	second, stopSecond := context.WithCancel(t.Context())
	working := make(chan string, 2)
	ended := make(chan error, 2)
	var firstOver, secondBegan time.Time
	go func() {
		ended <- Run(first, configOf(t, client, "first"), func(ctx context.Context) error {
			working <- "first"
			<-ctx.Done()
			time.Sleep(ending)
			firstOver = time.Now()
			return nil
		})
	}()
	if who := <-working; who != "first" {
		t.Fatalf("%s leads", who)
	}
	go func() {
		ended <- Run(second, configOf(t, client, "second"), func(ctx context.Context) error {
			secondBegan = time.Now()
			working <- "second"
			<-ctx.Done()
			return nil
		})
	}()
	synctest.Wait()
	time.Sleep(after)
	if len(working) > 0 {
		t.Fatal("both lead")
	}
	stopFirst()
	if err := <-ended; err != nil {
		t.Errorf("a clean stop: %v", err)
	}
	<-working
	if d := secondBegan.Sub(firstOver); d < 0 || d > 2*time.Second {
		t.Errorf("the second leads %v after the first", d)
	}
	stopSecond()
	if err := <-ended; err != nil {
		t.Errorf("a clean stop: %v", err)
	}
}

// Who dies without a word is followed when its lease has run out.
func TestDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		if err := configOf(t, client, "dead").Lock.Create(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "dead", LeaseDurationSeconds: 15}); err != nil {
			t.Fatal(err)
		}
		began, done := time.Now(), errors.New("done")
		err := Run(t.Context(), configOf(t, client, "heir"), func(context.Context) error { return done })
		if !errors.Is(err, done) {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(began); d < 15*time.Second || d > 22*time.Second {
			t.Errorf("it leads after %v", d)
		}
	})
}

// Who cannot renew the lease stops and says so.
func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		err := Run(t.Context(), configOf(t, client, "first"), func(ctx context.Context) error {
			client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("no network")
			})
			<-ctx.Done()
			return nil
		})
		if !errors.Is(err, ErrLost) {
			t.Errorf("Run: %v", err)
		}
	})
}
