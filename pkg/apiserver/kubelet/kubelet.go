// Package kubelet finds the way to the kubelet of a node: for logs, for streams into
// containers and for the node proxy.
package kubelet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport"
)

// Config says how kubelets are reached.
type Config struct {
	// AddressTypes orders the addresses of a node by preference.
	AddressTypes []corev1.NodeAddressType
	// Port is that of kubelets whose node does not report one.
	Port int
	// CertFile and KeyFile are what the server shows to kubelets; CAFile verifies
	// what they show. Without it, their certificates are not verified.
	CertFile, KeyFile, CAFile string
	// Dial, when set, is the way into the cluster's network.
	Dial utilnet.DialFunc
}

// Connection is the way to one kubelet.
type Connection struct {
	// Host is an address with a port.
	Host      string
	Transport http.RoundTripper
	// Insecure is like Transport, but verifies no certificate: for clients that ask
	// for it when they read logs.
	Insecure http.RoundTripper
}

// Connector finds connections.
type Connector struct {
	config           Config
	secure, insecure http.RoundTripper
	node             func(ctx context.Context, name string) (*corev1.Node, error)
}

// New returns a connector that asks node for nodes.
func New(c Config, node func(ctx context.Context, name string) (*corev1.Node, error)) (*Connector, error) {
	tls := transport.Config{TLS: transport.TLSConfig{
		CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile,
		Insecure:       c.CAFile == "",
		ReloadTLSFiles: true,
	}}
	if c.Dial != nil {
		tls.DialHolder = &transport.DialHolder{Dial: c.Dial}
	}
	secure, err := transport.New(&tls)
	if err != nil {
		return nil, fmt.Errorf("--kubelet-client-certificate: %w", err)
	}
	tls.TLS.CAFile, tls.TLS.CAData, tls.TLS.Insecure = "", nil, true // New has read the file into the data
	insecure, err := transport.New(&tls)
	if err != nil {
		return nil, fmt.Errorf("--kubelet-client-certificate: %w", err)
	}
	return &Connector{config: c, secure: secure, insecure: insecure, node: node}, nil
}

// Connection returns the way to the kubelet of the named node.
func (c *Connector) Connection(ctx context.Context, name string) (*Connection, error) {
	node, err := c.node(ctx, name)
	if err != nil {
		return nil, err
	}
	host, err := c.config.address(node)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = c.config.Port
	}
	return &Connection{Host: net.JoinHostPort(host, strconv.Itoa(port)), Transport: c.secure, Insecure: c.insecure}, nil
}

// address returns the preferred one of a node's addresses.
func (c Config) address(node *corev1.Node) (string, error) {
	for _, t := range c.AddressTypes {
		for _, a := range node.Status.Addresses {
			if a.Type == t {
				return a.Address, nil
			}
		}
	}
	return "", fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses)
}
