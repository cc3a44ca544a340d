// Package stack makes room on the stacks of goroutines.
package stack

// size is what all but a few requests need.
const size = 24 << 10

// Grow makes the stack of the calling goroutine large enough for what a request does. A goroutine begins with a small
// stack; when that is full, the runtime copies it to one twice as large, which takes the longer the more calls are
// on it. A request goes deep, in goroutines of its own: several copies, which cost more than 6 % of its processor
// time. Whoever calls Grow before a request goes deep has one of them, when there is little to copy.
func Grow() { frame(0) }

//go:noinline
func frame(i int) byte {
	var room [size]byte
	return room[i]
}
