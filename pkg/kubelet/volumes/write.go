package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The names inside a volume of objects. A reader sees
//
//	key    -> ..data/key
//	..data -> ..2026_11_23_14_00_00.123456789
//
// so that one rename of ..data changes all files at once.
const (
	dataLink     = "..data"
	newDataLink  = "..data_tmp"
	stampPattern = "..2006_01_02_15_04_05."
)

// writeFiles makes dir hold exactly these files, and says whether it had to change
// any. own is called on the directory of new files before a reader can see it.
func writeFiles(dir string, files map[string]file, own func(string) error) (changed bool, err error) {
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	switch {
	case err == nil && filepath.Base(old) != old:
		return false, fmt.Errorf("%s leads out of the volume", filepath.Join(dir, dataLink))
	case err == nil:
		if same, err := holds(filepath.Join(dir, old), files); err != nil || same {
			if err == nil {
				err = linkFiles(dir, files)
			}
			return false, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return false, err
	}
	fresh, err := writeFresh(dir, files)
	if err != nil {
		return false, err
	}
	discard := func(err error) (bool, error) { return false, errors.Join(err, os.RemoveAll(fresh)) }
	if err := own(fresh); err != nil {
		return discard(err)
	}
	tmp := filepath.Join(dir, newDataLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return discard(err)
	}
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return discard(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return discard(err)
	}
	if err := linkFiles(dir, files); err != nil {
		return true, err
	}
	return true, sweep(dir, files, filepath.Base(fresh))
}

// writeFresh writes the files into a new directory inside dir.
func writeFresh(dir string, files map[string]file) (fresh string, err error) {
	fresh, err = os.MkdirTemp(dir, time.Now().UTC().Format(stampPattern))
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(fresh))
		}
	}()
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	for p, f := range files {
		full := filepath.Join(fresh, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(full, f.data, os.FileMode(f.mode)); err != nil {
			return "", err
		}
		if err := unix.Chmod(full, uint32(f.mode)); err != nil {
			return "", &os.PathError{Op: "chmod", Path: full, Err: err}
		}
		if f.user != nil {
			if err := os.Chown(full, int(*f.user), -1); err != nil {
				return "", err
			}
		}
	}
	return fresh, nil
}

// holds says whether dir has these files with this content, and no others.
func holds(dir string, files map[string]file) (bool, error) {
	seen := 0
	same := true
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, ok := files[filepath.ToSlash(rel)]
		if !ok {
			same = false
			return filepath.SkipAll
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, f.data) {
			same = false
			return filepath.SkipAll
		}
		seen++
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // an earlier life was interrupted before the files were there
	}
	return same && seen == len(files), err
}

// linkFiles makes the links by which readers find the files.
func linkFiles(dir string, files map[string]file) error {
	for name := range topLevel(files) {
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, name), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// sweep removes links to files that are gone, and all earlier directories of files.
func sweep(dir string, files map[string]file, current string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	keep := topLevel(files)
	for _, e := range entries {
		name := e.Name()
		if keep[name] || name == current || name == dataLink {
			continue
		}
		full := filepath.Join(dir, name)
		if !strings.HasPrefix(name, "..") {
			// A container's subPath mount may have made a file of its own: only links are removed.
			if target, err := os.Readlink(full); err != nil || !strings.HasPrefix(target, dataLink+"/") {
				continue
			}
		}
		if err := os.RemoveAll(full); err != nil {
			return err
		}
	}
	return nil
}

func topLevel(files map[string]file) map[string]bool {
	names := make(map[string]bool, len(files))
	for p := range files {
		first, _, _ := strings.Cut(p, "/")
		names[first] = true
	}
	return names
}
