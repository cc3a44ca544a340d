package apiserver

import (
	"net/http"
	"path"

	"github.com/emicklei/go-restful/v3"
)

// logDirectory is what --enable-logs-handler serves.
const logDirectory = "/var/log"

// installLogs serves the files of a directory under /logs. Who may read them, authorization
// decides, as for every path.
func installLogs(c *restful.Container, directory string) {
	ws := new(restful.WebService)
	ws.Path("/logs").Doc("get log files")
	ws.Route(ws.GET("/{logpath:*}").Operation("logFileHandler").
		Param(ws.PathParameter("logpath", "path to the log").DataType("string")).
		To(func(r *restful.Request, w *restful.Response) {
			// Joined to the root first, no name leads out of the directory.
			http.ServeFile(w.ResponseWriter, r.Request, path.Join(directory, path.Join("/", r.PathParameter("logpath"))))
		}))
	ws.Route(ws.GET("/").Operation("logFileListHandler").To(func(r *restful.Request, w *restful.Response) {
		http.ServeFile(w.ResponseWriter, r.Request, directory)
	}))
	c.Add(ws)
}
