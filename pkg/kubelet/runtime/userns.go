package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// idsPerPod is the number of users of a pod in its own user namespace, and where the first range starts.
const idsPerPod = 65536

// users hands each pod in a user namespace of its own a range of the host's ids that no
// other pod has. A range is remembered in the pod's directory, in the original's format.
type users struct {
	podDir  func(types.UID) string
	maxPods int

	mu     sync.Mutex
	loaded bool
	ranges map[types.UID]uint32 // first host id
}

type usersFile struct {
	UIDMappings []usersRange `json:"uidMappings"`
	GIDMappings []usersRange `json:"gidMappings"`
}

type usersRange struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

func (u *users) mapping(pod *v1.Pod) (*runtimeapi.UserNamespace, error) {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}, nil
	}
	first, err := u.allocate(pod.UID)
	if err != nil {
		return nil, fmt.Errorf("allocating users of the pod: %w", err)
	}
	ids := []*runtimeapi.IDMapping{{HostId: first, ContainerId: 0, Length: idsPerPod}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

func (u *users) allocate(uid types.UID) (uint32, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.load(); err != nil {
		return 0, err
	}
	if first, ok := u.ranges[uid]; ok {
		return first, nil
	}
	taken := map[uint32]bool{}
	for _, first := range u.ranges {
		taken[first] = true
	}
	for n := 1; n <= u.maxPods; n++ {
		first := uint32(n) * idsPerPod
		if taken[first] {
			continue
		}
		ids := []usersRange{{HostID: first, Length: idsPerPod}}
		raw, err := json.Marshal(usersFile{ids, ids})
		if err != nil {
			return 0, err
		}
		if err := os.MkdirAll(u.podDir(uid), 0o750); err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(u.podDir(uid), "userns"), raw, 0o600); err != nil {
			return 0, err
		}
		u.ranges[uid] = first
		return first, nil
	}
	return 0, fmt.Errorf("all %d ranges are taken", u.maxPods)
}

// load reads what an earlier kubelet has handed out.
func (u *users) load() error {
	if u.loaded {
		return nil
	}
	u.ranges = map[types.UID]uint32{}
	pods, err := os.ReadDir(u.podDir(""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, p := range pods {
		raw, err := os.ReadFile(filepath.Join(u.podDir(types.UID(p.Name())), "userns"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var f usersFile
		if err == nil {
			err = json.Unmarshal(raw, &f)
		}
		if err != nil {
			return fmt.Errorf("users of pod %s: %w", p.Name(), err)
		}
		if len(f.UIDMappings) > 0 {
			u.ranges[types.UID(p.Name())] = f.UIDMappings[0].HostID
		}
	}
	u.loaded = true
	return nil
}

func (u *users) release(uid types.UID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.ranges, uid)
}
