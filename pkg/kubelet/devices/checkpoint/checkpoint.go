// Package checkpoint is the file in which device managers keep who has which devices. The original's checksum is taken over the
// Go values, names of types and of this package included, so these are as they must be.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"

	"k8s.io/utils/dump"

	"github.com/leme-k8s/leme/pkg/component/files"
)

// File is its name in the directory of device plugins.
const File = "kubelet_internal_checkpoint"

// DevicesPerNUMA are ids of devices by the memory node they are near to; -1 is none.
type DevicesPerNUMA map[int64][]string

// PodDevicesEntry is what a container has of one resource.
type PodDevicesEntry struct {
	PodUID        string
	ContainerName string
	ResourceName  string
	DeviceIDs     DevicesPerNUMA
	AllocResp     []byte
}

type checkpointData struct {
	PodDeviceEntries  []PodDevicesEntry
	RegisteredDevices map[string][]string
}

type file struct {
	Data     checkpointData
	Checksum uint64
}

func sum(data checkpointData) uint64 {
	h := fnv.New32a()
	fmt.Fprint(h, dump.ForHash(data))
	return uint64(h.Sum32())
}

// Read returns what is in a file, and the ids of devices by resource; no file is an empty one.
func Read(path string) ([]PodDevicesEntry, map[string][]string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	var f file
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if err == nil && f.Checksum != sum(f.Data) {
		err = errors.New("the checksum is wrong")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading who has which devices from %s: %w", path, err)
	}
	return f.Data.PodDeviceEntries, f.Data.RegisteredDevices, nil
}

// Write replaces a file. devices are the ids of all devices by resource.
func Write(path string, entries []PodDevicesEntry, devices map[string][]string) error {
	data := checkpointData{PodDeviceEntries: entries, RegisteredDevices: devices}
	raw, err := json.Marshal(file{data, sum(data)})
	if err == nil {
		err = files.Replace(path, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("noting who has which devices: %w", err)
	}
	return nil
}
