package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/peers"
)

// swap starts each server on what the other has written, and compares what both see
// there: every object, and all of it.
func (r *runner) swap(ctx context.Context, p *peers.Processes, o options, all resources) error {
	onLeme, err := p.StartServer(ctx, "original-on-leme", o.original, r.leme.Etcd, everything()...)
	if err != nil {
		return err
	}
	onOriginal, err := p.StartServer(ctx, "leme-on-original", o.leme, r.original.Etcd, everything()...)
	if err != nil {
		return err
	}
	for _, pair := range []struct {
		group    string
		original *server
		leme     *server
	}{
		{"stored by leme", &server{onLeme}, r.leme.server},
		{"stored by the original", r.original.server, &server{onOriginal}},
	} {
		for _, q := range all {
			if !q.has("list") {
				continue
			}
			path := q.prefix() + "/" + q.name
			lines, err := sameList(ctx, pair.original, pair.leme, path)
			if err != nil {
				return err
			}
			r.report.Add(pair.group, pair.group+": GET "+path, lines)
		}
	}
	return nil
}

// sameList lists a resource on two servers that share their data. Something may be
// written between the two lists, so a difference counts when it stays.
func sameList(ctx context.Context, original, leme *server, path string) ([]string, error) {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		var answers [2]Answer
		for i, s := range []*server{original, leme} {
			var err error
			if answers[i], err = s.send(ctx, Request{Method: http.MethodGet, Path: path}); err != nil {
				return nil, err
			}
			if list, ok := answers[i].Body.(map[string]any); ok {
				delete(list, "metadata") // the revision of etcd, which each lease moves
			}
		}
		lines := compare(answers[0], answers[1])
		if len(lines) == 0 || attempt == attempts {
			return slices.Clip(lines), nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("listing %s: %w", path, ctx.Err())
		}
	}
}
