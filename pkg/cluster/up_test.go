package cluster

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestCheckPorts: a port that a process is about to give up is no reason not to start;
// one that somebody keeps is named.
func TestCheckPorts(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &State{}
	for _, p := range s.Ports.all() {
		*p.number = l.Addr().(*net.TCPAddr).Port
	}
	if err := checkPorts(t.Context(), s); err == nil || !strings.Contains(err.Error(), "is in use by another program") {
		t.Errorf("got %v, want that the port is in use", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { l.Close() })
	if err := checkPorts(t.Context(), s); err != nil {
		t.Error(err)
	}
}
