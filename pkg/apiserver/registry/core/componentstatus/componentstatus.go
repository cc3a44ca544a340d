// Package componentstatus serves core/v1 ComponentStatus: whether the scheduler and the
// controller manager on this machine, and etcd, are well. Nothing is stored.
package componentstatus

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

const (
	timeout = 20 * time.Second
	// maxMessage is how much of a component's answer is shown.
	maxMessage = 10 << 10
)

// A Component is asked how it is.
type Component struct {
	Name string
	// Check returns what the component says, or why it could not be asked.
	Check func(ctx context.Context) (condition corev1.ConditionStatus, message string, err error)
}

// Components are those of a usual control plane, whose ports are the default ones: the
// scheduler and the controller manager, and the stores that checks ask.
func Components(stores []func(*http.Request) error) []Component {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		// It is a question to this machine, and no secret goes with it.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	all := []Component{
		{"scheduler", healthz(client, "https://127.0.0.1:10259/healthz")},
		{"controller-manager", healthz(client, "https://127.0.0.1:10257/healthz")},
	}
	for i, check := range stores {
		all = append(all, Component{fmt.Sprintf("etcd-%d", i), func(context.Context) (corev1.ConditionStatus, string, error) {
			if err := check(nil); err != nil {
				return corev1.ConditionFalse, "", err
			}
			return corev1.ConditionTrue, "ok", nil
		}})
	}
	return all
}

// healthz asks a component on its health port.
func healthz(client *http.Client, url string) func(context.Context) (corev1.ConditionStatus, string, error) {
	return func(ctx context.Context) (corev1.ConditionStatus, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return corev1.ConditionUnknown, "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return corev1.ConditionFalse, err.Error(), nil
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
		switch {
		case err != nil:
			return corev1.ConditionUnknown, "", err
		case resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest:
			return corev1.ConditionFalse, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
		}
		return corev1.ConditionTrue, string(body), nil
	}
}

// Storage serves the status of the components.
func Storage(components []Component) generic.Storage {
	return generic.Storage{"componentstatuses": &store{TableConvertor: generic.NewTableConvertor(&table), components: components}}
}

type store struct {
	rest.TableConvertor
	components []Component
}

var (
	_ rest.Storage              = &store{}
	_ rest.Scoper               = &store{}
	_ rest.Getter               = &store{}
	_ rest.Lister               = &store{}
	_ rest.ShortNamesProvider   = &store{}
	_ rest.SingularNameProvider = &store{}
)

// New implements rest.Storage.
func (*store) New() runtime.Object { return &corev1.ComponentStatus{} }

// NewList implements rest.Lister.
func (*store) NewList() runtime.Object { return &corev1.ComponentStatusList{} }

// Destroy implements rest.Storage.
func (*store) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*store) NamespaceScoped() bool { return false }

// ShortNames implements rest.ShortNamesProvider.
func (*store) ShortNames() []string { return []string{"cs"} }

// GetSingularName implements rest.SingularNameProvider.
func (*store) GetSingularName() string { return "componentstatus" }

// Get implements rest.Getter.
func (s *store) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	for _, c := range s.components {
		if c.Name == name {
			status := c.status(ctx)
			return &status, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), name)
}

// List implements rest.Lister. It asks the components that are selected, all at once.
func (s *store) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	var asked []Component
	for _, c := range s.components {
		if selected(c.Name, options) {
			asked = append(asked, c)
		}
	}
	list := &corev1.ComponentStatusList{Items: make([]corev1.ComponentStatus, len(asked))}
	var wait sync.WaitGroup
	for i, c := range asked {
		wait.Go(func() { list.Items[i] = c.status(ctx) })
	}
	wait.Wait()
	return list, nil
}

// selected reports whether the options select the component, which has no labels.
func selected(name string, options *metainternalversion.ListOptions) bool {
	if options == nil {
		return true
	}
	byLabel, byField := options.LabelSelector, options.FieldSelector
	return (byLabel == nil || byLabel.Matches(labels.Set{})) &&
		(byField == nil || byField.Matches(fields.Set{"metadata.name": name, "metadata.namespace": ""}))
}

func (c Component) status(ctx context.Context) corev1.ComponentStatus {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	condition, message, err := c.Check(ctx)
	healthy := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: condition, Message: message}
	if err != nil {
		healthy.Error = err.Error()
	}
	return corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Conditions: []corev1.ComponentCondition{healthy}}
}

// table says how statuses are printed.
var table = generic.Resource[*corev1.ComponentStatus]{
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Status", "string", "Status of the component conditions"),
		generic.Column("Message", "string", "Message of the component conditions"),
		generic.Column("Error", "string", "Error of the component conditions"),
	},
	Cells: func(s *corev1.ComponentStatus) []any {
		for _, c := range s.Conditions {
			switch {
			case c.Type != corev1.ComponentHealthy:
			case c.Status == corev1.ConditionTrue:
				return []any{s.Name, "Healthy", c.Message, c.Error}
			default:
				return []any{s.Name, "Unhealthy", c.Message, c.Error}
			}
		}
		return []any{s.Name, "Unknown", "", ""}
	},
}
