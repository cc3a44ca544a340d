package stack

import (
	"fmt"
	"testing"
)

// deep calls itself as deep as a request goes.
//
//go:noinline
func deep(n int) int {
	var some [16]int
	if n > 0 {
		some[n%16] = deep(n - 1)
	}
	return some[n%16] + n
}

func BenchmarkDeepCalls(b *testing.B) {
	for _, grow := range []bool{false, true} {
		b.Run(fmt.Sprintf("grown=%v", grow), func(b *testing.B) {
			for b.Loop() {
				done := make(chan int)
				go func() {
					if grow {
						Grow()
					}
					done <- deep(100)
				}()
				<-done
			}
		})
	}
}

func TestGrow(t *testing.T) {
	if n := testing.AllocsPerRun(100, Grow); n != 0 {
		t.Errorf("the room is on the heap: %v allocations", n)
	}
}
