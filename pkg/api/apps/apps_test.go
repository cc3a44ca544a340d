package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestDeployment(t *testing.T) {
	apitest.Run(t, "testdata/deployment.txtar", apitest.Kind[appsv1.Deployment, *appsv1.Deployment]{
		Path:        "/apis/apps/v1/namespaces/default/deployments",
		AddDefaults: AddDefaults,
		Create:      ValidateDeployment,
		Update:      ValidateDeploymentUpdate,
		Status:      ValidateDeploymentStatusUpdate,
	})
}

func TestReplicaSet(t *testing.T) {
	apitest.Run(t, "testdata/replicaset.txtar", apitest.Kind[appsv1.ReplicaSet, *appsv1.ReplicaSet]{
		Path:        "/apis/apps/v1/namespaces/default/replicasets",
		AddDefaults: AddDefaults,
		Create:      ValidateReplicaSet,
		Update:      ValidateReplicaSetUpdate,
		Status:      ValidateReplicaSetStatusUpdate,
	})
}

func TestDaemonSet(t *testing.T) {
	apitest.Run(t, "testdata/daemonset.txtar", apitest.Kind[appsv1.DaemonSet, *appsv1.DaemonSet]{
		Path:        "/apis/apps/v1/namespaces/default/daemonsets",
		AddDefaults: AddDefaults,
		Create:      ValidateDaemonSet,
		Update:      ValidateDaemonSetUpdate,
		Status:      ValidateDaemonSetStatusUpdate,
	})
}

func TestStatefulSet(t *testing.T) {
	apitest.Run(t, "testdata/statefulset.txtar", apitest.Kind[appsv1.StatefulSet, *appsv1.StatefulSet]{
		Path:        "/apis/apps/v1/namespaces/default/statefulsets",
		AddDefaults: AddDefaults,
		Create:      ValidateStatefulSet,
		Update:      ValidateStatefulSetUpdate,
		Status:      ValidateStatefulSetStatusUpdate,
	})
}

func TestControllerRevision(t *testing.T) {
	apitest.Run(t, "testdata/controllerrevision.txtar", apitest.Kind[appsv1.ControllerRevision, *appsv1.ControllerRevision]{
		Path:        "/apis/apps/v1/namespaces/default/controllerrevisions",
		AddDefaults: AddDefaults,
		Create:      ValidateControllerRevision,
		Update:      ValidateControllerRevisionUpdate,
	})
}
