package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

const (
	// Host is the registry host of the harness's own images. Any other serves as well:
	// containerd is told to ask the registry of this process for every host.
	Host = "registry.example.com"

	// PauseImage is the image of sandboxes, which every registry starts with.
	PauseImage = Host + "/pause:3.10"
)

// RegistryOptions say what a registry can do.
type RegistryOptions struct {
	Referrers bool // serve the referrers API (OCI distribution specification 1.1)
}

// Registry is an OCI registry in this process, on the loopback interface, with its
// content in memory.
type Registry struct {
	Address string // host:port, plain HTTP; the same after Stop and Start
	Pause   Pushed // PauseImage

	pause   []byte // the program in all images
	handler http.Handler

	mu     sync.Mutex
	server *http.Server
	served chan struct{} // closed when the server has ended
}

// StartRegistry starts a registry that holds the pause image. The run ends it.
func (r *Run) StartRegistry(options RegistryOptions) (*Registry, error) {
	program, err := os.ReadFile(r.tool("pause"))
	if err != nil {
		return nil, fmt.Errorf("read the program of the images: %w", err)
	}
	settings := []registry.Option{registry.Logger(log.New(io.Discard, "", 0))}
	if options.Referrers {
		settings = append(settings, registry.WithReferrersSupport(true))
	}
	g := &Registry{Address: "127.0.0.1:0", pause: program, handler: registry.New(settings...)}
	if err := g.Start(); err != nil {
		return nil, err
	}
	r.onClose(g.Stop)
	if g.Pause, err = g.Push(PauseImage, Image{}); err != nil {
		return nil, err
	}
	return g, nil
}

// Start lets a stopped registry serve again, with the content it had.
func (g *Registry) Start() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		return errors.New("start the registry: it is running")
	}
	listener, err := net.Listen("tcp", g.Address)
	if err != nil {
		return fmt.Errorf("start the registry: %w", err)
	}
	g.Address = listener.Addr().String()
	server := &http.Server{Handler: g.handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with ErrServerClosed, by Stop
	}()
	g.server, g.served = server, served
	return nil
}

// Stop makes the registry unreachable: connections are refused.
func (g *Registry) Stop() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server == nil {
		return nil
	}
	err := g.server.Close()
	<-g.served
	g.server = nil
	if err != nil {
		return fmt.Errorf("stop the registry: %w", err)
	}
	return nil
}

// PushBlob stores content in a repository ("registry.example.com/team/app", whose host
// does not matter) and returns its digest.
func (g *Registry) PushBlob(repository string, content []byte) (string, error) {
	digest := digestOf(content)
	url := fmt.Sprintf("http://%s/v2/%s/blobs/uploads/?digest=%s", g.Address, pathOf(repository), digest)
	if err := g.send(http.MethodPost, url, "application/octet-stream", content); err != nil {
		return "", fmt.Errorf("push a blob to %s: %w", repository, err)
	}
	return digest, nil
}

// PushManifest stores a manifest or index, as it is, under its digest and, unless the
// tag is empty, under the tag, and returns its digest.
func (g *Registry) PushManifest(repository, tag, mediaType string, content []byte) (string, error) {
	digest := digestOf(content)
	references := []string{digest}
	if tag != "" {
		references = append(references, tag)
	}
	for _, reference := range references {
		url := fmt.Sprintf("http://%s/v2/%s/manifests/%s", g.Address, pathOf(repository), reference)
		if err := g.send(http.MethodPut, url, mediaType, content); err != nil {
			return "", fmt.Errorf("push %s:%s: %w", repository, reference, err)
		}
	}
	return digest, nil
}

func (g *Registry) send(method, url, contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", response.Status, answer)
	}
	return nil
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// pathOf is the repository without its registry host.
func pathOf(repository string) string {
	_, path, _ := strings.Cut(repository, "/")
	return path
}
