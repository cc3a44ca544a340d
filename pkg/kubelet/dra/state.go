package dra

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/leme-k8s/leme/pkg/component/files"
)

// StateFile is the file's name below the kubelet's directory.
const StateFile = "dra_manager_state"

// claim is a claim that has been prepared, or begun to be.
type claim struct {
	ClaimUID    types.UID
	ClaimName   string
	Namespace   string
	PodUIDs     sets.Set[string]
	DriverState map[string]driverState

	prepared bool // under this kubelet
}

type driverState struct {
	Devices            []device
	SkipNodeOperations []resourcev1.SkipNodeOperation `json:"skipNodeOperations,omitempty"`
}

type device struct {
	PoolName     string
	DeviceName   string
	ShareID      *types.UID
	RequestNames []string
	CDIDeviceIDs []string
}

// newClaim is a claim of which nothing is prepared.
func newClaim(object *resourcev1.ResourceClaim) *claim {
	c := &claim{ClaimUID: object.UID, ClaimName: object.Name, Namespace: object.Namespace, PodUIDs: sets.New[string](), DriverState: map[string]driverState{}}
	for _, r := range object.Status.Allocation.Devices.Results {
		d, seen := c.DriverState[r.Driver]
		if !seen {
			d.SkipNodeOperations = r.SkipNodeOperations
		} else {
			// The driver is asked unless that is needless for all of its devices.
			d.SkipNodeOperations = slices.DeleteFunc(slices.Clone(d.SkipNodeOperations), func(op resourcev1.SkipNodeOperation) bool {
				return !driverState{SkipNodeOperations: r.SkipNodeOperations}.skips(op)
			})
		}
		c.DriverState[r.Driver] = d
	}
	return c
}

func (d driverState) skips(op resourcev1.SkipNodeOperation) bool {
	return slices.Contains(d.SkipNodeOperations, op) || slices.Contains(d.SkipNodeOperations, resourcev1.SkipNodeOperationAll)
}

func (c *claim) reference() *drapb.Claim {
	return &drapb.Claim{Namespace: c.Namespace, Uid: string(c.ClaimUID), Name: c.ClaimName}
}

// cdi are the names of the devices for a request; an empty one is all of them.
func (c *claim) cdi(request string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.DriverState)) {
		for _, d := range c.DriverState[name].Devices {
			if request == "" || len(d.RequestNames) == 0 || slices.Contains(d.RequestNames, request) {
				out = append(out, d.CDIDeviceIDs...)
			}
		}
	}
	return out
}

// checkpoint is the format of the file.
type checkpoint struct {
	Data     string
	Checksum uint32
}

type checkpointData struct {
	metav1.TypeMeta
	ClaimInfoStateList []*claim
}

func readState(path string) (map[types.NamespacedName]*claim, error) {
	state := map[types.NamespacedName]*claim{}
	if path == "" {
		return state, nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	var file checkpoint
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err == nil && crc32.ChecksumIEEE([]byte(file.Data)) != file.Checksum {
		err = errors.New("its checksum is wrong")
	}
	var data checkpointData
	if err == nil {
		err = json.Unmarshal([]byte(file.Data), &data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says what drivers have prepared, cannot be read (drain the node and remove it): %w", path, err)
	}
	for _, c := range data.ClaimInfoStateList {
		state[types.NamespacedName{Namespace: c.Namespace, Name: c.ClaimName}] = c
	}
	return state, nil
}

func writeState(path string, state map[types.NamespacedName]*claim) error {
	if path == "" {
		return nil
	}
	data := checkpointData{TypeMeta: metav1.TypeMeta{Kind: "DRACheckpoint", APIVersion: "checkpoint.dra.kubelet.k8s.io/v1"}, ClaimInfoStateList: []*claim{}}
	for _, key := range slices.SortedFunc(maps.Keys(state), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) }) {
		data.ClaimInfoStateList = append(data.ClaimInfoStateList, state[key])
	}
	inner, err := json.Marshal(data)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(checkpoint{string(inner), crc32.ChecksumIEEE(inner)})
	if err != nil {
		return err
	}
	if err := files.Replace(path, raw, 0o600); err != nil {
		return fmt.Errorf("noting what drivers have prepared: %w", err)
	}
	return nil
}
