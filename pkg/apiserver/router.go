package apiserver

import (
	"net/http"
	"slices"
	"strings"

	"github.com/emicklei/go-restful/v3"
)

// A router finds what serves a request. The library's, which it asks in all cases but the usual, compares the path with
// that of each route of a version; the core group has hundreds, and looking through them takes longer than finding out who may do what.
type router struct {
	restful.CurlyRouter
	services int
	root     *routeNode
}

// A routeNode is a part of the paths of routes.
type routeNode struct {
	literal map[string]*routeNode
	any     *routeNode // a parameter
	// special says that there are routes whose parts are more than one parameter or one literal.
	special bool
	routes  []servedRoute
}

// servedRoute is a route and the service that it belongs to.
type servedRoute struct {
	*restful.Route
	service *restful.WebService
}

var _ restful.RouteSelector = &router{}

// newRouter returns a router for the routes that there are. It asks the library once there are services beside those.
func newRouter(services []*restful.WebService) *router {
	r := &router{services: len(services), root: &routeNode{}}
	for _, s := range services {
		for _, route := range s.Routes() {
			r.root.add(pathParts(route.Path), servedRoute{&route, s})
		}
	}
	return r
}

func pathParts(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

func (n *routeNode) add(parts []string, r servedRoute) {
	if len(parts) == 0 {
		n.routes = append(n.routes, r)
		return
	}
	part := parts[0]
	switch name, isParameter := strings.CutPrefix(part, "{"); {
	case !strings.ContainsAny(part, "{:}"):
		if n.literal == nil {
			n.literal = map[string]*routeNode{}
		}
		if n.literal[part] == nil {
			n.literal[part] = &routeNode{}
		}
		n.literal[part].add(parts[1:], r)
	case isParameter && strings.IndexAny(name, "{:}") == len(name)-1:
		if n.any == nil {
			n.any = &routeNode{}
		}
		n.any.add(parts[1:], r)
	default:
		n.special = true
	}
}

// find returns the one route of a method that parts lead to. It is not sure if there are several, or special ones.
func (n *routeNode) find(method string, parts []string) (found servedRoute, sure bool) {
	if n.special {
		return found, false
	}
	if len(parts) == 0 {
		for _, r := range n.routes {
			if r.Method != method {
				continue
			}
			if found.Route != nil {
				return found, false
			}
			found = r
		}
		return found, true
	}
	for _, next := range []*routeNode{n.literal[parts[0]], n.any} {
		if next == nil {
			continue
		}
		r, sure := next.find(method, parts[1:])
		if !sure || r.Route != nil && found.Route != nil {
			return found, false
		}
		if r.Route != nil {
			found = r
		}
	}
	return found, true
}

// SelectRoute implements restful.RouteSelector.
func (r *router) SelectRoute(services []*restful.WebService, request *http.Request) (*restful.WebService, *restful.Route, error) {
	if path := request.URL.Path; len(services) == r.services && len(path) > 1 && !strings.HasSuffix(path, "/") {
		if found, sure := r.root.find(request.Method, pathParts(path)); sure && found.takes(request) {
			return found.service, found.Route, nil
		}
	}
	return r.CurlyRouter.SelectRoute(services, request)
}

// reads reports whether it is plain that the route reads a format. Those of patches are few.
func (r servedRoute) reads(format string) bool {
	format, _, _ = strings.Cut(format, ";")
	return len(r.Consumes) == 0 || slices.Contains(r.Consumes, "*/*") || slices.Contains(r.Consumes, strings.TrimSpace(format))
}

// takes reports whether it is plain that the route reads the format of the request, and answers in the one that it wants.
func (r servedRoute) takes(request *http.Request) bool {
	if r.Route == nil || len(r.If) > 0 || !r.reads(request.Header.Get("Content-Type")) {
		return false
	}
	accept := request.Header.Get("Accept")
	if accept == "" {
		return true
	}
	for wanted := range strings.SplitSeq(accept, ",") {
		wanted, _, _ = strings.Cut(wanted, ";")
		if wanted = strings.TrimSpace(wanted); wanted == "*/*" || slices.Contains(r.Produces, wanted) {
			return true
		}
	}
	return false
}
