package cluster

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestTurnsComeOneAfterTheOther(t *testing.T) {
	first, err := takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := takeTurn(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second turn while the first lasts: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		l, err := takeTurn(t.Context())
		if err == nil {
			err = l.Close()
		}
		second <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Errorf("the turn after the first: %v", err)
	}
}
