package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/leme-k8s/leme/pkg/cluster"
)

func newNode(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Add, remove, stop and start nodes of the cluster that runs",
		Long: "Add, remove, stop and start nodes of the cluster that runs. The first node is this machine; further ones are within it, " +
			"each with a network, a file system, processes and a containerd of its own.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := &cobra.Command{
		Use:   "add [NAME]",
		Short: "Add a node; without a name it is called after the first one, with a number",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := g.dir()
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if name, err = cluster.AddNode(cmd.Context(), dir, name); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Node %s is ready.\n", name)
			return err
		},
	}
	cmd.AddCommand(add,
		newNodeChange(g, "remove", "Remove a node and everything of it", "Node %s is removed.\n", cluster.RemoveNode),
		newNodeChange(g, "stop", "Switch a node off at once, with everything that runs on it, as a power cut would", "Node %s is off.\n", cluster.StopNode),
		newNodeChange(g, "start", "Switch a node on again", "Node %s is ready.\n", cluster.StartNode))
	return cmd
}

// newNodeChange is a command that does something to one node.
func newNodeChange(g *global, verb, short, done string, do func(ctx context.Context, dir, name string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := g.dir()
			if err != nil {
				return err
			}
			if err := do(cmd.Context(), dir, args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), done, args[0])
			return err
		},
	}
}

func newSwap(g *global) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "swap COMPONENT=PATH|leme",
		Short: "Run a component of the running cluster from another binary",
		Long: "Run a component of the running cluster from another binary, or inside leme again, and keep it so. " +
			"No pod restarts. The kubelet and kube-proxy are swapped on one node after the other; one that does not become healthy is put back.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			component, path, err := parsePair(args[0])
			if err != nil {
				return err
			}
			dir, err := g.dir()
			if err != nil {
				return err
			}
			if err := cluster.Swap(cmd.Context(), dir, component, path, node); err != nil {
				return err
			}
			if path == cluster.InLeme {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s runs inside leme.\n", component)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s runs from %s.\n", component, path)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "Do so on this `node` alone (default: on all that run the component)")
	return cmd
}

// newNodeRun is the process that runs a further node, inside it.
func newNodeRun() *cobra.Command {
	var idle bool
	cmd := &cobra.Command{
		Use:    "node-run",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cluster.RunNode(cmd.Context(), components, idle) },
	}
	cmd.Flags().BoolVar(&idle, "idle", false, "")
	return cmd
}
