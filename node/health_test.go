package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/gate"
)

func TestHealthIsServedOnASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "health.sock")
	listener, err := listenHealth(path)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	gate.NewMetrics(registry, "v1")
	problems := make(chan []string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serveHealth(ctx, listener, func() []string { return <-problems }, none, registry)
	}()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
	get := func(path string) (int, string) {
		t.Helper()
		answer, err := client.Get("http://node" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if code, body := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, body)
	}
	problems <- nil
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	problems <- []string{"policies: gone", "floor: gone"}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || body != "policies: gone\nfloor: gone\n" {
		t.Errorf("/readyz with problems: %d %q", code, body)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "horkos_build_info") {
		t.Errorf("/metrics: %d %s", code, body)
	}
	for _, path := range []string{"/", "/debug/pprof/", "/healthz/x"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestASocketThatWasLeftIsReplacedAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	listener, err := listenHealth(path)
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenHealth(path); err == nil {
		t.Error("listened in the place of a file")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}
