package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Schema is what an OpenAPI v3 document says about a value, as far as it is needed
// to make good and bad ones.
type Schema struct {
	Ref                  string             `json:"$ref"`
	AllOf                []*Schema          `json:"allOf"`
	OneOf                []*Schema          `json:"oneOf"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Enum                 []any              `json:"enum"`
	Properties           map[string]*Schema `json:"properties"`
	Required             []string           `json:"required"`
	Items                *Schema            `json:"items"`
	AdditionalProperties *Schema            `json:"additionalProperties"`
	Kinds                []kind             `json:"x-kubernetes-group-version-kind"`
}

type kind struct{ Group, Version, Kind string }

// Schemas are the schemas of the kinds of some group versions.
type Schemas struct {
	named map[string]*Schema
	kinds map[kind]*Schema
}

// add reads an OpenAPI v3 document.
func (s *Schemas) add(document []byte) error {
	var d struct {
		Components struct{ Schemas map[string]*Schema }
	}
	if err := json.Unmarshal(document, &d); err != nil {
		return fmt.Errorf("OpenAPI v3: %w", err)
	}
	if s.named == nil {
		s.named, s.kinds = map[string]*Schema{}, map[kind]*Schema{}
	}
	for name, schema := range d.Components.Schemas {
		s.named[name] = schema
		for _, k := range schema.Kinds {
			s.kinds[k] = schema
		}
	}
	return nil
}

// resolve follows references.
func (s *Schemas) resolve(schema *Schema) *Schema {
	for schema != nil {
		switch {
		case schema.Ref != "":
			schema = s.named[schema.Ref[strings.LastIndex(schema.Ref, "/")+1:]]
		case len(schema.AllOf) == 1:
			schema = schema.AllOf[0]
		default:
			return schema
		}
	}
	return &Schema{}
}

// minimal returns a value with everything that the schema requires, and nothing else.
func (s *Schemas) minimal(schema *Schema) any {
	schema = s.resolve(schema)
	switch {
	case len(schema.Enum) > 0:
		return schema.Enum[0]
	case schema.Format == "int-or-string" || schema.Type == "integer" || schema.Type == "number":
		return 1
	case schema.Format == "date-time":
		return "2026-01-01T00:00:00Z"
	case schema.Format == "byte":
		return "YQ=="
	case len(schema.OneOf) > 0: // a quantity
		return "1"
	case schema.Type == "boolean":
		return true
	case schema.Type == "array":
		return []any{s.minimal(schema.Items)}
	case schema.Type == "object" && schema.AdditionalProperties != nil:
		return map[string]any{"k": s.minimal(schema.AdditionalProperties)}
	case schema.Type == "object":
		object := map[string]any{}
		for _, name := range schema.Required {
			object[name] = s.minimal(schema.Properties[name])
		}
		return object
	}
	return "a"
}
