package imagepolicywebhook

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/pluginconfig"
)

// config is the plugin's section of the configuration file. Zero is the default of a
// number, -1 switches it off.
type config struct {
	KubeConfigFile string `json:"kubeConfigFile"`
	// AllowTTL and DenyTTL are how many seconds an answer is kept.
	AllowTTL int64 `json:"allowTTL"`
	DenyTTL  int64 `json:"denyTTL"`
	// RetryBackoff is how many milliseconds pass before the first repetition of a failed call.
	RetryBackoff int64 `json:"retryBackoff"`
	// DefaultAllow lets pods pass while the webhook does not answer.
	DefaultAllow bool `json:"defaultAllow"`
}

// settings are the numbers of a config as durations.
type settings struct{ allowTTL, denyTTL, backoff time.Duration }

func readConfig(section io.Reader) (*config, settings, error) {
	if section == nil {
		return nil, settings{}, errors.New("no config specified")
	}
	var file struct {
		ImagePolicy config `json:"imagePolicy"`
	}
	if err := pluginconfig.Read(section, &file); err != nil {
		return nil, settings{}, err
	}
	s, err := file.ImagePolicy.settings()
	return &file.ImagePolicy, s, err
}

func (c config) settings() (s settings, err error) {
	var errs [3]error
	s.backoff, errs[0] = duration("retryBackoff", c.RetryBackoff, time.Millisecond, time.Millisecond, 5*time.Minute, 500*time.Millisecond)
	s.allowTTL, errs[1] = duration("allowTTL", c.AllowTTL, time.Second, time.Second, 30*time.Minute, 5*time.Minute)
	s.denyTTL, errs[2] = duration("denyTTL", c.DenyTTL, time.Second, time.Second, 30*time.Minute, 30*time.Second)
	return s, errors.Join(errs[:]...)
}

func duration(name string, n int64, unit, low, high, standard time.Duration) (time.Duration, error) {
	switch n {
	case 0:
		return standard, nil
	case -1:
		return 0, nil
	}
	if n < int64(low/unit) || n > int64(high/unit) {
		return 0, fmt.Errorf("imagePolicy.%s: valid value is between %v and %v, got %d", name, low, high, n)
	}
	return time.Duration(n) * unit, nil
}
