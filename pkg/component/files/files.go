// Package files writes the files that components and clusters keep their state in.
package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace replaces a file in one step: whoever reads it, even after a crash of the writer, finds the old content or the new
// one, never a part.
func Replace(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
