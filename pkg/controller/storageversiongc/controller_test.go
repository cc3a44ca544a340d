package storageversiongc

import (
	"strings"
	"testing"

	apiserverinternalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	"k8s.io/utils/ptr"
)

func TestForget(t *testing.T) {
	for name, c := range map[string]struct {
		says  string // server=version
		there string
		want  action
		left  string
		agree string // on which version, if all do
	}{
		"all there":          {says: "a=v1 b=v2", there: "a b", left: "a=v1 b=v2"},
		"one gone":           {says: "a=v1 b=v2 c=v2", there: "b c", want: update, left: "b=v2 c=v2", agree: "v2"},
		"the others differ":  {says: "a=v1 b=v2 c=v1", there: "b c", want: update, left: "b=v2 c=v1"},
		"never there":        {says: "a=v1 x=v2", there: "a", want: update, left: "a=v1", agree: "v1"},
		"all gone":           {says: "a=v1", want: remove},
		"nobody has said it": {},
	} {
		v := &apiserverinternalv1alpha1.StorageVersion{}
		for _, s := range strings.Fields(c.says) {
			id, version, _ := strings.Cut(s, "=")
			v.Status.StorageVersions = append(v.Status.StorageVersions, apiserverinternalv1alpha1.ServerStorageVersion{APIServerID: id, EncodingVersion: version, DecodableVersions: []string{version}})
		}
		there := map[string]bool{}
		for _, id := range strings.Fields(c.there) {
			there[id] = true
		}
		got := forget(v, there)
		var left []string
		for _, s := range v.Status.StorageVersions {
			left = append(left, s.APIServerID+"="+s.EncodingVersion)
		}
		if got != c.want || strings.Join(left, " ") != c.left || ptr.Deref(v.Status.CommonEncodingVersion, "") != c.agree {
			t.Errorf("%s: %d, left %v, agreed on %q", name, got, left, ptr.Deref(v.Status.CommonEncodingVersion, ""))
		}
	}
}
