package images

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
	"github.com/leme-k8s/leme/pkg/kubelet/pods"
)

// service is a runtime's images, and a registry that asks for the password of private ones.
type service struct {
	cri.ImageManagerService
	there  map[string]bool
	down   bool
	pulled []string
	images []*runtimeapi.Image
	inUse  []*runtimeapi.Container
	dir    string
}

func (s *service) ImageStatus(_ context.Context, i *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	if s.there[i.Image] {
		return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:" + i.Image, Size: 1000}}, nil
	}
	return &runtimeapi.ImageStatusResponse{}, nil
}

func (s *service) PullImage(_ context.Context, i *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	s.pulled = append(s.pulled, i.Image+" as "+auth.GetUsername())
	if s.down {
		return "", status.Error(codes.Unavailable, "no route to registry")
	}
	if strings.Contains(i.Image, "private") && auth.GetPassword() != "right" {
		return "", status.Error(codes.PermissionDenied, "authorization failed")
	}
	s.there[i.Image] = true
	return "sha256:" + i.Image, nil
}

func (s *service) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return s.images, nil
}

func (s *service) RemoveImage(_ context.Context, i *runtimeapi.ImageSpec) error {
	s.images = slices.DeleteFunc(s.images, func(x *runtimeapi.Image) bool { return x.Id == i.Image })
	return nil
}

func (s *service) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return s.inUse, nil
}

func (s *service) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: s.dir}}}}, nil
}

type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if o, ok := s[name]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

func dockerSecret(name, registry, user, password string) *corev1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: "uid-of-secret"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, registry, auth)}}
}

func request(image string, policy corev1.PullPolicy, pullSecrets ...string) pods.ImageRequest {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "pod-uid"}}
	for _, s := range pullSecrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	return pods.ImageRequest{Pod: p, Object: &corev1.ObjectReference{Kind: "Pod", Name: "pod"}, Image: image, Policy: policy}
}

func TestEnsure(t *testing.T) {
	preloaded := []string{"there:1", "private.io/there:1"}
	for _, tc := range []struct {
		name   string
		req    pods.ImageRequest
		ref    string
		reason string
		pulled []string
		event  string // the last one
	}{
		{name: "present", req: request("there:1", corev1.PullIfNotPresent), ref: "sha256:there:1", event: "Normal Pulled Container image \"there:1\" already present"},
		{name: "always", req: request("there:1", corev1.PullAlways), ref: "sha256:there:1", pulled: []string{"there:1 as "}, event: "Normal Pulled Successfully pulled image \"there:1\" in "},
		{name: "no tag", req: request("new", corev1.PullIfNotPresent), ref: "sha256:new:latest", pulled: []string{"new:latest as "}},
		{name: "never", req: request("new", corev1.PullNever), reason: "ErrImageNeverPull", event: "Warning ErrImageNeverPull Container image \"new\" is not present with pull policy of Never"},
		{name: "never, but there", req: request("there:1", corev1.PullNever), ref: "sha256:there:1"},
		{name: "bad name", req: request("Not/A:Name", corev1.PullAlways), reason: "InvalidImageName", event: "Warning InspectFailed Failed to apply default image tag"},
		{name: "preloaded is trusted", req: request("private.io/there:1", corev1.PullIfNotPresent), ref: "sha256:private.io/there:1"},
		{name: "refused", req: request("private.io/x:1", corev1.PullAlways), reason: "ErrImagePull", pulled: []string{"private.io/x:1 as "}, event: "Warning Failed Failed to pull image \"private.io/x:1\": rpc error: code = PermissionDenied"},
		{name: "with a secret", req: request("private.io/x:1", corev1.PullAlways, "good"), ref: "sha256:private.io/x:1", pulled: []string{"private.io/x:1 as good"}},
		{name: "one secret after another", req: request("private.io/x:1", corev1.PullAlways, "missing", "bad", "good"), ref: "sha256:private.io/x:1",
			pulled: []string{"private.io/x:1 as bad", "private.io/x:1 as good"}},
		{name: "a secret for another registry", req: request("private.org/x:1", corev1.PullAlways, "good"), reason: "ErrImagePull", pulled: []string{"private.org/x:1 as "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &service{there: map[string]bool{}}
			for _, i := range preloaded {
				s.there[i] = true
			}
			records, err := NewRecords(t.TempDir(), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			events := record.NewFakeRecorder(20)
			m := New(Config{Images: s, Recorder: events, Records: records, Parallel: 1,
				Secrets: secrets{"good": dockerSecret("good", "https://private.io/v1/", "good", "right"), "bad": dockerSecret("bad", "private.io", "bad", "wrong")}})
			ref, err := m.Ensure(t.Context(), tc.req)
			var reasoned pods.Reasoned
			if tc.reason != "" && (!errors.As(err, &reasoned) || reasoned.Reason() != tc.reason) || tc.reason == "" && err != nil {
				t.Fatalf("error %v, want %s", err, tc.reason)
			}
			if ref != tc.ref {
				t.Errorf("reference %q, want %q", ref, tc.ref)
			}
			if d := cmp.Diff(tc.pulled, s.pulled); d != "" {
				t.Error(d)
			}
			last := ""
			for len(events.Events) > 0 {
				last = <-events.Events
			}
			if !strings.HasPrefix(last, tc.event) {
				t.Errorf("event %q, want %q", last, tc.event)
			}
		})
	}
}

func TestBackOff(t *testing.T) {
	s := &service{there: map[string]bool{}, down: true}
	records, err := NewRecords(t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	clk := clocktesting.NewFakeClock(time.Now())
	m := New(Config{Images: s, Recorder: record.NewFakeRecorder(100), Records: records, Secrets: secrets{}, Clock: clk})
	ensure := func() *Error {
		t.Helper()
		_, err := m.Ensure(t.Context(), request("a:1", corev1.PullIfNotPresent))
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		return e
	}
	if e := ensure(); e.Reason() != "ErrImagePull" {
		t.Errorf("first: %s", e.Reason())
	}
	for _, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		clk.Step(time.Second)
		e := ensure()
		if e.Reason() != "ImagePullBackOff" || !strings.Contains(e.Error(), "no route to registry") {
			t.Fatalf("while waiting: %s %v", e.Reason(), e)
		}
		if left := e.RetryAt().Sub(clk.Now()); left <= 0 || left > wait {
			t.Errorf("retry in %v, want at most %v", left, wait)
		}
		clk.SetTime(e.RetryAt().Add(time.Millisecond))
		if e := ensure(); e.Reason() != "ErrImagePull" {
			t.Errorf("after %v: %s", wait, e.Reason())
		}
	}
	if len(s.pulled) != 4 {
		t.Errorf("%d pulls", len(s.pulled))
	}
	s.down = false
	clk.Step(maxBackOff)
	if e := ensure(); e != nil {
		t.Errorf("after the registry came back: %v", e)
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	open := func(policy kubeletconfig.ImagePullCredentialsVerificationPolicy, allow ...string) *Records {
		t.Helper()
		r, err := NewRecords(dir, policy, allow)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open(kubeletconfig.NeverVerifyPreloadedImages)
	mine, other := SecretCredential{UID: "1", Namespace: "a", Name: "s", Hash: "h"}, SecretCredential{UID: "2", Namespace: "b", Name: "t", Hash: "x"}
	pull := func(image, ref string, by *SecretCredential) {
		t.Helper()
		if err := r.Intend(image); err != nil {
			t.Fatal(err)
		}
		if err := r.Pulled(image, ref, by, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	pull("reg/private:1", "ref-private", &mine)
	pull("reg/public:1", "ref-public", nil)
	if err := r.Intend("reg/interrupted:1"); err != nil {
		t.Fatal(err)
	}
	r = open(kubeletconfig.NeverVerifyPreloadedImages) // another life
	for _, tc := range []struct {
		image, ref string
		have       []SecretCredential
		want       bool
	}{
		{"reg/preloaded:1", "ref-preloaded", nil, true},
		{"reg/private:1", "ref-private", nil, false},
		{"reg/private:1", "ref-private", []SecretCredential{other}, false},
		{"reg/private:1", "ref-private", []SecretCredential{other, mine}, true},
		{"reg/private@sha256:abc", "ref-private", []SecretCredential{mine}, true},
		{"other/name:1", "ref-private", []SecretCredential{mine}, false},
		{"reg/public:1", "ref-public", nil, true},
		{"reg/interrupted:1", "ref-interrupted", nil, false},
	} {
		if got := r.Allowed(tc.image, tc.ref, tc.have); got != tc.want {
			t.Errorf("%s with %v: %v", tc.image, tc.have, got)
		}
	}
	for policy, want := range map[kubeletconfig.ImagePullCredentialsVerificationPolicy][3]bool{ // private, preloaded, preloaded and listed
		kubeletconfig.NeverVerify:                  {true, true, true},
		kubeletconfig.NeverVerifyPreloadedImages:   {false, true, true},
		kubeletconfig.NeverVerifyAllowlistedImages: {false, false, true},
		kubeletconfig.AlwaysVerify:                 {false, false, false},
	} {
		r := open(policy, "listed/*")
		got := [3]bool{r.Allowed("reg/private:1", "ref-private", nil), r.Allowed("reg/x:1", "ref-x", nil), r.Allowed("listed/x:1", "ref-x", nil)}
		if got != want {
			t.Errorf("%s: %v, want %v", policy, got, want)
		}
	}
	// The files are the original's: their names, and their kind.
	b, err := os.ReadFile(filepath.Join(dir, "image_manager/pulled", "sha256-"+hexOf("ref-public")))
	if err != nil || !strings.HasPrefix(string(b), `{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1",`) {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := NewRecords(dir, "Sometimes", nil); err == nil {
		t.Error("an unknown policy was taken")
	}
}

func TestCredentials(t *testing.T) {
	for _, tc := range []struct {
		registry, image string
		want            bool
	}{
		{"https://index.docker.io/v1/", "nginx", true},
		{"docker.io", "library/nginx:1", true},
		{"docker.io", "docker.io/library/nginx", true},
		{"docker.io", "quay.io/x/nginx", false},
		{"quay.io", "quay.io/x/y:1", true},
		{"quay.io/x", "quay.io/x/y:1", true},
		{"quay.io/z", "quay.io/x/y:1", false},
		{"*.example.com", "a.example.com/x", true},
		{"*.example.com", "a.b.example.com/x", false},
		{"example.com:5000", "example.com:5000/x", true},
		{"example.com", "example.com:5000/x", false},
		{"localhost:5000", "localhost:5000/x", true},
	} {
		creds, err := ParseSecret(dockerSecret("s", tc.registry, "u", "p"))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(creds.For(tc.image)) == 1; got != tc.want {
			t.Errorf("%s for %s: %v", tc.registry, tc.image, got)
		}
	}
	bad := dockerSecret("s", "r", "u", "p")
	bad.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths": "hunter2"}`)
	if _, err := ParseSecret(bad); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a broken secret: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"r.io":{"username":"u","password":"p"},"r.io/deep":{"username":"v"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	creds, err := NodeCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := creds.For("r.io/deep/x"); len(got) != 2 || got[0].username != "v" {
		t.Errorf("the most particular is not first: %v", len(got))
	}
}

func TestNodeImages(t *testing.T) {
	s := &service{images: []*runtimeapi.Image{{Id: "1", Size: 10, RepoTags: []string{"a:1"}, RepoDigests: []string{"a@sha256:1"}}, {Id: "2", Size: 30, RepoTags: []string{"b:1", "b:2", "b:3", "b:4", "b:5", "b:6"}}, {Id: "3", Size: 20}}}
	got, err := (Lister{Images: s, Max: 2}).NodeImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].SizeBytes != 30 || len(got[0].Names) != 5 || got[1].SizeBytes != 20 {
		t.Errorf("%+v", got)
	}
}

func TestExcess(t *testing.T) {
	r := Retention{High: 85, Low: 80}
	for _, tc := range []struct{ capacity, available, want uint64 }{
		{1000, 500, 0}, {1000, 160, 0}, {1000, 150, 50}, {1000, 0, 200}, {0, 0, 0}, {1000, 2000, 0},
	} {
		if got := r.excess(tc.capacity, tc.available); got != tc.want {
			t.Errorf("%d of %d: %d, want %d", tc.available, tc.capacity, got, tc.want)
		}
	}
	for _, bad := range []Retention{{High: 101}, {High: 80, Low: 80}, {High: 90, Low: -1}, {High: 90, MinAge: 2, MaxAge: 1}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestCollect(t *testing.T) {
	image := func(id string, pinned bool) *runtimeapi.Image {
		return &runtimeapi.Image{Id: id, Size: 100, RepoTags: []string{id + ":1"}, Pinned: pinned}
	}
	s := &service{dir: t.TempDir(), images: []*runtimeapi.Image{image("used", false), image("old", false), image("pinned", true)},
		inUse: []*runtimeapi.Container{{ImageRef: "used"}}}
	records, err := NewRecords(t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	clk := clocktesting.NewFakeClock(time.Now())
	c := &Collector{Images: s, Containers: s, Records: records, Retention: Retention{High: 100, Low: 80, MinAge: time.Minute, MaxAge: time.Hour},
		Recorder: record.NewFakeRecorder(10), Node: &corev1.ObjectReference{}, Clock: clk}
	registry := metrictest.New(c)
	ids := func() string {
		var out []string
		for _, i := range s.images {
			out = append(out, i.Id)
		}
		return strings.Join(out, " ")
	}
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got != "used old pinned" {
		t.Errorf("after the first look: %s", got)
	}
	clk.Step(2 * time.Hour)
	s.images = append(s.images, image("young", false))
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got != "used pinned young" {
		t.Errorf("after its age: %s", got)
	}
	now := clk.Now()
	picked := choose([]seen{{ref: "a", size: 10, detected: now.Add(-time.Hour)}, {ref: "b", size: 10, detected: now}, {ref: "c", size: 10, detected: now.Add(-time.Hour)}, {ref: "d", size: 10}}, 15, now, time.Minute)
	if len(picked) != 2 || picked[0].ref != "a" || picked[1].ref != "c" {
		t.Errorf("picked %+v", picked)
	}
	if err := c.RemoveUnused(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got != "used pinned" {
		t.Errorf("when the disk is full: %s", got)
	}
	registry.Expect(t, map[string]float64{`kubelet_image_garbage_collected_total{reason="age"}`: 1, `kubelet_image_garbage_collected_total{reason="space"}`: 1})
}

func hexOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
