package apiserver

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/pkg/component"
)

// newLoopback lets the server talk to itself with all rights: by a certificate of its own
// for a name that nobody else asks for, and a token that never leaves the process.
func newLoopback(serving *server.SecureServingInfo) (*rest.Config, error) {
	cert, key, err := component.SelfSigned(server.LoopbackClientServerNameOverride)
	if err != nil {
		return nil, fmt.Errorf("making the loopback certificate: %w", err)
	}
	provider, err := dynamiccertificates.NewStaticSNICertKeyContent("loopback", cert, key, server.LoopbackClientServerNameOverride)
	if err != nil {
		return nil, fmt.Errorf("making the loopback certificate: %w", err)
	}
	serving.SNICerts = append([]dynamiccertificates.SNICertKeyContentProvider{provider}, serving.SNICerts...)
	config, err := serving.NewLoopbackClientConfig(string(uuid.NewUUID()), cert)
	if err != nil {
		return nil, fmt.Errorf("making the loopback client: %w", err)
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.DisableCompression = true
	return config, nil
}

// withoutConnection returns how the server's own clients reach it, which is config's
// server, as config's user, but by t. It spares them handshakes and the server their connections.
func withoutConnection(config *rest.Config, t http.RoundTripper) *rest.Config {
	own := rest.CopyConfig(config)
	own.TLSClientConfig = rest.TLSClientConfig{}
	own.Transport = t
	return own
}
