// Package configfile puts the changed content of a configuration file to use while the
// server runs.
package configfile

import (
	"bytes"
	"context"
	"os"
	"time"

	"k8s.io/apiserver/pkg/util/filesystem"
	"k8s.io/klog/v2"
)

// interval is how often a file is read that nobody has told to have changed.
const interval = time.Minute

// Metrics count what became of changes.
type Metrics struct {
	Success func(serverID, data string)
	Failure func(serverID string)
}

// Watch calls apply with the content of the file when it differs from data, until ctx ends.
// What cannot be applied leaves things as they are, and is tried again.
func Watch(ctx context.Context, path string, data []byte, serverID string, m Metrics, apply func(context.Context, []byte) error) {
	log := klog.FromContext(ctx).WithValues("file", path)
	failed := func(err error) {
		log.Error(err, "A changed configuration file is not put to use")
		m.Failure(serverID)
	}
	filesystem.WatchUntil(ctx, interval, path, func() {
		fresh, err := os.ReadFile(path)
		if err != nil {
			failed(err)
			return
		}
		if bytes.Equal(fresh, data) {
			return
		}
		if err := apply(ctx, fresh); err != nil {
			failed(err)
			return
		}
		data = fresh
		log.Info("A changed configuration file is in use")
		m.Success(serverID, string(data))
	}, func(err error) { log.Error(err, "Watching a configuration file") })
}
