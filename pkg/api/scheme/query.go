package scheme

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addQueryConversions lets s read options from query parameters, by the JSON names
// of their fields.
func addQueryConversions(s *runtime.Scheme, options ...runtime.Object) error {
	for _, o := range options {
		err := s.AddConversionFunc((*url.Values)(nil), o, func(in, out any, scope conversion.Scope) error {
			return decodeQuery(*in.(*url.Values), reflect.ValueOf(out).Elem(), scope)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeQuery(query url.Values, out reflect.Value, scope conversion.Scope) error {
	for i := range out.NumField() {
		name, _, _ := strings.Cut(out.Type().Field(i).Tag.Get("json"), ",")
		values, ok := query[name]
		if !ok || name == "" || len(values) == 0 {
			continue
		}
		if err := decodeParameter(values, out.Field(i).Addr().Interface(), scope); err != nil {
			return fmt.Errorf("query parameter %q: %w", name, err)
		}
	}
	return nil
}

// decodeParameter sets the field that out points to. Of a repeated parameter, a
// field that is not a list takes the first value.
func decodeParameter(values []string, out any, scope conversion.Scope) error {
	switch out := out.(type) {
	case *string:
		*out = values[0]
	case **string:
		*out = &values[0]
	case *bool:
		return runtime.Convert_Slice_string_To_bool(&values, out, scope)
	case *int64:
		return runtime.Convert_Slice_string_To_int64(&values, out, scope)
	case **int64:
		return runtime.Convert_Slice_string_To_Pointer_int64(&values, out, scope)
	case **metav1.Time:
		return metav1.Convert_Slice_string_To_Pointer_v1_Time(&values, out, scope)
	case *[]string:
		*out = append([]string(nil), values...)
	case *[]int32:
		return metav1.Convert_Slice_string_To_Slice_int32(&values, out, scope)
	default:
		return fmt.Errorf("cannot be read into a %T", out)
	}
	return nil
}
