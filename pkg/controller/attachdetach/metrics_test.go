package attachdetach

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

func TestVolumesAreCounted(t *testing.T) {
	r := metrics.NewKubeRegistry()
	c := New(nil, &record.FakeRecorder{}, true, r)
	driver := func(name string) *wanted { return &wanted{name: name, driver: "d"} }
	here := func() attachment {
		return attachment{&storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "d"}}, "a"}
	}
	c.count("n1", []*wanted{driver("a"), driver("b")}, []attachment{here()})
	c.count("n2", []*wanted{driver("c")}, nil)
	c.count("n3", []*wanted{driver("c")}, nil)
	c.forget("n3")
	want := `
# HELP attachdetach_controller_total_volumes [ALPHA] Number of volumes that are to be attached, and that are
# TYPE attachdetach_controller_total_volumes gauge
attachdetach_controller_total_volumes{plugin_name="kubernetes.io/csi:d",state="actual_state_of_world"} 1
attachdetach_controller_total_volumes{plugin_name="kubernetes.io/csi:d",state="desired_state_of_world"} 3
# HELP storage_count_attachable_volumes_in_use [ALPHA] Number of volumes that pods on a node use
# TYPE storage_count_attachable_volumes_in_use gauge
storage_count_attachable_volumes_in_use{node="n1",volume_plugin="kubernetes.io/csi:d"} 2
storage_count_attachable_volumes_in_use{node="n2",volume_plugin="kubernetes.io/csi:d"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "attachdetach_controller_total_volumes", "storage_count_attachable_volumes_in_use"); err != nil {
		t.Error(err)
	}
}

// What may still be used when it goes is told apart from what is not.
func TestForced(t *testing.T) {
	inUse := []corev1.UniqueVolumeName{"a"}
	here := []attachment{{&storagev1.VolumeAttachment{}, "a"}}
	here[0].Name = "x"
	for name, c := range map[string]struct {
		node nodeState
		want string
	}{
		"not used":                   {},
		"used, and out of service":   {node: nodeState{inUse: inUse, outOfService: true}, want: "out-of-service"},
		"used on a node that is ill": {node: nodeState{inUse: inUse, unwell: true}, want: "timeout"},
	} {
		p := decide(c.node, nil, here, nil, func(string) time.Duration { return time.Hour }, true)
		if len(p.detach) != 1 || p.forced["x"] != c.want {
			t.Errorf("%s: %d detached, by force: %q", name, len(p.detach), p.forced["x"])
		}
	}
}
