package component

import (
	"os"
	"strconv"

	logsapi "k8s.io/component-base/logs/api/v1"
)

// SetOOMScore makes it less, or more, likely that the kernel ends this process when
// memory runs out. Without the right to, it returns an error that a component can live with.
func SetOOMScore(score int) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}

// AsksForLogging reports whether the section of a configuration file asks for other
// logs than a component writes by itself. Its flags of logging decide, not its file.
func AsksForLogging(c *logsapi.LoggingConfiguration) bool {
	return c.Verbosity != 0 || len(c.VModule) > 0 || c.Format != "" && c.Format != logsapi.DefaultLogFormat
}
