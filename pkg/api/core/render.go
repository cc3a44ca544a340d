package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// goNames shows a value of core/v1 in a message as users know it: by the names
// that its fields have in Go, in their order, with nothing left out.
type goNames struct{ v any }

// MarshalJSON implements json.Marshaler.
func (n goNames) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := writeGoNames(&b, reflect.ValueOf(n.v)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeGoNames(b *bytes.Buffer, v reflect.Value) error {
	if v.IsValid() && v.Type().PkgPath() != "" && v.Kind() == reflect.Struct && strings.HasSuffix(v.Type().PkgPath(), "k8s.io/api/core/v1") {
		b.WriteByte('{')
		if err := writeFields(b, v, new(int)); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	}
	switch {
	case !v.IsValid():
	case v.Kind() == reflect.Pointer && !v.IsNil() && v.Elem().Kind() == reflect.Struct:
		return writeGoNames(b, v.Elem())
	case v.Kind() == reflect.Slice && !v.IsNil() && v.Type().Elem().Kind() == reflect.Struct:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeGoNames(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	var value any
	if v.IsValid() {
		value = v.Interface()
	}
	j, err := json.Marshal(value)
	b.Write(j)
	return err
}

// writeFields writes the fields of a struct, those of embedded structs among them.
func writeFields(b *bytes.Buffer, v reflect.Value, written *int) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if err := writeFields(b, v.Field(i), written); err != nil {
				return err
			}
			continue
		}
		if *written > 0 {
			b.WriteByte(',')
		}
		*written++
		fmt.Fprintf(b, "%q:", f.Name)
		if err := writeGoNames(b, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}
