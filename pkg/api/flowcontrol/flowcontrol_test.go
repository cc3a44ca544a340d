package flowcontrol

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

const collection = "/apis/flowcontrol.apiserver.k8s.io/v1/"

func TestFlowSchema(t *testing.T) {
	apitest.Run(t, "testdata/flowschema.txtar", apitest.Kind[flowcontrolv1.FlowSchema, *flowcontrolv1.FlowSchema]{
		Path:        collection + "flowschemas",
		AddDefaults: AddDefaults,
		Create:      ValidateFlowSchema,
		Update:      ValidateFlowSchemaUpdate,
		Status:      ValidateFlowSchemaStatusUpdate,
	})
}

func TestPriorityLevelConfiguration(t *testing.T) {
	apitest.Run(t, "testdata/prioritylevelconfiguration.txtar", apitest.Kind[flowcontrolv1.PriorityLevelConfiguration, *flowcontrolv1.PriorityLevelConfiguration]{
		Path:        collection + "prioritylevelconfigurations",
		AddDefaults: AddDefaults,
		Create:      ValidatePriorityLevelConfiguration,
		Update:      ValidatePriorityLevelConfigurationUpdate,
		Status:      ValidatePriorityLevelConfigurationStatusUpdate,
	})
}

// TestBootstrap: the objects that every server makes are valid and have nothing to be defaulted.
func TestBootstrap(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddDefaults(s); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas...) {
		defaulted := f.DeepCopy()
		s.Default(defaulted)
		if errs := ValidateFlowSchema(defaulted); len(errs) > 0 || !equality.Semantic.DeepEqual(f, defaulted) {
			t.Errorf("%s: %v, %+v", f.Name, errs, defaulted.Spec)
		}
	}
	for _, p := range append(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations...) {
		defaulted := p.DeepCopy()
		s.Default(defaulted)
		if errs := ValidatePriorityLevelConfiguration(defaulted); len(errs) > 0 || !equality.Semantic.DeepEqual(p, defaulted) {
			t.Errorf("%s: %v, %+v", p.Name, errs, defaulted.Spec)
		}
	}
}
