// Command leme-init is the first process of a further node on a machine: it makes the
// node's view of the machine, then holds the node's namespaces and reaps what is
// orphaned in them. When it ends, so does everything of the node.
//
// It reads what to do from its standard input and answers on its standard output: a
// line, empty or saying what failed.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/leme-k8s/leme/pkg/cluster/machine/boot"
)

// The process's first thread is the one whose namespaces others enter.
func init() { runtime.LockOSThread() }

func main() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println()
	os.Stdout.Close()
	debug.SetGCPercent(-1) // nothing is allocated after this
	for range children {
		reap()
	}
}

func start() error {
	var spec boot.Spec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	os.Stdin.Close()
	return boot.Boot(spec)
}

func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}
