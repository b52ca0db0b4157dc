package harness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// CountRequests counts what the registry is asked from now on.
func (g *Registry) CountRequests() (*atomic.Int64, error) {
	if err := g.Stop(); err != nil {
		return nil, err
	}
	count, handler := new(atomic.Int64), g.handler
	g.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		handler.ServeHTTP(w, r)
	})
	return count, g.Start()
}

// Metrics is a drop-in of configuration (ContainerdOptions.Extra) that has containerd
// serve its metrics at an address, host:port.
func Metrics(address string) string {
	return fmt.Sprintf("[plugins.'io.containerd.server.v1.metrics']\naddress = %q\n", address)
}

// Calls are the calls that a containerd with Metrics was asked on its gRPC socket, by
// service and method ("Snapshots/Stat"), those of CRI left out: they are the kubelet's.
func Calls(ctx context.Context, address string) (map[string]int, error) {
	text, err := get(ctx, http.DefaultClient, "http://"+address+"/v1/metrics")
	if err != nil {
		return nil, fmt.Errorf("read containerd's metrics: %w", err)
	}
	calls := make(map[string]int)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), "grpc_server_started_total{")
		service := Label(labels, "grpc_service")
		if !ok || strings.HasPrefix(service, "runtime.v1.") {
			continue
		}
		n, err := strconv.ParseFloat(labels[strings.LastIndex(labels, " ")+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read containerd's metrics: %w", err)
		}
		if n > 0 {
			calls[service[strings.LastIndex(service, ".")+1:]+"/"+Label(labels, "grpc_method")] += int(n)
		}
	}
	return calls, nil
}

// Label is the value of a label among those of a metric.
func Label(labels, name string) string {
	_, rest, _ := strings.Cut(labels, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// InMemory restarts a containerd that holds nothing yet with its content in memory, where
// what it writes costs no wait for a disk: for tests that need much of it.
func (c *Containerd) InMemory(ctx context.Context) error {
	if err := c.Stop(ctx); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(c.Dir, "root"), "tmpfs", 0, "mode=0711"); err != nil {
		return fmt.Errorf("keep %s's content in memory: %w", filepath.Base(c.Dir), err)
	}
	return c.Start(ctx)
}

// Resident is the resident memory of the program, VmRSS of proc(5), in bytes.
func (s *Service) Resident() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", s.name, err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read the memory of %s: there is no VmRSS", s.name)
}
