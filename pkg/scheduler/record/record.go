// Package record writes down all that decisions of a scheduler depend on, and the
// decisions, so that they can be made again.
//
// A recording is a file of JSON, compressed, one entry a line, in the order in which
// things became known: a Header, and then entries that say one thing each. What a
// decision sees changes only between two of them: while a scheduler is recorded, watch
// events and whatever else changes it wait until the decision has been made.
package record

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Format is the version of the format.
const Format = 1

// Header is the first line.
type Header struct {
	Format int `json:"format"`
	// Version is that of the scheduler.
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	// Configuration is the KubeSchedulerConfiguration, with its defaults.
	Configuration json.RawMessage `json:"configuration"`
	// Gates are the feature gates.
	Gates framework.Gates `json:"featureGates,omitzero"`
}

// Entry is any other line. One field is set.
type Entry struct {
	Saw     *Saw     `json:"saw,omitempty"`
	Decided *Decided `json:"decided,omitempty"`
	Undone  *Pod     `json:"undone,omitempty"`
	Noted   *Noted   `json:"noted,omitempty"`
	// Full says that the recording ends here because the file may not grow further.
	Full bool `json:"full,omitempty"`
}

// Saw is an object that came, changed or went.
type Saw struct {
	Object Object `json:"object"`
	Gone   bool   `json:"gone,omitempty"`
}

// Object is an object of Kubernetes' own kinds.
type Object struct{ runtime.Object }

// MarshalJSON writes the object with its kind.
func (o Object) MarshalJSON() ([]byte, error) {
	kinds, _, err := clientscheme.Scheme.ObjectKinds(o.Object)
	if err != nil {
		return nil, err
	}
	return runtime.Encode(clientscheme.Codecs.LegacyCodec(kinds[0].GroupVersion()), o.Object)
}

// UnmarshalJSON reads it.
func (o *Object) UnmarshalJSON(data []byte) (err error) {
	o.Object, _, err = clientscheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
	return err
}

// Pod names a pod.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

// Noted is a change of a plugin's memory.
type Noted struct {
	Profile string `json:"profile"`
	Plugin  string `json:"plugin"`
	What    string `json:"what"`
	Object  Object `json:"object"`
}

// Decided is a decision: which pod was tried, and what came of it.
type Decided struct {
	Pod
	Attempt int `json:"attempt"`
	// Start is the node at which the search began, Seed what chose among equals.
	Start int    `json:"start"`
	Seed  uint64 `json:"seed"`
	// Time is when it was tried, which tells whether devices took too long to become ready.
	Time time.Time `json:"time,omitzero"`
	// Object is the pod as it was tried, if that is not how it was seen last.
	Object *Object `json:"object,omitempty"`
	// Group is the pod group that was tried, of which this is the first pod; Mates are
	// the others. Composite says that it is a group of groups.
	Group     string  `json:"podGroup,omitempty"`
	Composite bool    `json:"compositePodGroup,omitempty"`
	Mates     []Tried `json:"mates,omitempty"`
	Outcome
}

// Tried is a pod that was tried with its group.
type Tried struct {
	Pod
	Attempt int     `json:"attempt"`
	Object  *Object `json:"object,omitempty"`
}

// Pods returns the pods that were tried, in order.
func (d *Decided) Pods() []Tried { return append([]Tried{{d.Pod, d.Attempt, d.Object}}, d.Mates...) }

// Outcome is what came of a try.
type Outcome struct {
	// Node is the one that was chosen, Message says why none was.
	Node    string `json:"node,omitempty"`
	Message string `json:"message,omitempty"`
	// Nominated is the node that is promised to the pod from now on; none at all, if
	// it is empty. Without it the promise stays what it was.
	Nominated *string  `json:"nominated,omitempty"`
	Victims   []string `json:"victims,omitempty"`

	Evaluated int             `json:"evaluated,omitempty"`
	Feasible  int             `json:"feasible,omitempty"`
	Scores    []explain.Score `json:"scores,omitempty"`

	// Members is what came of the pods of a group, in the order in which they were tried.
	// The rest is then of the group.
	Members []Outcome `json:"members,omitempty"`
}

// Recorder writes a recording. A nil one writes none.
type Recorder struct {
	// mu is held while something changes that decisions depend on, and by decisions.
	mu      sync.Mutex
	file    io.Closer
	counted *counter
	out     *gzip.Writer
	limit   int64
	after   []Entry // noted during a decision, which is written before them
	inside  bool    // a decision is being made
	err     error   // why nothing more is written
}

type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// Create begins a recording of at most limit bytes, in a file that only its owner can
// read, since it has the specs of all pods. A file that is there is kept, as path.old.
func Create(path string, limit int64, h Header) (*Recorder, error) {
	if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	c := &counter{Writer: file}
	r := &Recorder{file: file, counted: c, out: gzip.NewWriter(c), limit: limit}
	h.Format = Format
	if err := json.NewEncoder(r.out).Encode(h); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// Run writes out what has been recorded once a second, until ctx is cancelled, and then
// closes the file.
func (r *Recorder) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.mu.Lock()
			if r.err == nil {
				r.stop(r.out.Flush())
			}
			r.mu.Unlock()
		case <-ctx.Done():
			r.mu.Lock()
			r.stop(errEnd)
			r.mu.Unlock()
			return
		}
	}
}

var (
	errEnd  = errors.New("the scheduler ends")
	errFull = errors.New("the file has reached its limit")
)

// stop ends the recording if there is a reason to.
func (r *Recorder) stop(reason error) {
	if reason == nil || r.err != nil {
		return
	}
	r.err = reason
	if !errors.Is(reason, errEnd) {
		klog.Background().Info("Recording no further", "reason", reason.Error())
	}
	if err := errors.Join(r.out.Close(), r.file.Close()); err != nil {
		klog.Background().Error(err, "Closing the recording")
	}
}

// write appends an entry. The mutex is held.
func (r *Recorder) write(e Entry) {
	if r.err != nil {
		return
	}
	if r.counted.n > r.limit {
		if err := json.NewEncoder(r.out).Encode(Entry{Full: true}); err != nil {
			r.stop(err)
			return
		}
		r.stop(errFull)
		return
	}
	if err := json.NewEncoder(r.out).Encode(e); err != nil {
		r.stop(fmt.Errorf("writing the recording: %w", err))
	}
}

// insideKey marks the context of a decision.
type insideKey struct{}

// Decide makes a decision while nothing changes that it could depend on, and writes it
// down. decide may return nil if there was nothing to decide.
func (r *Recorder) Decide(ctx context.Context, decide func(context.Context) *Decided) {
	if r == nil {
		decide(ctx)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside = true
	if d := decide(context.WithValue(ctx, insideKey{}, r)); d != nil {
		r.write(Entry{Decided: d})
	}
	r.inside = false
	for _, e := range r.after {
		r.write(e)
	}
	r.after = nil
}

// Change makes a change between two decisions and writes down what e says of it; as part
// of a decision, which it follows in the recording, if ctx is of one.
func (r *Recorder) Change(ctx context.Context, e func() Entry, change func()) {
	switch {
	case r == nil:
		change()
	case ctx.Value(insideKey{}) == r:
		r.after = append(r.after, e())
		change()
	default:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.write(e())
		change()
	}
}

// Reader reads a recording.
type Reader struct {
	Header Header
	lines  *json.Decoder
}

// NewReader begins to read.
func NewReader(in io.Reader) (*Reader, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("this is no recording of a scheduler: %w", err)
	}
	r := &Reader{lines: json.NewDecoder(z)}
	if err := r.lines.Decode(&r.Header); err != nil {
		return nil, fmt.Errorf("this is no recording of a scheduler: %w", err)
	}
	if r.Header.Format != Format {
		return nil, fmt.Errorf("the recording has format %d, and this can read %d", r.Header.Format, Format)
	}
	return r, nil
}

// ErrCut says that a recording ends in the middle, since its scheduler was killed or
// goes on.
var ErrCut = errors.New("the recording breaks off")

// Next returns the next entry; io.EOF at the end.
func (r *Reader) Next() (Entry, error) {
	var e Entry
	err := r.lines.Decode(&e)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrCut
	}
	return e, err
}
