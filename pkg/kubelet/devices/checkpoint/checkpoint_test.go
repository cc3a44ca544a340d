package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOriginal writes a file as the original does, and reads it.
func TestOriginal(t *testing.T) {
	const original = `{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","ResourceName":"example.com/d","DeviceIDs":{"-1":["d1"]},"AllocResp":"AQI="}],` +
		`"RegisteredDevices":{"example.com/d":["d1","d2"]}},"Checksum":4084955631}`
	path := filepath.Join(t.TempDir(), File)
	if entries, devices, err := Read(path); len(entries)+len(devices) != 0 || err != nil {
		t.Errorf("no file: %v %v %v", entries, devices, err)
	}
	want := []PodDevicesEntry{{PodUID: "u", ContainerName: "c", ResourceName: "example.com/d", DeviceIDs: DevicesPerNUMA{-1: []string{"d1"}}, AllocResp: []byte{1, 2}}}
	registered := map[string][]string{"example.com/d": {"d1", "d2"}}
	if err := Write(path, want, registered); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(path); string(raw) != original {
		t.Errorf("written as\n%s\nwant\n%s", raw, original)
	}
	entries, devices, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, entries) + cmp.Diff(registered, devices); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(path, []byte(`{"Data":{},"Checksum":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(path); err == nil {
		t.Error("a damaged file goes unnoticed")
	}
}
