package cluster

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"k8s.io/klog/v2"
)

// A registry serves the images of OCI archives, read-only, by the protocol of
// registries. It keeps in memory only where in the archives a blob is. A mirror is
// needed because an image that was merely imported is not believed by everybody: a
// pull policy of Always asks a registry in any case.
type registry struct {
	blobs     map[string]blob   // by digest
	manifests map[string]string // "repository:tag" and "repository@digest" to digest
	types     map[string]types.MediaType
	archives  []*os.File
}

// A blob is a part of an archive.
type blob struct {
	archive      *os.File
	offset, size int64
}

func (b blob) reader() *io.SectionReader { return io.NewSectionReader(b.archive, b.offset, b.size) }

// openRegistry indexes all archives of a directory.
func openRegistry(dir string) (*registry, error) {
	r := &registry{blobs: map[string]blob{}, manifests: map[string]string{}, types: map[string]types.MediaType{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := r.add(f); err != nil {
			r.close()
			return nil, fmt.Errorf("image archive %s: %w", f, err)
		}
	}
	return r, nil
}

func (r *registry) close() {
	for _, f := range r.archives {
		f.Close()
	}
}

// add indexes one archive: an OCI layout whose images are named by annotations.
func (r *registry) add(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	r.archives = append(r.archives, f)
	var index v1.IndexManifest
	archive := tar.NewReader(f)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		entry := filepath.Clean(h.Name)
		if digest, ok := strings.CutPrefix(entry, "blobs/sha256/"); ok && h.Typeflag == tar.TypeReg {
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			r.blobs["sha256:"+digest] = blob{archive: f, offset: offset, size: h.Size}
		}
		if entry == "index.json" {
			if err := json.NewDecoder(archive).Decode(&index); err != nil {
				return fmt.Errorf("index.json: %w", err)
			}
		}
	}
	if len(index.Manifests) == 0 {
		return errors.New("holds no image: not an OCI archive")
	}
	for _, m := range index.Manifests {
		ref, err := name.NewTag(m.Annotations["io.containerd.image.name"])
		if err != nil {
			return fmt.Errorf("annotation io.containerd.image.name: %w", err)
		}
		digest := m.Digest.String()
		if _, ok := r.blobs[digest]; !ok {
			return fmt.Errorf("manifest %s is missing", digest)
		}
		repository := ref.RepositoryStr()
		r.manifests[repository+":"+ref.TagStr()] = digest
		r.manifests[repository+"@"+digest] = digest
		r.types[digest] = m.MediaType
	}
	return nil
}

// has reports whether the image is served.
func (r *registry) has(image string) bool {
	ref, err := name.NewTag(image)
	return err == nil && r.manifests[ref.RepositoryStr()+":"+ref.TagStr()] != ""
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		registryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case !ok:
		http.NotFound(w, req)
	case path == "":
		w.WriteHeader(http.StatusOK)
	case strings.Contains(path, "/manifests/"):
		r.manifest(w, req, path)
	case strings.Contains(path, "/blobs/"):
		r.blob(w, req, path[strings.LastIndex(path, "/")+1:], "application/octet-stream", "BLOB_UNKNOWN")
	default:
		http.NotFound(w, req)
	}
}

func (r *registry) manifest(w http.ResponseWriter, req *http.Request, path string) {
	repository, reference, _ := strings.Cut(path, "/manifests/")
	separator := ":"
	if strings.Contains(reference, ":") {
		separator = "@"
	}
	digest := r.manifests[repository+separator+reference]
	r.blob(w, req, digest, string(r.types[digest]), "MANIFEST_UNKNOWN")
}

func (r *registry) blob(w http.ResponseWriter, req *http.Request, digest, mediaType, unknown string) {
	b, ok := r.blobs[digest]
	if !ok {
		registryError(w, http.StatusNotFound, unknown, "no such image here")
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, req, "", time.Time{}, b.reader())
}

func registryError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// registryService serves the images to the first node.
func (r *running) registryService() service {
	return service{name: "registry", run: func(ctx context.Context) error {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.state.Ports.Registry)))
		if err != nil {
			return err
		}
		images, err := r.images()
		if err != nil {
			return errors.Join(err, l.Close())
		}
		return images.serve(ctx, r.dir, l)
	}}
}

// serve answers clients with a certificate of the cluster until ctx is cancelled, and
// closes the listener.
func (r *registry) serve(ctx context.Context, d dataDir, l net.Listener) error {
	defer l.Close()
	cert, err := tls.LoadX509KeyPair(d.pki("registry.crt"), d.pki("registry.key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(d.pki("ca.crt"))
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	server := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
			ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		},
		ErrorLog: klog.NewStandardLogger("WARNING"),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
