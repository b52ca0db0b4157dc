package plugin

import (
	"errors"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/horkos/horkos/gate"
)

func TestOnlyContainerd22AndLaterCanEnforce(t *testing.T) {
	tests := []struct {
		runtime, version string
		can              bool
	}{
		{"containerd", "2.2.0", true},
		{"containerd", "v2.2.0", true},
		{"containerd", "2.4.2+unknown", true},
		{"containerd", "2.2.0-rc.1", true},
		{"containerd", "2.10.0", true},
		{"containerd", "3.0.0", true},
		{"containerd", "2.1.9", false},
		{"containerd", "1.7.28", false},
		{"containerd", "1.10.0", false},
		{"containerd", "", false},
		{"containerd", "2", false},
		{"containerd", "unknown", false},
		{"containerd", "2.x.1", false},
		{"cri-o", "1.34.0", false},
		{"", "2.4.2", false},
	}
	for _, tt := range tests {
		err := CanEnforce(tt.runtime, tt.version)
		if tt.can && err != nil || !tt.can && !errors.Is(err, ErrCannotEnforce) {
			t.Errorf("%q %q: %v", tt.runtime, tt.version, err)
		}
	}
}

func TestThePluginSubscribesToWhatTheRuntimeHeeds(t *testing.T) {
	always := "RunPodSandbox,RemovePodSandbox,StopContainer,RemoveContainer,ValidateContainerAdjustment"
	twice := always + ",CreateContainer"
	tests := []struct {
		name            string
		mode            gate.Mode
		containerd, nri string
		events          string
	}{
		{"NRI 0.12.3 asks validators that are gone", gate.Enforce, "2.4.2", "v0.12.3", always},
		{"NRI 0.12.0 does", gate.Enforce, "2.3.0", "v0.12.0", always},
		{"containerd 2.2 does, and does not tell its NRI's version", gate.Enforce, "2.2.5", "", always},
		{"also where the stub guesses it", gate.Enforce, "v2.2.5", "", always},
		{"NRI 0.12.4 does not", gate.Enforce, "2.5.0", "v0.12.4", twice},
		{"a containerd 2.2 that got that", gate.Enforce, "2.2.9", "v0.12.4", twice},
		{"what leads to NRI 0.12.4", gate.Enforce, "2.5.0", "v0.12.4-0.20260601120000-0123456789ab", twice},
		{"NRI 0.13", gate.Enforce, "2.6.0", "v0.13.0", twice},
		{"NRI 1", gate.Enforce, "3.0.0", "v1.0.0", twice},
		{"a later containerd that does not tell", gate.Enforce, "2.5.0", "", twice},
		{"also where the stub guesses an older one", gate.Enforce, "v2.5.0", "", twice},
		{"a later containerd that does not know", gate.Enforce, "2.5.0", api.UnknownVersion, twice},
		{"a later containerd with an NRI of its own", gate.Enforce, "2.5.0", api.DevelVersion, twice},
		{"a version that is none", gate.Enforce, "2.4.2", "latest", twice},
		{"half a version", gate.Enforce, "2.4.2", "v0.12", twice},
		{"an auditing gate has nothing to lose", gate.Audit, "2.5.0", "v0.12.5", always},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := startRuntime(t)
			_, stop := r.start(&fakeNode{}, tt.mode)
			defer stop()
			response, err := receive(t, r.plugins).configureNRI(t, tt.containerd, tt.nri)
			if err != nil {
				t.Fatal(err)
			}
			want, err := api.ParseEventMask(tt.events)
			if err != nil {
				t.Fatal(err)
			}
			if got := api.EventMask(response.GetEvents()); got != want {
				t.Errorf("subscribed to %s, want %s", got.PrettyString(), want.PrettyString())
			}
		})
	}
}
