package pods

import (
	"errors"
	"sync"
)

// SlowStart calls do(i) for each i below n in batches of 1, 2, 4, … calls at a
// time, and stops after the first batch with an error: when every call fails, as
// with an exhausted quota, the API server sees one request and not n of them. It
// returns the number of calls that succeeded.
func SlowStart(n int, do func(i int) error) (int, error) {
	done := 0
	for size := 1; done < n; size *= 2 {
		size = min(size, n-done)
		if failed := InParallel(size, func(i int) error { return do(done + i) }); len(failed) > 0 {
			return done + size - len(failed), errors.Join(failed...)
		}
		done += size
	}
	return done, nil
}

// InParallel calls do(i) for each i below n at once and returns the errors.
func InParallel(n int, do func(i int) error) []error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for i := range n {
		wg.Go(func() {
			if err := do(i); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errs
}
