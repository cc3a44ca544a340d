package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to authenticate that kubectl knows
	componentcli "k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/leme-k8s/leme/pkg/cluster"
	"github.com/leme-k8s/leme/pkg/component"
)

const defaultDataDir = "/var/lib/leme"

// global is what is said before the command's name.
type global struct{ dataDir string }

func newCommand() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:               "leme",
		Short:             "A Kubernetes cluster in one command",
		Long:              "leme runs a Kubernetes v" + component.Version + " cluster on this machine: `leme up` starts it, `leme down` leaves nothing of it.",
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              cobra.NoArgs, // an unknown command is an error
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		TraverseChildren:  true, // `leme --data-dir D kubectl …`, whose own flags are kubectl's
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&g.dataDir, "data-dir", defaultDataDir, "`Directory` that holds everything of the cluster")
	root.AddCommand(newUp(g), newRun(g), newDown(g), newStop(g), newStatus(g), newKubeconfig(g), newLogs(g), newKubectl(g), newNode(g), newSwap(g), newWhy(g), newSchedule(g), newScheduler(), newNodeRun(), newVersion())
	return root
}

func newDown(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove the cluster and everything that belongs to it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := g.dir()
			if err != nil {
				return err
			}
			return cluster.Down(cmd.Context(), dir, cmd.OutOrStdout())
		},
	}
}

func newStop(g *global) *cobra.Command {
	grace := 10 * time.Second
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "End the cluster's pods and processes and keep its data",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := g.dir()
			if err != nil {
				return err
			}
			return cluster.Stop(cmd.Context(), dir, grace, cmd.OutOrStdout())
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", grace, "`Time` that containers get at most to end by themselves")
	return cmd
}

func newStatus(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the cluster and its components fare",
		Long:  "Show how the cluster and its components fare. The exit status is 0 if the cluster answers and all run, and 1 otherwise.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "json"}, output) {
				return fmt.Errorf("--output: want json, not %q", output)
			}
			dir, err := g.dir()
			if err != nil {
				return err
			}
			s, err := cluster.GetStatus(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(s)
			} else {
				err = printStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && !s.Healthy() {
				return exitError(1)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`Format`: json, or a table if empty")
	return cmd
}

func printStatus(out io.Writer, s *cluster.Status) error {
	state := "starting"
	switch {
	case s.Failed != "":
		state = "failed: " + s.Failed
	case s.Ready:
		state = "running"
	}
	fmt.Fprintf(out, "Cluster %s in %s: %s, process %d, since %s\n%s\n\n", s.Name, s.DataDir, state, s.PID, s.Since.Format(time.DateTime), s.Server)
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tSTATE\tSINCE\tRESTARTS\tMESSAGE")
	printServices(w, s.Services)
	for _, n := range s.Nodes {
		state := "running"
		switch {
		case n.Stopped:
			state = "stopped"
		case n.Error != "":
			state = n.Error
		}
		fmt.Fprintf(w, "\nnode %s at %s\t%s\t\t%d\t\n", n.Name, n.IP, state, n.Restarts)
		printServices(w, n.Services)
	}
	return w.Flush()
}

func printServices(w io.Writer, services []cluster.ServiceStatus) {
	for _, c := range services {
		state, message := "failed", c.Error
		if c.Running {
			state = "running"
			if c.Error != "" {
				message = "last failure: " + c.Error
			} else if c.Binary != "" {
				message = "from " + c.Binary
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", c.Name, state, duration.HumanDuration(time.Since(c.Since)), c.Restarts, message)
	}
}

func newKubeconfig(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the kubeconfig of the cluster's administrator",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := g.adminKubeconfig()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
}

func newLogs(g *global) *cobra.Command {
	var o cluster.LogOptions
	cmd := &cobra.Command{
		Use:   "logs [COMPONENT]",
		Short: "Show the log of a component, or the end of each",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := g.dir()
			if err != nil {
				return err
			}
			return cluster.Logs(cmd.Context(), dir, args, o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "Go on showing what is logged")
	cmd.Flags().IntVarP(&o.Lines, "lines", "n", 0, "Show this `number` of lines at most; 0 shows all of one component's and the last ten of each")
	cmd.Flags().StringVar(&o.Node, "node", "", "`Node` whose components are meant (default: this machine)")
	return cmd
}

func newKubectl(g *global) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl …",
		Short:              "Run kubectl on the cluster",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := g.adminKubeconfig()
			if err != nil {
				return err
			}
			if err := os.Setenv("KUBECONFIG", path); err != nil {
				return err
			}
			os.Args = append([]string{"kubectl"}, args...) // what kubectl's plugins and messages go by
			k := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
				PluginHandler: kubectl.NewDefaultPluginHandler([]string{"kubectl"}),
				Arguments:     os.Args,
				ConfigFlags:   genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50),
				IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
			})
			if err := componentcli.RunNoErrOutput(k); err != nil {
				kubectlutil.CheckErr(err) // prints as kubectl does, and exits
			}
			return nil
		},
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of Kubernetes that this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version.Get()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "leme %s (%s, %s)\n", v.GitVersion, v.GoVersion, v.Platform)
			return err
		},
	}
}
