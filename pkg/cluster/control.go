package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that went away
}

// fetchStatus asks the process that runs the cluster.
func fetchStatus(ctx context.Context, d dataDir) (*Status, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.controlSocket())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://leme/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking for the status: %s", resp.Status)
	}
	var s Status
	return &s, json.NewDecoder(resp.Body).Decode(&s)
}

// A lock on a data directory is held by the process that runs its cluster, or by
// one that changes it; the kernel lets go of it however the process ends.
type lock struct{ file *os.File }

// tryLock returns nil if somebody else holds the lock, and who that is.
func tryLock(d dataDir) (l *lock, pid int, err error) {
	if err := os.MkdirAll(d.run(""), 0o700); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(d.lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if err != unix.EWOULDBLOCK {
			return nil, 0, fmt.Errorf("locking %s: %w", d.lockFile(), err)
		}
		data, err := os.ReadFile(d.lockFile())
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return nil, pid, err
	}
	return &lock{file: f}, 0, nil
}

// hold records who holds the lock.
func (l *lock) hold(pid int) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

func (l *lock) release() { l.file.Close() }
