// Nrihost is a container runtime without containers: it runs NRI's adaptation package,
// of the version it was built with, as containerd configures it, and does on request
// what containerd would do with it.
//
// It reads requests as JSON lines from standard input and answers each with one line on
// standard output, in order. At the end of the input it exits. The log goes to standard
// error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	validator "github.com/containerd/nri/plugins/default-validator"
)

// request is what to do: "create" (Pod, Container), "run" (Pod), "remove" (Container),
// "state" (Pods, Containers: all that there is from now on), or "syncs".
type request struct {
	Do         string            `json:"do"`
	Pod        *api.PodSandbox   `json:"pod,omitempty"`
	Container  *api.Container    `json:"container,omitempty"`
	Pods       []*api.PodSandbox `json:"pods,omitempty"`
	Containers []*api.Container  `json:"containers,omitempty"`
}

// answer says what came of a request. Error is why it was refused; empty, it was done.
type answer struct {
	Error      string        `json:"error,omitempty"`
	Syncs      []syncOutcome `json:"syncs,omitempty"`      // to "syncs": every one there was
	Adjustment int           `json:"adjustment,omitempty"` // to "create": the bytes plugins added
}

// syncOutcome is how telling a plugin of all that runs went.
type syncOutcome struct {
	Pods       int    `json:"pods"`
	Containers int    `json:"containers"`
	Millis     int64  `json:"millis"`
	Error      string `json:"error,omitempty"`
}

// host is the runtime: what it believes to run, and the plugins at it.
type host struct {
	adaptation *adaptation.Adaptation

	mu         sync.Mutex // as in containerd, one request or synchronisation at a time
	pods       []*api.PodSandbox
	containers []*api.Container
	syncs      []syncOutcome
}

func main() {
	socket := flag.String("socket", "", "path of the socket to listen on")
	timeout := flag.Duration("plugin-request-timeout", adaptation.DefaultPluginRequestTimeout, "how long a plugin may take to answer")
	required := flag.String("required-plugins", "", "comma separated names of the plugins without which no container is created")
	name := flag.String("runtime", "containerd", "the name of the runtime to tell plugins")
	version := flag.String("version", "2.4.2", "the version of the runtime to tell plugins")
	flag.Parse()
	if err := run(*socket, *timeout, *required, *name, *version); err != nil {
		fmt.Fprintln(os.Stderr, "nrihost:", err)
		os.Exit(1)
	}
}

func run(socket string, timeout time.Duration, required, name, version string) error {
	adaptation.SetPluginRequestTimeout(timeout)
	config := &validator.DefaultValidatorConfig{}
	if required != "" {
		config.Enable, config.RequiredPlugins = true, strings.Split(required, ",")
	}
	h := &host{}
	var err error
	h.adaptation, err = adaptation.New(name, version, h.sync, h.update,
		adaptation.WithSocketPath(socket),
		adaptation.WithPluginPath(socket+".plugins"), // which are not there
		adaptation.WithPluginConfigPath(socket+".conf"),
		adaptation.WithDefaultValidator(config),
	)
	if err != nil {
		return fmt.Errorf("make the adaptation: %w", err)
	}
	if err := h.adaptation.Start(); err != nil {
		return fmt.Errorf("start the adaptation: %w", err)
	}
	defer h.adaptation.Stop()

	requests, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if err := answers.Encode(h.do(context.Background(), &r)); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
}

func (h *host) do(ctx context.Context, r *request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	var a answer
	var err error
	switch r.Do {
	case "create":
		a.Adjustment, err = h.create(ctx, r.Pod, r.Container)
	case "run":
		if err = h.adaptation.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: r.Pod}); err == nil {
			h.pods = append(h.pods, r.Pod)
		}
	case "remove":
		h.containers = slices.DeleteFunc(h.containers, func(c *api.Container) bool { return c.GetId() == r.Container.GetId() })
		err = h.adaptation.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Container: r.Container})
	case "state":
		h.pods, h.containers = r.Pods, r.Containers
	case "syncs":
		a.Syncs = h.syncs
	default:
		err = fmt.Errorf("unknown request %q", r.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// create asks the plugins. A container that is refused is taken back as containerd does it:
// the plugins are told that it stopped and that it is removed.
func (h *host) create(ctx context.Context, pod *api.PodSandbox, c *api.Container) (int, error) {
	r, err := h.adaptation.CreateContainer(ctx, &adaptation.CreateContainerRequest{Pod: pod, Container: c})
	if err != nil {
		_, errStop := h.adaptation.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: pod, Container: c})
		errRemove := h.adaptation.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Pod: pod, Container: c})
		if undo := errors.Join(errStop, errRemove); undo != nil {
			fmt.Fprintln(os.Stderr, "nrihost: take a container back:", undo)
		}
		return 0, err
	}
	h.containers = append(h.containers, c)
	return r.GetAdjust().SizeVT(), nil
}

// sync tells a plugin of all that runs.
func (h *host) sync(ctx context.Context, tell adaptation.SyncCB) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	started := time.Now()
	_, err := tell(ctx, h.pods, h.containers)
	outcome := syncOutcome{Pods: len(h.pods), Containers: len(h.containers), Millis: time.Since(started).Milliseconds()}
	if err != nil {
		outcome.Error = err.Error()
	}
	h.syncs = append(h.syncs, outcome)
	return err
}

// update takes what plugins ask for unasked, and does nothing.
func (h *host) update(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return nil, nil
}
