// Package equal tells sooner than by reflection that values mean the same.
package equal

import (
	"bytes"

	"k8s.io/apimachinery/pkg/api/equality"
)

// Semantic is equality.Semantic.DeepEqual for pointers to parts of objects, none of which is nil. What is the same in
// protobuf, as most updates leave what they do not change, is equal, and that takes a tenth of the time to see.
func Semantic(a, b any) bool {
	return sameBytes(a, b) || equality.Semantic.DeepEqual(a, b)
}

func sameBytes(a, b any) bool {
	type protobuf interface{ Marshal() ([]byte, error) }
	x, ok := a.(protobuf)
	y, alsoOK := b.(protobuf)
	if !ok || !alsoOK {
		return false
	}
	first, err := x.Marshal()
	if err != nil {
		return false
	}
	second, err := y.Marshal()
	return err == nil && bytes.Equal(first, second)
}
