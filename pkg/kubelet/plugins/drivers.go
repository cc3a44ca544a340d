package plugins

import (
	"io"
	"sync"
)

// Drivers are those of a kind that can be asked, by name. It is safe for concurrent use.
type Drivers[D io.Closer] struct {
	mu sync.Mutex
	by map[string]registered[D]
}

type registered[D io.Closer] struct {
	driver   D
	endpoint string
}

// Set has driver, which answers at endpoint, take the place of another one of its name,
// whose connection is closed.
func (d *Drivers[D]) Set(name, endpoint string, driver D) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]registered[D]{}
	}
	old, had := d.by[name]
	d.by[name] = registered[D]{driver, endpoint}
	if had {
		return old.driver.Close()
	}
	return nil
}

// Get returns a driver.
func (d *Drivers[D]) Get(name string) (D, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.by[name]
	return r.driver, ok
}

// Drop forgets the driver that answers at endpoint and closes its connection. It
// reports whether there was one: another one may have taken its place.
func (d *Drivers[D]) Drop(name, endpoint string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.by[name]
	if !ok || r.endpoint != endpoint {
		return false
	}
	delete(d.by, name)
	_ = r.driver.Close() // nothing is lost with it
	return true
}
