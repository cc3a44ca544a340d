package batch

import "testing"

func FuzzParseIndexes(f *testing.F) {
	for _, s := range []string{"", "0", "1,3-5,7", "3-1", "1-2-3", "a", "-1", "1,,2", "99", "2,2", "+1", "5-5"} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		set, err := parseIndexes(s, limit)
		if err != nil {
			return
		}
		last, n := -1, 0
		for _, interval := range set {
			if interval[0] <= last || interval[1] < interval[0] || interval[1] >= limit {
				t.Fatalf("%q below %d is %v", s, limit, set)
			}
			last = interval[1]
			n += interval[1] - interval[0] + 1
		}
		if set.len() != n {
			t.Errorf("%v has %d indexes, not %d", set, n, set.len())
		}
		if first, ok := set.overlap(set); ok != (n > 0) || ok && first != set[0][0] {
			t.Errorf("%v overlaps with itself at %d, %t", set, first, ok)
		}
	})
}
