package allocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/dump"

	"github.com/leme-k8s/leme/pkg/component/files"
)

// A Store keeps the resources of pods in a file.
type Store struct {
	path string // empty: only in memory

	mu   sync.Mutex
	pods map[types.UID]Resources
}

// checkpoint is the format of the file: the data is JSON itself, so that its sum can be taken.
type checkpoint struct {
	Data     string `json:"data"`
	Checksum uint64 `json:"checksum"`
}

type entries struct {
	Entries map[types.UID]Resources `json:"entries,omitempty"`
}

// Open reads what is in a file; none is an empty one. A file that cannot be understood is an error beside a store that
// is empty and works: what it knew is lost, and pods have what they ask for.
func Open(path string) (*Store, error) {
	s := &Store{path: path, pods: map[types.UID]Resources{}}
	if path == "" {
		return s, nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var file checkpoint
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err == nil && file.Checksum != checksum(file.Data) {
		err = fmt.Errorf("the checksum is %d, that of the data %d", file.Checksum, checksum(file.Data))
	}
	var data entries
	if err == nil {
		err = json.Unmarshal([]byte(file.Data), &data)
	}
	if err != nil {
		return s, fmt.Errorf("reading the resources of pods from %s: %w", path, err)
	}
	maps.Copy(s.pods, data.Entries)
	return s, nil
}

func checksum(data string) uint64 {
	h := fnv.New32a()
	fmt.Fprint(h, dump.ForHash(data))
	return uint64(h.Sum32())
}

// Get returns a pod's resources.
func (s *Store) Get(uid types.UID) (Resources, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.pods[uid]
	return r.clone(), ok
}

// Set notes a pod's resources.
func (s *Store) Set(uid types.UID, r Resources) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[uid] = r.clone()
	return s.write()
}

// SetContainer notes the resources of one container.
func (s *Store) SetContainer(uid types.UID, name string, r v1.ResourceRequirements) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.pods[uid].clone()
	if own.Containers == nil {
		own.Containers = map[string]v1.ResourceRequirements{}
	}
	own.Containers[name] = *r.DeepCopy()
	s.pods[uid] = own
	return s.write()
}

// SetPod notes the resources of a pod as a whole.
func (s *Store) SetPod(uid types.UID, r *v1.ResourceRequirements) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.pods[uid].clone()
	own.Pod = r.DeepCopy()
	s.pods[uid] = own
	return s.write()
}

// Remove forgets a pod.
func (s *Store) Remove(uid types.UID) error {
	return s.Retain(func(other types.UID) bool { return other != uid })
}

// Retain forgets the pods that are not to be kept.
func (s *Store) Retain(keep func(types.UID) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.pods)
	maps.DeleteFunc(s.pods, func(uid types.UID, _ Resources) bool { return !keep(uid) })
	if len(s.pods) == before {
		return nil
	}
	return s.write()
}

// write replaces the file. The lock is held.
func (s *Store) write() error {
	if s.path == "" {
		return nil
	}
	data, err := json.Marshal(entries{s.pods})
	if err != nil {
		return fmt.Errorf("noting the resources of pods: %w", err)
	}
	raw, err := json.Marshal(checkpoint{string(data), checksum(string(data))})
	if err != nil {
		return fmt.Errorf("noting the resources of pods: %w", err)
	}
	if err := files.Replace(s.path, raw, 0o600); err != nil {
		return fmt.Errorf("noting the resources of pods: %w", err)
	}
	return nil
}
