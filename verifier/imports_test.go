package verifier_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/horkos/horkos/"

// deps are the packages that a package of this module is made of, each with what it
// imports, and whether it is of the standard library.
func deps(t *testing.T, path string) map[string]dep {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Standard}} {{join .Imports \" \"}}", module+path).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string]dep)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		all[fields[0]] = dep{standard: fields[1] == "true", imports: fields[2:]}
	}
	return all
}

type dep struct {
	standard bool
	imports  []string
}

// TestWhatDecidesCannotReachANetworkOrAProgram guards by construction that nothing is
// fetched while a container waits for an answer. Package net itself is there, since
// crypto/x509 has IP addresses; nobody else may import it.
func TestWhatDecidesCannotReachANetworkOrAProgram(t *testing.T) {
	absent := []string{"net/http", "os/exec", "fsnotify", "containerd", "nri", "client-go", "grpc", "go-containerregistry", "prometheus"}
	for _, path := range []string{"verifier", "verifier/policy", "verifier/evidence", "verifier/attestation", "verifier/image", "crds"} {
		t.Run(path, func(t *testing.T) {
			for name, d := range deps(t, path) {
				for _, part := range absent {
					if name == part || (!d.standard && slices.Contains(strings.Split(name, "/"), part)) {
						t.Errorf("%s is in it", name)
					}
				}
				if !d.standard && slices.Contains(d.imports, "net") {
					t.Errorf("%s imports net", name)
				}
			}
		})
	}
}

// TestTheGateAtTheRuntimeHoldsNoSourceAndNoClientOfOne: the gate asks what is at hand. It
// talks to containerd, by gRPC, which brings net/http; no package of this module in it
// imports that, and none fetches anything.
func TestTheGateAtTheRuntimeHoldsNoSourceAndNoClientOfOne(t *testing.T) {
	for name, d := range deps(t, "plugin") {
		ours, rest := strings.HasPrefix(name, module), strings.TrimPrefix(name, module)
		switch {
		case ours && (rest == "objects" || strings.HasPrefix(rest, "verifier/source")):
			t.Errorf("%s is in it: a source", name)
		case ours && (slices.Contains(d.imports, "net/http") || slices.Contains(d.imports, "os/exec")):
			t.Errorf("%s imports net/http or os/exec", name)
		case strings.HasPrefix(name, "k8s.io/client-go") || strings.Contains(name, "go-containerregistry") || strings.Contains(name, "fsnotify"):
			t.Errorf("%s is in it: a client", name)
		}
	}
}
