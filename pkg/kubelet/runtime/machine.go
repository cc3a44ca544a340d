package runtime

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// hugePageSizes are the page sizes that the machine's kernel supports, in bytes.
var hugePageSizes = sync.OnceValue(func() []int64 {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []int64
	for _, e := range entries {
		kb, ok := strings.CutPrefix(e.Name(), "hugepages-")
		if n, err := strconv.ParseInt(strings.TrimSuffix(kb, "kB"), 10, 64); ok && err == nil {
			sizes = append(sizes, n*1024)
		}
	}
	slices.Sort(sizes)
	return sizes
})
