package runtime

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// IsNotFound tells whether the runtime does not know what was asked for.
func IsNotFound(err error) bool { return err != nil && status.Code(err) == codes.NotFound }

// An Error says what a container that could not be started is waiting for.
type Error struct {
	reason string
	err    error
}

// The reasons for which a container cannot be made.
const (
	ReasonSandbox         = "FailedCreatePodSandBox"
	ReasonContainerConfig = "CreateContainerConfigError"
	ReasonContainer       = "CreateContainerError"
	ReasonRun             = "RunContainerError"
	ReasonPostStart       = "PostStartHookError"
)

func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Reason is the reason as a container's status shows it.
func (e *Error) Reason() string { return e.reason }

// NewError gives a cause its reason.
func NewError(reason string, err error) *Error { return &Error{reason: reason, err: err} }
