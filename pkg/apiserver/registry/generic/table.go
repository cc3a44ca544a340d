package generic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/registry/rest"
)

var metaDoc = metav1.ObjectMeta{}.SwaggerDoc()

// The columns that most tables have.
var (
	NameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metaDoc["name"]}
	AgeColumn  = metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metaDoc["creationTimestamp"]}
)

// Column returns a column that is always shown. Its type is "string", "integer", "boolean" or "date".
func Column(name, kind, doc string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: kind, Description: doc}
}

// WideColumn returns a column that `kubectl get -o wide` shows.
func WideColumn(name, kind, doc string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: kind, Description: doc, Priority: 1}
}

// Age is the cell that says how long ago t was.
func Age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

// tableConvertor prints a resource as Columns and Cells say.
type tableConvertor[T Object] struct{ r *Resource[T] }

// NewTableConvertor prints objects as r says.
func NewTableConvertor[T Object](r *Resource[T]) rest.TableConvertor {
	if r.Columns == nil {
		return rest.NewDefaultTableConvertor(schema.GroupResource{Group: r.Group, Resource: r.Name})
	}
	return tableConvertor[T]{r}
}

// ConvertToTable implements rest.TableConvertor.
func (c tableConvertor[T]) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	add := func(item runtime.Object) error {
		o, ok := item.(T)
		if !ok { // a Status, a Scale
			return errNoTable
		}
		row := metav1.TableRow{Cells: c.r.Cells(o), Object: runtime.RawExtension{Object: item}}
		if c.r.RowConditions != nil {
			row.Conditions = c.r.RowConditions(o)
		}
		table.Rows = append(table.Rows, row)
		return nil
	}
	var err error
	if meta.IsListType(obj) {
		err = meta.EachListItem(obj, add)
	} else {
		err = add(obj)
	}
	if errors.Is(err, errNoTable) {
		gr := schema.GroupResource{Group: c.r.Group, Resource: c.r.Name}
		return rest.NewDefaultTableConvertor(gr).ConvertToTable(ctx, obj, options)
	}
	if err != nil {
		return nil, err
	}
	if c.r.CompareRows != nil {
		slices.SortStableFunc(table.Rows, func(a, b metav1.TableRow) int {
			return c.r.CompareRows(a.Object.Object.(T), b.Object.Object.(T))
		})
	}
	if list, err := meta.ListAccessor(obj); err == nil {
		table.ResourceVersion = list.GetResourceVersion()
		table.Continue = list.GetContinue()
		table.RemainingItemCount = list.GetRemainingItemCount()
	} else if one, err := meta.CommonAccessor(obj); err == nil {
		table.ResourceVersion = one.GetResourceVersion()
	}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		table.ColumnDefinitions = c.r.Columns
	}
	return table, nil
}

// Fraction prints "1/3".
func Fraction(part, whole int32) string { return fmt.Sprintf("%d/%d", part, whole) }

// ContainerNames returns the names and the images of containers, for their columns.
func ContainerNames(containers []corev1.Container) (names, images []string) {
	for i := range containers {
		names = append(names, containers[i].Name)
		images = append(images, containers[i].Image)
	}
	return names, images
}

// Selector returns a label selector in its string form.
func Selector(s *metav1.LabelSelector) (string, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}
