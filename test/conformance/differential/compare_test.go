package main

import (
	"net/http"
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name           string
		original, leme string
		want           []string
	}{
		{name: "equal", original: `{"a":1}`, leme: `{"a":1}`},
		{name: "what no two servers have in common",
			original: `{"metadata":{"uid":"0f0a0000-0000-0000-0000-00000000000a","resourceVersion":"7"},"spec":{"clusterIP":"10.96.1.1","ports":[{"nodePort":30001}]},"volumes":[{"name":"kube-api-access-abcde"}]}`,
			leme:     `{"metadata":{"uid":"0f0a0000-0000-0000-0000-00000000000b","resourceVersion":"8"},"spec":{"clusterIP":"10.96.1.2","ports":[{"nodePort":30002}]},"volumes":[{"name":"kube-api-access-fghij"}]}`},
		{name: "a value", original: `{"spec":{"replicas":1}}`, leme: `{"spec":{"replicas":2}}`, want: []string{".spec.replicas: original 1, leme 2"}},
		{name: "a field less", original: `{"a":{"b":1}}`, leme: `{"a":{}}`, want: []string{".a.b: leme lacks 1"}},
		{name: "a field more", original: `{"a":{}}`, leme: `{"a":{"b":1}}`, want: []string{".a.b: leme adds 1"}},
		{name: "the order of objects", original: `{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`, leme: `{"items":[{"metadata":{"name":"b"}},{"metadata":{"name":"a"}}]}`},
		{name: "an object less", original: `{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`, leme: `{"items":[{"metadata":{"name":"b"}}]}`,
			want: []string{`.items: leme lacks {"metadata":{"name":"a"}}`}},
		{name: "the order of values", original: `{"a":[1,2]}`, leme: `{"a":[2,1]}`, want: []string{".a[0]: original 1, leme 2", ".a[1]: original 2, leme 1"}},
		{name: "the order of causes",
			original: `{"kind":"Status","message":"Pod \"a\" is invalid: [x, y]","details":{"causes":[{"field":"a","message":"x"},{"field":"b","message":"y"}]}}`,
			leme:     `{"kind":"Status","message":"Pod \"a\" is invalid: [y, x]","details":{"causes":[{"field":"b","message":"y"},{"field":"a","message":"x"}]}}`},
		{name: "a cause", original: `{"kind":"Status","details":{"causes":[{"field":"a","message":"x"}]}}`, leme: `{"kind":"Status","details":{"causes":[{"field":"a","message":"z"}]}}`,
			want: []string{`.details.causes: leme lacks {"field":"a","message":"x"}`, `.details.causes: leme adds {"field":"a","message":"z"}`}},
		{name: "text", original: "404 page not found", leme: `{"code":404}`, want: []string{`: original "404 page not found", leme {"code":404}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := normaliser{port: "6443"}
			got := compare(n.answer(Answer{Body: decode([]byte(c.original))}), n.answer(Answer{Body: decode([]byte(c.leme))}))
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	got := compare(Answer{Code: http.StatusCreated, Warnings: []string{"a", "b"}}, Answer{Code: http.StatusOK, Warnings: []string{"b"}})
	want := []string{"code: original 201, leme 200", `warning: leme lacks "a"`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNormaliseText(t *testing.T) {
	n := normaliser{port: "41234", today: []string{"2026-02-03"}}
	for in, want := range map[string]string{
		"2026-02-03T04:05:06Z":                        "now",
		"2026-02-03T04:05:06.123456Z":                 "now",
		"2026-02-03T04:05:06Z and more":               "2026-02-03T04:05:06Z and more",
		"2026-01-01T00:00:00Z":                        "2026-01-01T00:00:00Z",
		"/openapi/v3/api/v1?hash=0A1B":                "/openapi/v3/api/v1",
		"https://192.0.2.1:41234/openid":              "https://192.0.2.1:the server's port/openid",
		`pods "gen-x7k2p" already exists`:             `pods "gen-…" already exists`,
		`Invalid value: {"Path":"/a"}: must be empty`: "Invalid value: {…}: must be empty",
		"Forbidden: pod updates may not change fields other than `x`\n  core.PodSpec{…}": "Forbidden: pod updates may not change fields other than `x`",
		"kube-api-access-abcde":             "kube-api-access-…",
		"80:31234/TCP,53:30001/UDP,443/TCP": "80:a node port/TCP,53:a node port/UDP,443/TCP",
	} {
		if got := n.text(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
