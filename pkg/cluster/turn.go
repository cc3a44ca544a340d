package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// turnSocket is an abstract address of this machine's network: nothing stays of it
// when the process that listens there ends, in whatever way.
const turnSocket = "@leme-first-start"

// takeTurn waits until no other cluster starts for the first time on this machine. What
// is free for a new cluster, ports and ranges, can be seen only once the one before
// uses what it has chosen. Closing the turn lets the next one choose.
func takeTurn(ctx context.Context) (net.Listener, error) {
	var turn net.Listener
	err := poll(ctx, func() (bool, error) {
		l, err := net.Listen("unix", turnSocket)
		if errors.Is(err, syscall.EADDRINUSE) {
			return false, nil
		}
		turn = l
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for another cluster of this machine that starts: %w", err)
	}
	return turn, nil
}
