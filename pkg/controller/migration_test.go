package controller_test

import (
	"context"
	"fmt"
	"testing"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testMigration(t *testing.T, shared *cluster) {
	c := shared.in(t)
	migrations := c.cs.StoragemigrationV1().StorageVersionMigrations()
	for _, resource := range []string{"configmaps", "unheardof"} {
		_, err := migrations.Create(t.Context(), &storagemigrationv1.StorageVersionMigration{
			ObjectMeta: metav1.ObjectMeta{Name: c.ns + "-" + resource}, Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: resource}},
		}, metav1.CreateOptions{})
		c.must(err)
	}
	is := func(what, resource string, condition storagemigrationv1.MigrationConditionType, status metav1.ConditionStatus) {
		t.Helper()
		c.eventually(what, func(ctx context.Context) (bool, string) {
			m, err := migrations.Get(ctx, c.ns+"-"+resource, metav1.GetOptions{})
			c.must(err)
			found := meta.FindStatusCondition(m.Status.Conditions, string(condition))
			return found != nil && found.Status == status, fmt.Sprintf("%+v", m.Status)
		})
	}
	is("all objects written", "configmaps", storagemigrationv1.MigrationSucceeded, metav1.ConditionTrue)
	is("the next one's turn", "configmaps", storagemigrationv1.MigrationRunning, metav1.ConditionFalse)
	is("a resource that may come", "unheardof", storagemigrationv1.MigrationRunning, metav1.ConditionTrue)
}
