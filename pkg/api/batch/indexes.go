package batch

import (
	"fmt"
	"strconv"
	"strings"
)

// indexSet is the parsed form of "1,3-5,7": intervals that do not touch, in order.
type indexSet [][2]int

// parseIndexes reads a set of indexes below limit, in increasing order.
func parseIndexes(s string, limit int) (indexSet, error) {
	if s == "" {
		return nil, nil
	}
	var set indexSet
	last := -1
	next := func(text string) (int, error) {
		i, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return 0, fmt.Errorf("cannot convert string to integer for index: %q", text)
		case i >= limit:
			return 0, fmt.Errorf("too large index: %q", text)
		case last >= 0 && i <= last:
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, i)
		}
		last = i
		return i, nil
	}
	for _, fragment := range strings.Split(s, ",") {
		parts := strings.Split(fragment, "-")
		if len(parts) > 2 {
			return nil, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", fragment)
		}
		first, err := next(parts[0])
		if err != nil {
			return nil, err
		}
		interval := [2]int{first, first}
		if len(parts) == 2 {
			if interval[1], err = next(parts[1]); err != nil {
				return nil, err
			}
		}
		set = append(set, interval)
	}
	return set, nil
}

// len is the number of indexes in the set.
func (s indexSet) len() int {
	n := 0
	for _, interval := range s {
		n += interval[1] - interval[0] + 1
	}
	return n
}

// overlap returns the first index that both sets have.
func (s indexSet) overlap(other indexSet) (int, bool) {
	for i, j := 0, 0; i < len(s) && j < len(other); {
		if first := max(s[i][0], other[j][0]); first <= min(s[i][1], other[j][1]) {
			return first, true
		}
		if s[i][1] < other[j][1] {
			i++
		} else {
			j++
		}
	}
	return 0, false
}
