package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourceapi "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// bindable returns a client whose pods can be bound. Every so many bindings fail.
func bindable(fails int, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
	nameClaims(client)
	client.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
	// Nobody binds claims here. Half of the volumes cannot be written, so that their pods are turned back.
	volumes := 0
	client.PrependReactor("update", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		volumes++
		return volumes%2 == 1, nil, apierrors.NewInternalError(errors.New("the volume cannot be written"))
	})
	bindings := 0
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		if bindings++; bindings%fails == 0 {
			return true, nil, apierrors.NewInternalError(errors.New("the binding failed"))
		}
		b, ok := create.GetObject().(*v1.Binding)
		if !ok {
			return false, nil, nil
		}
		obj, err := client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), b.Namespace, b.Name)
		if err != nil {
			return true, nil, err
		}
		pod := obj.(*v1.Pod).DeepCopy()
		pod.Spec.NodeName = b.Target.Name
		return true, b, client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, b.Namespace)
	})
	return client
}

// busy is a cluster of many sorts of nodes and pods.
type busy struct {
	t      *testing.T
	client *fake.Clientset
	rand   *rand.Rand
}

const pods, nodes = 300, 24

func newBusy(t *testing.T, seed uint64) *busy {
	r := rand.New(rand.NewPCG(seed, seed))
	objects := []runtime.Object{
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: v1.ServiceSpec{Selector: map[string]string{"app": "web"}}},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)},
		&resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}},
		&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:   policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 2}},
	}
	for i := range nodes {
		name := fmt.Sprintf("n%02d", i)
		node := makeNode(name, "8", "16Gi", zone(fmt.Sprint("z", i%3)))
		switch i % 7 {
		case 3:
			node.Spec.Taints = []v1.Taint{{Key: "old", Effect: v1.TaintEffectPreferNoSchedule}}
		case 5:
			node.Spec.Taints = []v1.Taint{{Key: "gpu", Effect: v1.TaintEffectNoSchedule}}
		}
		node.Status.Images = []v1.ContainerImage{{Names: []string{"busybox"}, SizeBytes: int64(i%2) * 500 << 20}}
		objects = append(objects, node, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if i%3 == 0 {
			slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceSliceSpec{
				Driver: "gpu.example.com", NodeName: &name, Pool: resourceapi.ResourcePool{Name: name, Generation: 1, ResourceSliceCount: 1},
			}}
			for d := range 3 {
				slice.Spec.Devices = append(slice.Spec.Devices, resourceapi.Device{Name: fmt.Sprint("g", d)})
			}
			objects = append(objects, slice)
		}
	}
	for i := range 12 {
		objects = append(objects, &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("v%02d", i)},
			Spec: v1.PersistentVolumeSpec{
				StorageClassName: "local", AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
				Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")},
				NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
					MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{fmt.Sprintf("n%02d", r.IntN(nodes))}}},
				}}}},
				PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: "/x"}},
			},
			Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable},
		})
	}
	return &busy{t, bindable(9, objects...), r}
}

// pod is one that asks for something, with what it needs made before it.
func (b *busy) pod(i int) *v1.Pod {
	name := fmt.Sprintf("p%03d", i)
	p := makePod(name, fmt.Sprint(100+b.rand.IntN(1500), "m"), "256Mi", labelled("app", []string{"web", "db", "job"}[i%3]), priority(int32(b.rand.IntN(4))))
	switch b.rand.IntN(10) {
	case 0:
		near(term(zoneKey, "web"))(p)
	case 1:
		apart(term(v1.LabelHostname, "db"))(p)
	case 2:
		spread(zoneKey, 1, v1.DoNotSchedule)(p)
	case 3:
		p.Spec.Tolerations = []v1.Toleration{{Key: "gpu", Operator: v1.TolerationOpExists}}
	case 4:
		p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: int32(8000 + b.rand.IntN(3)), ContainerPort: 80}}
	case 5:
		b.make(&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("local"), AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
		}}, "persistentvolumeclaims")
		p.Spec.Volumes = []v1.Volume{{Name: "data", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
	case 6:
		claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: p.UID + "-claim"}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
			Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1}}},
		}}}
		if err := b.client.Tracker().Create(resourceapi.SchemeGroupVersion.WithResource("resourceclaims"), claim, "default"); err != nil {
			b.t.Fatal(err)
		}
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
	case 7:
		p.Spec.NodeSelector = map[string]string{zoneKey: fmt.Sprint("z", b.rand.IntN(4))} // there is no z3
	case 8:
		asking(resourceapi.ResourceDeviceClassPrefix+"gpu", "1")(p)
	}
	return p
}

func (b *busy) make(obj runtime.Object, resource string) {
	if err := b.client.Tracker().Create(v1.SchemeGroupVersion.WithResource(resource), obj, "default"); err != nil {
		b.t.Fatal(err)
	}
}

// recording runs a scheduler on a busy cluster and returns the file that it records to.
func recording(t *testing.T, seed uint64) string {
	t.Helper()
	b := newBusy(t, seed)
	file := filepath.Join(t.TempDir(), "log")
	c := config.Default()
	*c.LeaderElection.LeaderElect = false
	s, err := assemble(t.Context(), Config{
		KubeConfig: &rest.Config{Host: "https://192.0.2.1"}, Component: c, Plugins: plugins.Registry(), MaxUnschedulable: time.Minute, RecordTo: file, RecordLimit: 1 << 30,
	}, b.client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for i := range pods {
		b.make(b.pod(i), "pods")
		if i%10 == 9 { // something else happens meanwhile
			node, err := b.client.Tracker().Get(v1.SchemeGroupVersion.WithResource("nodes"), "", fmt.Sprintf("n%02d", b.rand.IntN(nodes)))
			if err != nil {
				t.Fatal(err)
			}
			changed := node.(*v1.Node).DeepCopy()
			changed.Spec.Unschedulable = !changed.Spec.Unschedulable
			if err := b.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("nodes"), changed, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	componenttest.EventuallyTold(t, "all pods to be tried", func() (bool, string) {
		active, _, _, _ := s.queue.Counts()
		_, tried := s.why.Get("default", fmt.Sprintf("p%03d", pods-1))
		return active == 0 && tried, fmt.Sprintf("%d pods are in the queue", active)
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return file
}

// replayed replays a recording and returns all decisions.
func replayed(t *testing.T, file string, c *configv1.KubeSchedulerConfiguration) []record.Replayed {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var all []record.Replayed
	if err := Replay(t.Context(), in, ReplayConfig{Component: c, Plugins: plugins.Registry()}, func(_ record.Header, r record.Replayed) error {
		all = append(all, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// What was decided in a busy cluster is decided again, bit for bit; another
// configuration decides otherwise.
func TestReplay(t *testing.T) {
	file := recording(t, 1)
	t.Run("the recording is whole", func(t *testing.T) { isWhole(t, file) })
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the recording has mode %v, %v", info.Mode(), err)
	}
	all := replayed(t, file, nil)
	placed, victims, refused := 0, 0, map[string]bool{}
	for i, r := range all {
		if !r.Same {
			t.Errorf("decision %d of %d, about %s: recorded was\n%+v\nand now is\n%+v", i, len(all), r.Recorded.Name, r.Recorded.Outcome, r.Now)
		}
		if r.Now.Node != "" {
			placed++
		} else {
			refused[r.Now.Message] = true
		}
		victims += len(r.Now.Victims)
	}
	if len(all) < pods || placed < pods/3 || victims == 0 || len(refused) < 3 {
		t.Errorf("of %d decisions %d found a node, %d pods were preempted, and there are %d reasons why not: this proves little", len(all), placed, victims, len(refused))
	}

	packed := config.Default()
	for _, a := range packed.Profiles[0].PluginConfig {
		if fit, ok := a.Args.Object.(*configv1.NodeResourcesFitArgs); ok {
			fit.ScoringStrategy.Type = configv1.MostAllocated
		}
	}
	packed.Profiles[0].Plugins.Score.Disabled = []configv1.Plugin{{Name: "NodeResourcesBalancedAllocation"}}
	other := replayed(t, file, packed)
	elsewhere := slices.ContainsFunc(other, func(r record.Replayed) bool {
		return r.Now.Node != "" && r.Recorded.Node != "" && r.Now.Node != r.Recorded.Node
	})
	if len(other) != len(all) || !elsewhere {
		t.Errorf("to pack nodes makes no difference in %d of %d decisions", len(other), len(all))
	}

	var page strings.Builder
	p := record.NewPage(&page)
	p.Differing = true
	for _, r := range other {
		p.Add(r)
	}
	if err := p.End(); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(page.String(), "\n"); p.All != len(all) || p.Other == 0 || lines != p.Other+3 {
		t.Errorf("the page has %d lines for %d decisions, %d of them otherwise:\n%s", lines, p.All, p.Other, page.String())
	}
}

// isWhole checks that what happens beside the decisions is in the recording as well:
// placements that were taken back, and what plugins learnt by writing.
func isWhole(t *testing.T, file string) {
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	log, err := record.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	saw, noted, undone := map[string]int{}, map[string]int{}, 0
	for {
		e, err := log.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Saw != nil:
			saw[fmt.Sprintf("%T", e.Saw.Object.Object)]++
		case e.Noted != nil:
			noted[e.Noted.Plugin+" "+e.Noted.What]++
		case e.Undone != nil:
			undone++
		}
	}
	if undone == 0 || noted["DynamicResources written"] == 0 || noted["VolumeBinding forgotten"] == 0 {
		t.Errorf("%d placements were taken back, noted is %v", undone, noted)
	}
	for _, kind := range []string{"*v1.Pod", "*v1.Node", "*v1.Service", "*v1.PersistentVolumeClaim", "*v1.ResourceClaim", "*v1.ResourceSlice", "*v1.PodDisruptionBudget", "*v1.CSINode"} {
		if saw[kind] == 0 {
			t.Errorf("no %s was seen: %v", kind, saw)
		}
	}
}

// curious is a plugin that reads objects of which recordings know nothing.
type curious struct{}

func (curious) Name() string { return "Curious" }

func (curious) PreEnqueue(context.Context, *v1.Pod) *fwk.Status { return nil }

// No kind of objects that decisions may depend on is left out of a recording unnoticed:
// with all plugins there is none, and a plugin that reads another one cannot be recorded.
func TestWhatPluginsReadIsRecorded(t *testing.T) {
	registry := plugins.Registry()
	registry["Curious"] = func(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
		h.SharedInformerFactory().Core().V1().ConfigMaps().Informer()
		return curious{}, nil
	}
	for _, tc := range []struct {
		plugin, want string
	}{
		{"", ""},
		{"Curious", "--record-to: plugins read objects that are not recorded: v1.ConfigMap"},
	} {
		c := config.Default()
		if tc.plugin != "" {
			c.Profiles[0].Plugins.MultiPoint.Enabled = []configv1.Plugin{{Name: tc.plugin}}
		}
		s, err := assemble(t.Context(), Config{
			KubeConfig: &rest.Config{Host: "https://192.0.2.1"}, Component: c, Plugins: registry, RecordTo: filepath.Join(t.TempDir(), "log"), RecordLimit: 1 << 20,
		}, bindable(2))
		if err != nil {
			t.Fatal(err)
		}
		ready, err := s.watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := ready(); fmt.Sprint(err) != tc.want && (err != nil || tc.want != "") {
			t.Errorf("%q: %v, want %q", tc.plugin, err, tc.want)
		}
	}
}

// A decision that depends on the time is made again as of the time that it was made at.
func TestReplayIsOnTime(t *testing.T) {
	allocated := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	claim := deviceClaim("c", given("a", "g0"), func(c *resourceapi.ResourceClaim) {
		c.Status.Allocation.AllocationTimestamp = ptr.To(metav1.NewTime(allocated))
		c.Status.Allocation.Devices.Results[0].BindingConditions = []string{"attached"}
	})
	pod := makePod("p", "1", "1Gi", wants("c"))
	configuration, err := config.Encode(config.Default(), runtime.ContentTypeJSON)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "log")
	r, err := record.Create(file, 1<<20, record.Header{Configuration: configuration})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []runtime.Object{makeNode("a", "8", "16Gi"), claim, pod} {
		r.Change(t.Context(), func() record.Entry { return record.Entry{Saw: &record.Saw{Object: record.Object{Object: o}}} }, func() {})
	}
	for _, after := range []time.Duration{time.Hour, time.Minute} {
		r.Decide(t.Context(), func(context.Context) *record.Decided {
			return &record.Decided{Pod: record.Pod{Namespace: "default", Name: "p", UID: "p"}, Attempt: 1, Time: allocated.Add(after)}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ended)
	all := replayed(t, file, nil)
	if len(all) != 2 || !strings.Contains(all[0].Now.Message, "resourceclaim not available on the node") || all[1].Now.Node != "a" {
		t.Errorf("an hour later, and a minute later, it is decided %+v", all)
	}
}

func TestReplayRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	header := func(configuration string) *bytes.Buffer {
		r, err := record.Create(file, 1<<20, record.Header{Configuration: []byte(configuration)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r.Run(ctx)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewBuffer(data)
	}
	const kind = `"apiVersion":"kubescheduler.config.k8s.io/v1","kind":"KubeSchedulerConfiguration"`
	for _, tc := range []struct {
		in   *bytes.Buffer
		want string
	}{
		{bytes.NewBufferString("hello"), "this is no recording of a scheduler"},
		{header(`{}`), "the recorded configuration"},
		{header(`{` + kind + `,"profiles":[{"plugins":{"filter":{"enabled":[{"name":"Mine"}]}}}]}`), "Mine"},
		{header(`{` + kind + `,"extenders":[{"urlPrefix":"http://x","filterVerb":"f"}]}`), "extenders"},
		{header(`{` + kind + `}`), ""},
	} {
		err := Replay(t.Context(), tc.in, ReplayConfig{Plugins: plugins.Registry()}, func(record.Header, record.Replayed) error { return nil })
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}
