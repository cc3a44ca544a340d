package rules

import (
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// Convert makes f what converts from In to Out.
func Convert[In, Out any](s *runtime.Scheme, f func(in *In, out *Out) error) error {
	return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
		return f(in.(*In), out.(*Out))
	})
}

// Always is a conversion that cannot fail.
func Always[In, Out any](f func(in *In, out *Out)) func(in *In, out *Out) error {
	return func(in *In, out *Out) error {
		f(in, out)
		return nil
	}
}

// ConvertItems converts the items of a list.
func ConvertItems[In, Out any](in []In, out *[]Out, f func(in *In, out *Out) error) error {
	*out = make([]Out, len(in))
	for i := range in {
		if err := f(&in[i], &(*out)[i]); err != nil {
			return err
		}
	}
	return nil
}

// CopyFields copies what two structs, which in and out point to, have under the same
// names: two versions of a kind, or parts of them. What a field has the other type has as
// well, but for a pointer, which stands for a value that may be missing. The copy shares
// with in what it points to.
func CopyFields(in, out any) {
	copyValue(reflect.ValueOf(in).Elem(), reflect.ValueOf(out).Elem())
}

func copyValue(in, out reflect.Value) {
	isPointer, toPointer := in.Kind() == reflect.Pointer, out.Kind() == reflect.Pointer
	switch {
	case in.Type().ConvertibleTo(out.Type()):
		out.Set(in.Convert(out.Type()))
	case (isPointer || toPointer) && in.IsZero():
		out.SetZero()
	case toPointer:
		out.Set(reflect.New(out.Type().Elem()))
		if isPointer {
			in = in.Elem()
		}
		copyValue(in, out.Elem())
	case isPointer:
		copyValue(in.Elem(), out)
	case in.Kind() == reflect.Slice && !in.IsNil():
		out.Set(reflect.MakeSlice(out.Type(), in.Len(), in.Len()))
		for i := range in.Len() {
			copyValue(in.Index(i), out.Index(i))
		}
	case in.Kind() == reflect.Map && !in.IsNil():
		out.Set(reflect.MakeMapWithSize(out.Type(), in.Len()))
		for key, value := range in.Seq2() {
			copied := reflect.New(out.Type().Elem()).Elem()
			copyValue(value, copied)
			out.SetMapIndex(key.Convert(out.Type().Key()), copied)
		}
	case in.Kind() == reflect.Slice || in.Kind() == reflect.Map:
		out.SetZero()
	default: // structs
		for i := range in.NumField() {
			if field := out.FieldByName(in.Type().Field(i).Name); field.IsValid() {
				copyValue(in.Field(i), field)
			}
		}
	}
}
