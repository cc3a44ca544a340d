// Package pluginconfig reads the sections of admission plugins in the file of
// --admission-control-config-file.
package pluginconfig

import (
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Read fills into with the section, in YAML or JSON. A plugin without a section has a
// nil reader, and into stays as it is.
func Read(section io.Reader, into any) error {
	if section == nil {
		return nil
	}
	data, err := io.ReadAll(section)
	if err != nil {
		return err
	}
	return yaml.Unmarshal(data, into)
}

// ReadKind is Read for a section that says which kind it is.
func ReadKind(section io.Reader, kind schema.GroupVersionKind, into any, is *metav1.TypeMeta) error {
	if section == nil {
		return nil
	}
	if err := Read(section, into); err != nil {
		return err
	}
	if got := is.GroupVersionKind(); got != kind {
		return fmt.Errorf("expected kind %s of apiVersion %s, got kind %q of apiVersion %q", kind.Kind, kind.GroupVersion(), is.Kind, is.APIVersion)
	}
	return nil
}
