package probes

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lingerOff lets a closed connection wait for a second at most.
func lingerOff(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1})
	}); cerr != nil {
		return cerr
	}
	return err
}
