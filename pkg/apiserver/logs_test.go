package apiserver

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emicklei/go-restful/v3"
)

func TestLogs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"logs/a/b.log": "written", "secret": "hidden"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := restful.NewContainer()
	installLogs(c, filepath.Join(dir, "logs"))
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/logs/":                   {http.StatusOK, `<a href="a/">`},
		"/logs/a/":                 {http.StatusOK, `<a href="b.log">`},
		"/logs/a/b.log":            {http.StatusOK, "written"},
		"/logs/c":                  {http.StatusNotFound, ""},
		"/logs/%2e%2e/secret":      {http.StatusNotFound, ""},
		"/logs/a%2f..%2f../secret": {http.StatusNotFound, ""},
	} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if body := w.Body.String(); w.Code != want.code && (w.Code != http.StatusBadRequest || want.code == http.StatusOK) || !strings.Contains(body, want.text) || strings.Contains(body, "hidden") {
			t.Errorf("%s: %d %s", path, w.Code, body)
		}
	}
}
