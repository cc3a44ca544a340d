package job

import "testing"

// Whoever may write a Job's status may write any text where the indexes stand.
func FuzzParseIndexes(f *testing.F) {
	for _, s := range []string{"", "0", "1,3-5,7", "5,1-3", "1-3,2-4", "3-1", "1,2", "a-b", "1-2-3", "-1", "1,1", "0-99999999999999999999"} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		x := parseIndexes(s, limit)
		last := -2
		for _, r := range x.ranges {
			if r[0] <= last+1 || r[1] < r[0] || r[1] >= limit {
				t.Fatalf("%q below %d is %v", s, limit, x.ranges)
			}
			last = r[1]
			if !x.has(r[0]) || !x.has(r[1]) || x.has(r[0]-1) || x.has(r[1]+1) {
				t.Errorf("%v does not know its own bounds", x.ranges)
			}
		}
	})
}
