package plugins

import "testing"

type closing struct{ closed bool }

func (c *closing) Close() error { c.closed = true; return nil }

func TestDrivers(t *testing.T) {
	var all Drivers[*closing]
	first, second := &closing{}, &closing{}
	if err := all.Set("d", "/first", first); err != nil {
		t.Fatal(err)
	}
	if err := all.Set("d", "/second", second); err != nil || !first.closed {
		t.Errorf("replaced: %v, closed %t", err, first.closed)
	}
	if all.Drop("d", "/first") || second.closed {
		t.Error("the end of the first one has taken the second one away")
	}
	if got, ok := all.Get("d"); !ok || got != second {
		t.Errorf("got %p, %t", got, ok)
	}
	if !all.Drop("d", "/second") || !second.closed {
		t.Error("the second one is still there")
	}
	if _, ok := all.Get("d"); ok {
		t.Error("one that is gone can be asked")
	}
}
