// Package component is what all of Leme's Kubernetes components have in common:
// a command with flags, logging, signals and a version, and the same way to be
// started by their own binary, by the all-in-one `leme`, and by a test.
//
// A component is an [Options] that turns flags into a [Runner]:
//
//	flags ── Options.AddFlags ──▶ Options.New ──▶ Runner.Run(ctx)
//
// Its binary's main.go runs a [Command] of them. `leme` hands the same options
// and the same argument list that the binary would get to [New], so that a
// component behaves alike in its own process and beside the others.
package component

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"            // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/restclient" // rest_client_*
	_ "k8s.io/component-base/metrics/prometheus/version"    // kubernetes_build_info
	"k8s.io/component-base/version"
	"k8s.io/component-base/version/verflag"
	"k8s.io/klog/v2"
)

// Version is the version of Kubernetes that every component implements and
// reports, without the leading "v".
const Version = "1.37.2"

// A Runner is an assembled component that has not started.
type Runner interface {
	// Run serves until ctx is cancelled, then shuts down in order and returns
	// nil. An error means that the component could not start or cannot go on.
	Run(ctx context.Context) error
}

// Options are the flags of one component.
type Options interface {
	// AddFlags adds the component's flags, under the original's names.
	AddFlags(fs *pflag.FlagSet)
	// New checks the flags and the configuration files that they name and
	// assembles the component. It starts nothing and listens on nothing but what
	// it must to learn its own address. Errors name the flag, or the field of the
	// file, that is wrong.
	New(ctx context.Context) (Runner, error)
}

// A Command is a component's own binary.
type Command struct {
	Name, Doc string
	Options   Options
	// Room is what it may allocate between two collections of garbage however small its heap is, see TendMemory.
	Room uint64
}

// New parses args into o and assembles the component, for a caller that runs it
// inside its own process. Logging flags are accepted and left to that process.
func New(ctx context.Context, name string, o Options, args []string) (Runner, error) {
	fs := flags(name, o, logsapi.NewLoggingConfiguration())
	if err := fs.Parse(args); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%s: unexpected argument %q", name, fs.Arg(0))
	}
	r, err := o.New(klog.NewContext(ctx, klog.FromContext(ctx).WithName(name)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (c Command) cobra() *cobra.Command {
	logging := logsapi.NewLoggingConfiguration()
	cmd := &cobra.Command{
		Use:           c.Name,
		Long:          c.Doc,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			verflag.PrintAndExitIfRequested()
			if err := logsapi.ValidateAndApply(logging, nil); err != nil {
				return err
			}
			ctx := cmd.Context()
			klog.FromContext(ctx).Info("Starting", "component", c.Name, "version", version.Get().GitVersion)
			r, err := c.Options.New(ctx)
			if err != nil {
				return err
			}
			go TendMemory(ctx, 100, c.Room)
			return r.Run(ctx)
		},
	}
	cmd.Flags().AddFlagSet(flags(c.Name, c.Options, logging))
	verflag.AddFlags(cmd.Flags())
	cmd.SetGlobalNormalizationFunc(cliflag.WordSepNormalizeFunc)
	return cmd
}

// Main runs the component until it ends or the process is told to with
// SIGINT or SIGTERM; a second signal ends it at once. It does not return.
func (c Command) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // restores the default action for the second signal
	err := c.cobra().ExecuteContext(ctx)
	stop()
	logs.FlushLogs()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func flags(name string, o Options, logging *logsapi.LoggingConfiguration) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.SortFlags = true
	o.AddFlags(fs)
	logsapi.AddFlags(logging, fs)
	return fs
}
