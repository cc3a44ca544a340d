package resources

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ResourcePIDs is the name under which process numbers are reserved. It is no
// resource of a node.
const ResourcePIDs corev1.ResourceName = "pid"

// A Machine is what a kubelet says about the machine it runs on.
type Machine struct {
	CPUs   int
	Memory uint64
	Swap   uint64
	// HugePages has the number of bytes reserved for each page size in bytes.
	HugePages map[int64]int64
	// EphemeralStorage is the size of the file system that holds the kubelet's root directory.
	EphemeralStorage uint64
	PIDs             int64

	MachineID, SystemUUID, BootID string
	KernelVersion, OSImage        string
}

// ReadMachine reads the machine from /proc, /sys and /etc below root ("/"
// in life); rootDir is the kubelet's root directory.
func ReadMachine(root, rootDir string) (Machine, error) {
	m := Machine{HugePages: map[int64]int64{}}
	mem, err := MemInfo(root)
	if err != nil {
		return m, err
	}
	m.Memory, m.Swap = mem["MemTotal"], mem["SwapTotal"]
	if m.CPUs, err = onlineCPUs(filepath.Join(root, "sys/devices/system/cpu/online")); err != nil {
		return m, err
	}
	if err := m.readHugePages(filepath.Join(root, "sys/kernel/mm/hugepages")); err != nil {
		return m, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(rootDir, &fs); err != nil {
		return m, fmt.Errorf("reading the size of %s: %w", rootDir, err)
	}
	m.EphemeralStorage = fs.Blocks * uint64(fs.Frsize)
	if s := firstLine(root, "proc/sys/kernel/pid_max"); s != "" {
		if m.PIDs, err = strconv.ParseInt(s, 10, 64); err != nil {
			return m, fmt.Errorf("reading the largest process number: %w", err)
		}
	}
	m.MachineID = firstLine(root, "etc/machine-id", "var/lib/dbus/machine-id")
	m.BootID = firstLine(root, "proc/sys/kernel/random/boot_id")
	if m.SystemUUID = firstLine(root, "sys/class/dmi/id/product_uuid"); m.SystemUUID == "" {
		m.SystemUUID = m.MachineID
	}
	m.KernelVersion = firstLine(root, "proc/sys/kernel/osrelease")
	m.OSImage = osImage(root)
	return m, nil
}

// Capacity returns the machine as the capacity of a node, without its number of pods.
func (m Machine) Capacity() corev1.ResourceList {
	c := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(m.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(m.Memory), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(m.EphemeralStorage), resource.BinarySI),
	}
	for size, bytes := range m.HugePages {
		page := resource.NewQuantity(size, resource.BinarySI)
		c[corev1.ResourceName(corev1.ResourceHugePagesPrefix+page.String())] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	return c
}

// A Node is a machine as a node presents it: what there is, and what of it pods may have.
type Node struct {
	Machine
	Reserved Reserved
	// MaxPods is the number of pods that the node takes.
	MaxPods int64
}

// Capacity returns all that the node has.
func (n Node) Capacity() corev1.ResourceList {
	c := n.Machine.Capacity()
	c[corev1.ResourcePods] = *resource.NewQuantity(n.MaxPods, resource.DecimalSI)
	return c
}

// Allocatable returns what of it is offered to pods.
func (n Node) Allocatable() corev1.ResourceList { return Allocatable(n.Capacity(), n.Reserved) }

// PodLimits returns what the kernel holds all pods together to.
func (n Node) PodLimits() corev1.ResourceList {
	c := n.Machine.Capacity()
	_, system := n.Reserved.System[ResourcePIDs]
	if _, kube := n.Reserved.Kube[ResourcePIDs]; system || kube {
		c[ResourcePIDs] = *resource.NewQuantity(n.PIDs, resource.DecimalSI)
	}
	return PodLimits(c, n.Reserved)
}

// Info returns what the machine says of itself, for the node's status.
func (n Node) Info() corev1.NodeSystemInfo {
	i := corev1.NodeSystemInfo{
		MachineID: n.MachineID, SystemUUID: n.SystemUUID, BootID: n.BootID,
		KernelVersion: n.KernelVersion, OSImage: n.OSImage,
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if n.Swap > 0 {
		swap := int64(n.Swap)
		i.Swap = &corev1.NodeSwapStatus{Capacity: &swap}
	}
	return i
}

// Reserved is what of a machine is kept from pods.
type Reserved struct {
	System, Kube corev1.ResourceList
	// Eviction is what must stay free for no pod to be evicted. It is taken off what
	// is offered, not off what pods may use: they must be able to get to the threshold.
	Eviction corev1.ResourceList
}

// Allocatable returns what a node offers to pods. Huge pages are memory that nothing else can have.
func Allocatable(capacity corev1.ResourceList, r Reserved) corev1.ResourceList {
	a := PodLimits(capacity, r)
	subtract(a, r.Eviction)
	for n, q := range capacity {
		if _, ok := cutHugePages(n); ok {
			subtract(a, corev1.ResourceList{corev1.ResourceMemory: q})
		}
	}
	return a
}

// PodLimits returns what all pods together may use.
func PodLimits(capacity corev1.ResourceList, r Reserved) corev1.ResourceList {
	l := capacity.DeepCopy()
	subtract(l, r.System)
	subtract(l, r.Kube)
	return l
}

func subtract(from, what corev1.ResourceList) {
	for n, q := range what {
		have, ok := from[n]
		if !ok {
			continue
		}
		have.Sub(q)
		if have.Sign() < 0 {
			have.Set(0)
		}
		from[n] = have
	}
}

// ParseResources reads a configuration's map of quantities (systemReserved,
// kubeReserved); field is its name for errors.
func ParseResources(field string, m map[string]string) (corev1.ResourceList, error) {
	l := corev1.ResourceList{}
	for k, v := range m {
		n := corev1.ResourceName(k)
		_, huge := cutHugePages(n)
		switch {
		case huge, n == corev1.ResourceCPU, n == corev1.ResourceMemory, n == corev1.ResourceEphemeralStorage, n == ResourcePIDs:
		default:
			return nil, fmt.Errorf("%s: cannot reserve %q", field, k)
		}
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return nil, fmt.Errorf("%s[%s]: %w", field, k, err)
		}
		if q.Sign() < 0 {
			return nil, fmt.Errorf("%s[%s]: %s is negative", field, k, v)
		}
		l[n] = q
	}
	return l, nil
}

// MemInfo reads root/proc/meminfo, in bytes.
func MemInfo(root string) (map[string]uint64, error) {
	b, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return nil, fmt.Errorf("reading the machine's memory: %w", err)
	}
	m := map[string]uint64{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, rest, ok := strings.Cut(s.Text(), ":")
		f := strings.Fields(rest)
		if !ok || len(f) == 0 {
			continue
		}
		v, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading the machine's memory: %s: %w", name, err)
		}
		if len(f) == 2 && f[1] == "kB" {
			v *= 1024
		}
		m[name] = v
	}
	if m["MemTotal"] == 0 {
		return nil, errors.New("reading the machine's memory: no MemTotal in /proc/meminfo")
	}
	return m, nil
}

// onlineCPUs counts a list like 0-3,8.
func onlineCPUs(file string) (int, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return runtime.NumCPU(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("counting CPUs: %w", err)
	}
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.Atoi(first)
		hi, err2 := strconv.Atoi(last)
		if err := errors.Join(err1, err2); err != nil || hi < lo {
			return 0, fmt.Errorf("counting CPUs: %q in %s: %w", part, file, err)
		}
		n += hi - lo + 1
	}
	return n, nil
}

func (m *Machine) readHugePages(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading huge pages: %w", err)
	}
	for _, e := range entries {
		kb, ok := strings.CutPrefix(e.Name(), "hugepages-")
		if !ok {
			continue
		}
		size, err := strconv.ParseInt(strings.TrimSuffix(kb, "kB"), 10, 64)
		if err != nil {
			return fmt.Errorf("reading huge pages: %s: %w", e.Name(), err)
		}
		n, err := strconv.ParseInt(firstLine(dir, filepath.Join(e.Name(), "nr_hugepages")), 10, 64)
		if err != nil {
			return fmt.Errorf("reading huge pages: %s: %w", e.Name(), err)
		}
		m.HugePages[size*1024] = n * size * 1024
	}
	return nil
}

// PageSizeName spells a page size as the kernel does in file names: 2MB, 1GB.
func PageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	i := 0
	for bytes >= 1024 && bytes%1024 == 0 && i < len(units)-1 {
		bytes, i = bytes/1024, i+1
	}
	return strconv.FormatInt(bytes, 10) + units[i]
}

// firstLine returns the first line of the first of the files that can be read, or "".
func firstLine(root string, files ...string) string {
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

func osImage(root string) string {
	for _, f := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return "Linux"
}
