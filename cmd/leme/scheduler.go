package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/leme-k8s/leme/pkg/scheduler"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

func newScheduler() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scheduler",
		Short: "Work with what schedulers have recorded",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newReplay())
	return cmd
}

func newReplay() *cobra.Command {
	var (
		file, output string
		differing    bool
	)
	cmd := &cobra.Command{
		Use:   "replay LOG",
		Short: "Make the decisions of a recording again",
		Long: "Make the decisions again that kube-scheduler recorded with --record-to, each on the grounds that there were, and compare. " +
			"The exit status is 1 if any is made otherwise, unless another configuration is asked for.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "json"}, output) {
				return fmt.Errorf("--output: want json, not %q", output)
			}
			var other *configv1.KubeSchedulerConfiguration
			if file != "" {
				var err error
				if other, err = config.Load(file); err != nil {
					return fmt.Errorf("--config: %w", err)
				}
			}
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			page, lines := record.NewPage(cmd.OutOrStdout()), json.NewEncoder(cmd.OutOrStdout())
			page.Differing = differing
			err = scheduler.Replay(cmd.Context(), in, scheduler.ReplayConfig{Component: other, Plugins: plugins.Registry()}, func(_ record.Header, r record.Replayed) error {
				if output == "json" {
					if !r.Same {
						page.Other++
					} else if differing {
						return nil
					}
					return lines.Encode(r)
				}
				page.Add(r)
				return nil
			})
			if errors.Is(err, record.ErrCut) {
				fmt.Fprintf(cmd.ErrOrStderr(), "leme: %v: its scheduler runs still, or was killed\n", err)
				err = nil
			}
			if err == nil && output != "json" {
				err = page.End()
			}
			if err == nil && page.Other > 0 && other == nil {
				return exitError(1)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "`File` (KubeSchedulerConfiguration v1) to decide by, instead of what was recorded")
	cmd.Flags().BoolVar(&differing, "differing", false, "Show only the decisions that are made otherwise")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`Format`: json, one decision a line, or a table if empty")
	return cmd
}
