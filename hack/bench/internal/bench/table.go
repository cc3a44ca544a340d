package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
)

// A Table has what was measured of Leme and of the original, in the order in which it was first measured.
type Table struct{ rows []*row }

// A row is one number, as often as it was measured, by binary.
type row struct {
	name   string
	values map[string][]float64
}

// Add adds one measured number. It is shown at once, since the table comes late.
func (t *Table) Add(binary, name string, value float64) {
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == name })
	if i < 0 {
		i = len(t.rows)
		t.rows = append(t.rows, &row{name: name, values: map[string][]float64{}})
	}
	t.rows[i].values[binary] = append(t.rows[i].values[binary], value)
	fmt.Fprintf(os.Stderr, "%-9s %-44s %10s\n", binary, name, digits(value))
}

// Print writes the medians, compared or Leme's alone.
func (t *Table) Print(compared bool) {
	if !compared {
		fmt.Println("| | Leme |\n|---|---|")
		for _, r := range t.rows {
			fmt.Printf("| %s | %s |\n", r.name, digits(Median(r.values[Leme])))
		}
		return
	}
	fmt.Println("| | Leme | original | ratio |\n|---|---|---|---|")
	for _, r := range t.rows {
		leme, original := Median(r.values[Leme]), Median(r.values[Original])
		fmt.Printf("| %s | %s | %s | %.2f |\n", r.name, digits(leme), digits(original), leme/original)
	}
}

// digits writes small numbers with decimals and large ones without.
func digits(v float64) string {
	decimals := 0
	switch {
	case v < 10:
		decimals = 2
	case v < 100:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}
