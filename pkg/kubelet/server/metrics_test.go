package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRequestLabels(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                          " readwrite false",
		"GET /pods":                 "pods readwrite false",
		"GET /metrics":              "metrics readwrite false",
		"GET /metrics/cadvisor":     "metrics/cadvisor readwrite false",
		"GET /stats/summary":        "stats readwrite false",
		"GET /healthz/syncloop":     "healthz readwrite false",
		"GET /debug/pprof/":         "debug readwrite true",
		"/run/":                     "run readwrite false",
		"POST /exec/{ns}/{p}/{c}":   "exec readwrite true",
		"GET /portForward/{ns}/{p}": "portForward readwrite true",
	} {
		if got := requestLabels(http.MethodGet, pattern); strings.Join(got[1:], " ") != want || got[0] != "GET" {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
	if got := requestLabels("BREW", "GET /pods"); !slices.Equal(got, []string{"other", "pods", "readwrite", "false"}) {
		t.Errorf("%q", got)
	}
}
