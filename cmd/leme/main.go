// Command leme runs a whole Kubernetes cluster on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // restores the default action for the second signal
	err := newCommand().ExecuteContext(ctx)
	stop()
	var exit exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		os.Exit(int(exit))
	default:
		fmt.Fprintf(os.Stderr, "leme: %v\n", err)
		os.Exit(1)
	}
}

// An exitError is an exit status whose reason has been told already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
