package eventratelimit

import (
	"errors"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/pluginconfig"
)

// LimitType says which events share an allowance.
type LimitType string

// The types of limits.
const (
	ServerLimitType          LimitType = "Server"
	NamespaceLimitType       LimitType = "Namespace"
	UserLimitType            LimitType = "User"
	SourceAndObjectLimitType LimitType = "SourceAndObject"
)

// defaultCacheSize is how many allowances a limit remembers.
const defaultCacheSize = 4096

// configKind is the kind of the plugin's section of the configuration file.
var configKind = schema.GroupVersionKind{Group: "eventratelimit.admission.k8s.io", Version: "v1alpha1", Kind: "Configuration"}

// Configuration lists limits, all of which an event must keep.
type Configuration struct {
	metav1.TypeMeta `json:",inline"`
	Limits          []Limit `json:"limits"`
}

// Limit allows Burst events at once and QPS a second.
type Limit struct {
	Type  LimitType `json:"type"`
	QPS   int32     `json:"qps"`
	Burst int32     `json:"burst"`
	// CacheSize is how many allowances are remembered; who is forgotten starts anew.
	CacheSize int32 `json:"cacheSize,omitempty"`
}

func readConfiguration(section io.Reader) (*Configuration, error) {
	if section == nil {
		return nil, errors.New("missing configuration: at least one limit is needed")
	}
	c := &Configuration{}
	if err := pluginconfig.ReadKind(section, configKind, c, &c.TypeMeta); err != nil {
		return nil, err
	}
	for i := range c.Limits {
		if l := &c.Limits[i]; l.CacheSize == 0 && l.Type != ServerLimitType {
			l.CacheSize = defaultCacheSize
		}
	}
	return c, c.validate().ToAggregate()
}

func (c *Configuration) validate() (errs field.ErrorList) {
	limits := field.NewPath("limits")
	if len(c.Limits) == 0 {
		return field.ErrorList{field.Invalid(limits, c.Limits, "must not be empty")}
	}
	for i, l := range c.Limits {
		path := limits.Index(i)
		if l.Burst <= 0 {
			errs = append(errs, field.Invalid(path.Child("burst"), l.Burst, "must be positive"))
		}
		if l.QPS <= 0 {
			errs = append(errs, field.Invalid(path.Child("qps"), l.QPS, "must be positive"))
		}
		switch l.Type {
		case ServerLimitType:
		case NamespaceLimitType, UserLimitType, SourceAndObjectLimitType:
			if l.CacheSize <= 0 {
				errs = append(errs, field.Invalid(path.Child("cacheSize"), l.CacheSize, "must not be negative"))
			}
		default:
			errs = append(errs, field.NotSupported(path.Child("type"), l.Type,
				[]LimitType{ServerLimitType, NamespaceLimitType, UserLimitType, SourceAndObjectLimitType}))
		}
	}
	return errs
}
