package rules

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Declared checks a part of an object by the rules that its published type declares,
// through the function that is published with the type. Those on trial do not count.
// What an update leaves as it was is not checked again; old is nil on creation.
// features are those that the rules depend on. The errors are marked as covered by
// declared rules.
func Declared[T any](rules func(ctx context.Context, op operation.Operation, p *field.Path, obj, old *T) field.ErrorList,
	p *field.Path, obj, old *T, features map[string]bool,
) field.ErrorList {
	op := operation.Operation{Type: operation.Create, Options: features}
	if old != nil {
		if equality.Semantic.DeepEqual(obj, old) {
			return nil
		}
		op.Type = operation.Update
	}
	ctx := context.Background()
	return validate.FilterEnforcedDeclarativeErrors(ctx, rules(ctx, op, p, obj, old), true).MarkCoveredByDeclarative()
}
