package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Settings are those of containerd's CRI plugin that binding depends on, as the running
// process has them; its configuration files may have changed since it started.
type Settings struct {
	// StateDir is where CRI keeps image volumes, as containerd's configuration writes it:
	// symlinks in it are not resolved.
	StateDir string
	// DefaultHandler is the runtime handler of pods that name none.
	DefaultHandler string
	// Snapshotters is the snapshotter of each runtime handler; "" is containerd's default
	// one, which CRI does not report.
	Snapshotters map[string]string
}

// Settings reads the settings of the running process from CRI Status.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.runtime.Status(ctx, &criapi.StatusRequest{Verbose: true})
	if err != nil {
		return Settings{}, fmt.Errorf("ask CRI for its status: %w", err)
	}
	s, err := parseSettings(r.GetInfo()["config"])
	if err != nil {
		return Settings{}, fmt.Errorf("read the configuration in CRI's status: %w", err)
	}
	return s, nil
}

// parseSettings reads containerd's JSON form of the CRI configuration.
func parseSettings(config string) (Settings, error) {
	var doc struct {
		StateDir   string `json:"stateDir"`
		Containerd struct {
			DefaultRuntimeName string `json:"defaultRuntimeName"`
			Runtimes           map[string]struct {
				Snapshotter string `json:"snapshotter"`
			} `json:"runtimes"`
		} `json:"containerd"`
	}
	if err := json.Unmarshal([]byte(config), &doc); err != nil {
		return Settings{}, err
	}
	if !filepath.IsAbs(doc.StateDir) {
		return Settings{}, errors.New("stateDir is not an absolute path")
	}
	if len(doc.Containerd.Runtimes) == 0 {
		return Settings{}, errors.New("there is no runtime handler")
	}
	s := Settings{
		StateDir:       doc.StateDir,
		DefaultHandler: doc.Containerd.DefaultRuntimeName,
		Snapshotters:   make(map[string]string, len(doc.Containerd.Runtimes)),
	}
	for name, runtime := range doc.Containerd.Runtimes {
		s.Snapshotters[name] = runtime.Snapshotter
	}
	return s, nil
}
