package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/leme-k8s/leme/pkg/cluster"
	"github.com/leme-k8s/leme/pkg/scheduler/plan"
)

type scheduleFlags struct {
	files, withNodes, withoutNodes []string
	namespace, output              string
	copies                         int
}

func newSchedule(g *global) *cobra.Command {
	f := &scheduleFlags{namespace: "default"}
	cmd := &cobra.Command{
		Use:   "schedule -f FILE",
		Short: "Show where pods would go, without making them",
		Long: "Show where the pods of a manifest would go if they were made now, which other pods would have to make room, and which pods would stay pending, and why. " +
			"Nothing is written: the API server admits the pods as a dry run, and the scheduler tries them on a copy of what it knows. " +
			"Pods that wait in the scheduler's queue already are left out, and nodes that are equally good are chosen by chance, there and here.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.validate(cmd.Flags().Changed("copies")); err != nil {
				return err
			}
			dir, err := g.dir()
			if err != nil {
				return err
			}
			request, err := f.request(cmd.Context(), g, cmd.InOrStdin())
			if err != nil {
				return err
			}
			data, err := cluster.AskScheduler(cmd.Context(), dir, plan.Path, request)
			if err != nil {
				return err
			}
			if f.output == "json" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			var p plan.Plan
			if err := json.Unmarshal(data, &p); err != nil {
				return fmt.Errorf("reading the scheduler's answer: %w", err)
			}
			return p.Write(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.files, "filename", "f", nil, "`File` with pods, or with objects that pods are made from; - is the standard input; may be repeated")
	fs.IntVar(&f.copies, "copies", 0, "`Number` of pods to place of each kind, in place of the replicas that the file asks for")
	fs.StringArrayVar(&f.withoutNodes, "without-node", nil, "`Node` to be left out, with the pods on it; may be repeated")
	fs.StringArrayVar(&f.withNodes, "with-node", nil, "`File` with a Node to be added, or to be otherwise than it is; may be repeated")
	fs.StringVarP(&f.namespace, "namespace", "n", f.namespace, "`Namespace` of objects that name none")
	fs.StringVarP(&f.output, "output", "o", "", "`Format`: json, or a page to read if empty")
	return cmd
}

func (f *scheduleFlags) validate(copiesGiven bool) error {
	switch {
	case !slices.Contains([]string{"", "json"}, f.output):
		return fmt.Errorf("--output: want json, not %q", f.output)
	case len(f.files) == 0:
		return errors.New("--filename: name a file with the pods to place")
	case copiesGiven && (f.copies < 1 || f.copies > plan.MaxPods):
		return fmt.Errorf("--copies: want 1 to %d, not %d", plan.MaxPods, f.copies)
	}
	return nil
}

// request reads the files and has the API server admit what is in them.
func (f *scheduleFlags) request(ctx context.Context, g *global, stdin io.Reader) (*plan.Request, error) {
	var manifest, nodes []runtime.Object
	for _, name := range f.files {
		objects, err := readManifest(name, stdin)
		if err != nil {
			return nil, err
		}
		manifest = append(manifest, objects...)
	}
	for _, name := range f.withNodes {
		objects, err := readManifest(name, stdin)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, objects...)
	}
	path, err := g.adminKubeconfig()
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	request, err := (&plan.Asker{Client: client, Namespace: f.namespace, Copies: f.copies}).Request(ctx, manifest)
	if err != nil {
		return nil, err
	}
	request.WithoutNodes = f.withoutNodes
	if len(f.withNodes) > 0 {
		if err := request.AddNodes(nodes); err != nil {
			return nil, fmt.Errorf("--with-node: %w", err)
		}
	}
	return request, nil
}

func readManifest(name string, stdin io.Reader) ([]runtime.Object, error) {
	in := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	objects, err := plan.Read(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return objects, nil
}
