package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leme-k8s/leme/pkg/cluster"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
)

func newWhy(g *global) *cobra.Command {
	namespace, output := "default", ""
	cmd := &cobra.Command{
		Use:   "why pod/NAME",
		Short: "Show why a pod is pending, or why it is where it is",
		Long:  "Show why a pod is pending, or why it is where it is: what the scheduler found out when it last tried to place the pod.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "json"}, output) {
				return fmt.Errorf("--output: want json, not %q", output)
			}
			name, err := podName(args[0])
			if err != nil {
				return err
			}
			dir, err := g.dir()
			if err != nil {
				return err
			}
			data, err := cluster.AskScheduler(cmd.Context(), dir, explain.Path+namespace+"/"+name, nil)
			if err != nil {
				return err
			}
			if output == "json" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			var p explain.Pod
			if err := json.Unmarshal(data, &p); err != nil {
				return fmt.Errorf("reading the scheduler's answer: %w", err)
			}
			return p.Write(cmd.OutOrStdout(), time.Now())
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", namespace, "`Namespace` of the pod")
	cmd.Flags().StringVarP(&output, "output", "o", output, "`Format`: json, or a page to read if empty")
	return cmd
}

// podName takes pod/NAME, as kubectl does, or NAME.
func podName(arg string) (string, error) {
	kind, name, named := strings.Cut(arg, "/")
	if !named {
		kind, name = "pod", arg
	}
	if !slices.Contains([]string{"pod", "pods", "po"}, kind) || name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("want pod/NAME, not %q", arg)
	}
	return name, nil
}
