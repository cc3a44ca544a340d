package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// AskScheduler returns what the cluster's scheduler serves at a path to its administrator.
// With a question, which is sent as JSON, it is a POST.
func AskScheduler(ctx context.Context, dir, path string, question any) ([]byte, error) {
	d := dataDir(dir)
	s, err := loadState(d)
	if err != nil {
		return nil, explainSilence(dir, err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", d.adminKubeconfig())
	if err != nil {
		return nil, err
	}
	// The scheduler makes a certificate for itself when it starts, on this machine's
	// loopback. Nothing secret is sent: the administrator shows a certificate.
	admin.TLSClientConfig = rest.TLSClientConfig{Insecure: true, CertFile: admin.CertFile, CertData: admin.CertData, KeyFile: admin.KeyFile, KeyData: admin.KeyData}
	method, timeout, sent := http.MethodGet, 10*time.Second, []byte(nil)
	if question != nil {
		method, timeout = http.MethodPost, 5*time.Minute
		if sent, err = json.Marshal(question); err != nil {
			return nil, err
		}
	}
	admin.Timeout = timeout
	client, err := rest.HTTPClientFor(admin)
	if err != nil {
		return nil, err
	}
	url := "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports.Scheduler)) + path
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the scheduler: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking the scheduler: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
