package attachdetach

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	want := func(names ...string) []*wanted {
		var list []*wanted
		for _, n := range names {
			pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}}}
			if strings.HasPrefix(n, "shared") {
				pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
			}
			list = append(list, &wanted{name: n, pv: pv})
		}
		return list
	}
	// has returns attachments: +a is attached, a is not yet, !a has failed, -a is being deleted.
	has := func(names ...string) []attachment {
		var list []attachment
		for _, n := range names {
			va := &storagev1.VolumeAttachment{}
			va.Status.Attached = n[0] == '+' || n[0] == '-'
			if n[0] == '!' {
				va.Status.AttachError = &storagev1.VolumeError{Message: "no"}
			}
			if n[0] == '-' {
				va.DeletionTimestamp = &metav1.Time{}
			}
			list = append(list, attachment{va, strings.TrimLeft(n, "+-!")})
		}
		return list
	}
	uses := func(names ...corev1.UniqueVolumeName) nodeState { return nodeState{inUse: names} }
	for name, tc := range map[string]struct {
		node      nodeState
		wants     []*wanted
		here      []attachment
		elsewhere map[string]bool
		waited    time.Duration
		keep      bool // do not take by force

		attach, blocked, report, arrived, detach, failed string
		again                                            time.Duration
	}{
		"new":                         {wants: want("a"), attach: "a"},
		"on its way":                  {wants: want("a"), here: has("a")},
		"arrived":                     {wants: want("a"), here: has("+a"), report: "a", arrived: "a"},
		"reported":                    {node: nodeState{attached: []corev1.AttachedVolume{{Name: "a"}}}, wants: want("a"), here: has("+a"), report: "a"},
		"failed":                      {wants: want("a"), here: has("!a"), failed: "a"},
		"being detached":              {wants: want("a"), here: has("-a")},
		"on another node":             {wants: want("a"), elsewhere: map[string]bool{"a": true}, blocked: "a"},
		"on another node as well":     {wants: want("shared"), elsewhere: map[string]bool{"shared": true}, attach: "shared"},
		"not wanted":                  {here: has("+a"), detach: "a"},
		"not wanted, mounted":         {node: uses("a"), here: has("+a"), report: "a"},
		"mounted, the node is unwell": {node: nodeState{inUse: []corev1.UniqueVolumeName{"a"}, unwell: true}, here: has("+a"), waited: time.Minute, report: "a", again: 5 * time.Minute},
		"that has lasted long enough": {node: nodeState{inUse: []corev1.UniqueVolumeName{"a"}, unwell: true}, here: has("+a"), waited: 7 * time.Minute, detach: "a"},
		"but never by force":          {node: nodeState{inUse: []corev1.UniqueVolumeName{"a"}, unwell: true}, here: has("+a"), waited: 7 * time.Minute, keep: true, report: "a"},
		"out of service":              {node: nodeState{inUse: []corev1.UniqueVolumeName{"a"}, outOfService: true}, here: has("+a"), detach: "a"},
		"the node is gone":            {node: nodeState{gone: true}, here: has("+a"), waited: time.Minute, report: "a", again: 5 * time.Minute},
		"not wanted, going already":   {here: has("-a")},
	} {
		p := decide(tc.node, tc.wants, tc.here, tc.elsewhere, func(string) time.Duration { return tc.waited }, !tc.keep)
		names := func(list []*wanted) string {
			var s []string
			for _, w := range list {
				s = append(s, w.name)
			}
			return strings.Join(s, " ")
		}
		var report, detach, failed []string
		for _, v := range p.report {
			report = append(report, string(v.Name))
		}
		for _, a := range p.detach {
			detach = append(detach, a.volume)
		}
		for w := range p.failed {
			failed = append(failed, w.name)
		}
		got := [...]string{names(p.attach), names(p.blocked), strings.Join(report, " "), names(p.arrived), strings.Join(detach, " "), strings.Join(failed, " "), p.again.String()}
		if want := [...]string{tc.attach, tc.blocked, tc.report, tc.arrived, tc.detach, tc.failed, tc.again.String()}; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
